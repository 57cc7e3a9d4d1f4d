//! Who reads a session, and what they have not seen yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, watch};
use woodfrog_types::Timestamp;
use woodfrog_types::session::{LogEnd, SessionEvent, Stream};

/// Entries of a stream that readers who keep up find without asking the store.
const RECENT_MAX: usize = 256;
/// Bytes of payload among them.
const RECENT_BYTES: usize = 512 << 10;
/// Passing things that a reader may be behind before it misses some.
const EPHEMERAL_MAX: usize = 64;

/// Something that readers see if they look now, and nobody later: who is there, who types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ephemeral {
    pub at: Timestamp,
    /// `presence`, `typing`.
    pub kind: String,
    pub author: Option<String>,
    /// JSON.
    pub payload: String,
}

/// One session's readers. There is one per session that is read or written.
#[derive(Debug)]
pub(crate) struct Hub {
    end: watch::Sender<Option<LogEnd>>,
    recent: Mutex<Recent>,
    ephemeral: broadcast::Sender<Ephemeral>,
}

/// The newest entries, by stream.
#[derive(Debug, Default)]
struct Recent {
    log: Tail,
    universal: Tail,
}

/// The newest entries of a stream, dense.
#[derive(Debug, Default)]
struct Tail {
    events: VecDeque<Arc<SessionEvent>>,
    bytes: usize,
}

impl Recent {
    const fn of(&mut self, stream: Stream) -> &mut Tail {
        match stream {
            Stream::Log => &mut self.log,
            Stream::Universal => &mut self.universal,
        }
    }
}

impl Tail {
    fn push(&mut self, event: SessionEvent) {
        let next = self.events.back().map(|last| last.sequence + 1);
        if next.is_some_and(|next| next != event.sequence) {
            // Another server wrote what lies between; whoever wants it asks the store.
            *self = Self::default();
        }
        self.bytes += event.event.payload.len();
        self.events.push_back(Arc::new(event));
        while self.events.len() > RECENT_MAX || self.bytes > RECENT_BYTES {
            let Some(old) = self.events.pop_front() else {
                break;
            };
            self.bytes -= old.event.payload.len();
        }
    }

    /// Those after this place, if they are all there.
    fn after(&self, after: u64, limit: usize) -> Vec<Arc<SessionEvent>> {
        let first = self.events.front().map(|first| first.sequence);
        let behind = first.and_then(|first| (after + 1).checked_sub(first));
        let Some(from) = behind.and_then(|from| usize::try_from(from).ok()) else {
            return Vec::new();
        };
        let to = self.events.len().min(from.saturating_add(limit));
        if from >= to {
            return Vec::new();
        }
        self.events.range(from..to).cloned().collect()
    }
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            end: watch::Sender::new(None),
            recent: Mutex::default(),
            ephemeral: broadcast::Sender::new(EPHEMERAL_MAX),
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are in the log now.
    pub(crate) fn publish(&self, events: Vec<SessionEvent>, end: LogEnd) {
        let mut recent = self.recent();
        for event in events {
            recent.of(event.event.stream).push(event);
        }
        drop(recent);
        self.end.send_replace(Some(end));
    }

    /// The log ends at least there, says the store.
    pub(crate) fn learn(&self, end: LogEnd) {
        self.end.send_if_modified(|known| {
            let newer = known.is_none_or(|known| {
                (
                    known.log,
                    known.universal,
                    known.log_first,
                    known.universal_first,
                ) < (end.log, end.universal, end.log_first, end.universal_first)
            });
            if newer {
                *known = Some(end);
            }
            newer
        });
    }

    /// Those after this place, if they are all at hand; empty if they are not, or there are none.
    pub(crate) fn after(&self, stream: Stream, after: u64, limit: usize) -> Vec<Arc<SessionEvent>> {
        self.recent().of(stream).after(after, limit)
    }

    /// Where the log ends, and whoever wants to know when it moves.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<LogEnd>> {
        self.end.subscribe()
    }

    pub(crate) fn say(&self, ephemeral: Ephemeral) {
        // Nobody may be there.
        let _ = self.ephemeral.send(ephemeral);
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Ephemeral> {
        self.ephemeral.subscribe()
    }
}

/// The last place of a stream.
pub(crate) const fn last(end: &LogEnd, stream: Stream) -> u64 {
    match stream {
        Stream::Log => end.log,
        Stream::Universal => end.universal,
    }
}

/// The first place of a stream that is still held.
pub(crate) const fn first(end: &LogEnd, stream: Stream) -> u64 {
    match stream {
        Stream::Log => end.log_first,
        Stream::Universal => end.universal_first,
    }
}

#[cfg(test)]
mod tests;
