//! Who reads a session, and what they have not seen yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, watch};
use woodfrog_types::Timestamp;
use woodfrog_types::session::{LogEnd, SessionEvent, Stream};

/// Entries that readers who keep up find without asking the store.
const RECENT_MAX: usize = 256;
/// Bytes of payload among them.
const RECENT_BYTES: usize = 1 << 20;
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

#[derive(Debug, Default)]
struct Recent {
    events: VecDeque<Arc<SessionEvent>>,
    bytes: usize,
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
            recent.bytes += event.event.payload.len();
            recent.events.push_back(Arc::new(event));
        }
        while recent.events.len() > RECENT_MAX || recent.bytes > RECENT_BYTES {
            let Some(old) = recent.events.pop_front() else {
                break;
            };
            recent.bytes -= old.event.payload.len();
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
        let recent = self.recent();
        let mut wanted = recent
            .events
            .iter()
            .filter(|event| event.event.stream == stream && event.sequence > after)
            .take(limit)
            .peekable();
        match wanted.peek() {
            Some(first) if first.sequence == after + 1 => wanted.cloned().collect(),
            _ => Vec::new(),
        }
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
