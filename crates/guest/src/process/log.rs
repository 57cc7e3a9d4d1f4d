//! The output of one process: a ring of bytes in a single offset space.

use std::{
    collections::{BTreeMap, VecDeque},
    io::IoSlice,
};

use woodfrog_guest_proto::{Channel, From, Gap, Pieces, limits};

/// One run of bytes of the same channel may cost this much bookkeeping; runs are limited to a
/// count that keeps it below the retention.
const RUN_COST: usize = 64;

/// Bytes of one channel; with [`Pieces::Apart`] those of one write.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: u64,
    channel: Channel,
    at_ms: u64,
    /// Counts from 1, without a hole.
    number: u64,
}

/// What a reader gets next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) channel: Channel,
    pub(crate) len: usize,
    pub(crate) at_ms: u64,
    pub(crate) number: u64,
}

/// Keeps the newest bytes, at most `capacity`, and never forgets what an attached reader has not
/// read: [`Log::room`] says how much may be added now.
pub(crate) struct Log {
    ring: VecDeque<u8>,
    /// The first begins at or before `start`.
    runs: VecDeque<Run>,
    start: u64,
    capacity: usize,
    max_runs: usize,
    pieces: Pieces,
    readers: BTreeMap<u64, u64>,
    next_reader: u64,
}

impl Log {
    pub(crate) fn new(capacity: usize, pieces: Pieces) -> Self {
        Self {
            ring: VecDeque::new(),
            runs: VecDeque::new(),
            start: 0,
            capacity,
            max_runs: (capacity / RUN_COST).max(16),
            pieces,
            readers: BTreeMap::new(),
            next_reader: 0,
        }
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn end(&self) -> u64 {
        self.start + self.ring.len() as u64
    }

    /// Bytes of memory the ring may hold on to.
    pub(crate) fn held(&self) -> usize {
        self.ring.capacity()
    }

    /// How many bytes may be pushed now without taking any from an attached reader.
    pub(crate) fn room(&self) -> usize {
        let Some(slowest) = self.readers.values().min() else {
            return self.capacity;
        };
        // One more run could be needed; the oldest must be dispensable when there are too many.
        if self.runs.len() >= self.max_runs && self.runs.get(1).is_none_or(|r| r.start > *slowest) {
            return 0;
        }
        self.capacity
            .saturating_sub((self.end() - slowest) as usize)
    }

    /// Appends at most [`Log::room`] bytes, dropping the oldest.
    pub(crate) fn push(&mut self, channel: Channel, now_ms: u64, bytes: &[u8]) {
        let excess = (self.ring.len() + bytes.len()).saturating_sub(self.capacity);
        self.drop_oldest(excess.min(self.ring.len()));
        let last = self.runs.back();
        let number = last.map_or(1, |run| run.number + 1);
        let goes_on = |run: &Run| self.pieces == Pieces::Joined && run.channel == channel;
        if !last.is_some_and(goes_on) {
            if self.runs.len() >= self.max_runs {
                let next = self.runs.get(1).map_or(self.end(), |run| run.start);
                self.drop_oldest((next - self.start) as usize);
            }
            self.runs.push_back(Run {
                start: self.end(),
                channel,
                at_ms: now_ms,
                number,
            });
        }
        if self.ring.capacity() - self.ring.len() < bytes.len() {
            // Doubling, but never beyond the capacity.
            let target = (self.ring.len() + bytes.len())
                .next_power_of_two()
                .min(self.capacity);
            self.ring
                .reserve_exact(target.saturating_sub(self.ring.len()).max(bytes.len()));
        }
        self.ring.extend(bytes);
    }

    fn drop_oldest(&mut self, count: usize) {
        self.ring.drain(..count);
        self.start += count as u64;
        while self.runs.get(1).is_some_and(|run| run.start <= self.start) {
            self.runs.pop_front();
        }
    }

    /// Attaches a reader. `Err` carries the end of the log when the offset lies beyond it.
    pub(crate) fn attach(&mut self, from: From) -> Result<(u64, Option<Gap>), u64> {
        let wanted = match from {
            From::Latest => self.end(),
            From::Offset(offset) if offset > self.end() => return Err(self.end()),
            From::Offset(offset) => offset,
            From::After(number) => self.after(number).ok_or(self.end())?,
        };
        let at = wanted.max(self.start);
        let id = self.next_reader;
        self.next_reader += 1;
        self.readers.insert(id, at);
        Ok((
            id,
            (at > wanted).then_some(Gap {
                from: wanted,
                to: at,
            }),
        ))
    }

    /// How much one push may be, for a piece to fit into one frame.
    pub(crate) fn most_at_once(&self) -> usize {
        match self.pieces {
            Pieces::Joined => usize::MAX,
            Pieces::Apart => limits::DATA_CHUNK,
        }
    }

    /// Where the piece after `number` begins, or would begin; `None` if there is no such number.
    fn after(&self, number: u64) -> Option<u64> {
        let Some((first, last)) = self.runs.front().zip(self.runs.back()) else {
            return (number == 0).then_some(self.start);
        };
        if number > last.number {
            return None;
        }
        let index = (number + 1).saturating_sub(first.number);
        let run = self.runs.get(usize::try_from(index).ok()?);
        Some(run.map_or(self.end(), |run| run.start.max(self.start)))
    }

    pub(crate) fn detach(&mut self, reader: u64) {
        self.readers.remove(&reader);
    }

    pub(crate) fn position(&self, reader: u64) -> u64 {
        self.readers.get(&reader).copied().unwrap_or(self.end())
    }

    pub(crate) fn advance(&mut self, reader: u64, count: usize) {
        if let Some(position) = self.readers.get_mut(&reader) {
            *position += count as u64;
        }
    }

    /// What is at `at`, up to `most` bytes of one run.
    pub(crate) fn run_at(&self, at: u64, most: usize) -> Option<Piece> {
        if at < self.start || at >= self.end() {
            return None;
        }
        let next = self.runs.partition_point(|run| run.start <= at);
        let run = self.runs.get(next.checked_sub(1)?)?;
        let limit = self.runs.get(next).map_or(self.end(), |run| run.start);
        Some(Piece {
            channel: run.channel,
            len: most.min((limit - at) as usize),
            at_ms: run.at_ms,
            number: run.number,
        })
    }

    /// The bytes `at..at + len`, which must be held.
    pub(crate) fn slices(&self, at: u64, len: usize) -> [IoSlice<'_>; 2] {
        let from = (at - self.start) as usize;
        let (a, b) = self.ring.as_slices();
        let first = a.get(from..a.len().min(from + len)).unwrap_or_default();
        let skip = from.saturating_sub(a.len());
        let rest = len - first.len();
        let second = b.get(skip..b.len().min(skip + rest)).unwrap_or_default();
        [IoSlice::new(first), IoSlice::new(second)]
    }

    /// Gives back memory that will not be needed any more.
    pub(crate) fn seal(&mut self) {
        self.ring.shrink_to_fit();
        self.runs.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(log: &Log, at: u64, len: usize) -> Vec<u8> {
        log.slices(at, len)
            .iter()
            .flat_map(|s| s.to_vec())
            .collect()
    }

    #[test]
    fn without_readers_the_oldest_goes() {
        let mut log = Log::new(8, Pieces::Joined);
        log.push(Channel::Stdout, 0, b"abcdef");
        log.push(Channel::Stderr, 0, b"ghij");
        assert_eq!((log.start(), log.end()), (2, 10));
        let piece = |channel, number| Piece {
            channel,
            len: 4,
            at_ms: 0,
            number,
        };
        assert_eq!(log.run_at(2, 100), Some(piece(Channel::Stdout, 1)));
        assert_eq!(log.run_at(6, 100), Some(piece(Channel::Stderr, 2)));
        assert_eq!(text(&log, 2, 8), b"cdefghij");
        let (_, gap) = log.attach(From::Offset(0)).unwrap();
        assert_eq!(gap, Some(Gap { from: 0, to: 2 }));
        assert_eq!(log.attach(From::Offset(11)), Err(10));
    }

    #[test]
    fn the_slowest_reader_limits_the_room() {
        let mut log = Log::new(8, Pieces::Joined);
        let (slow, _) = log.attach(From::Offset(0)).unwrap();
        let (fast, _) = log.attach(From::Latest).unwrap();
        log.push(Channel::Stdout, 0, b"abcdef");
        log.advance(fast, 6);
        assert_eq!(log.room(), 2);
        log.advance(slow, 3);
        assert_eq!(log.room(), 5);
        log.push(Channel::Stdout, 0, b"ghijk");
        assert_eq!((log.start(), log.room()), (3, 0));
        assert_eq!(text(&log, log.position(slow), 8), b"defghijk");
        log.detach(slow);
        assert_eq!(log.room(), 3);
        log.detach(fast);
        assert_eq!(log.room(), 8);
    }

    #[test]
    fn runs_are_bounded_and_readers_keep_theirs() {
        let mut log = Log::new(1024, Pieces::Joined);
        for i in 0..1000u32 {
            let channel = if i % 2 == 0 {
                Channel::Stdout
            } else {
                Channel::Stderr
            };
            log.push(channel, 0, b"x");
        }
        assert!(log.runs.len() <= 16);
        let (reader, _) = log.attach(From::Offset(log.start())).unwrap();
        assert_eq!(log.room(), 0);
        log.advance(reader, 1);
        assert!(log.room() > 0);
        let at = log.position(reader);
        log.push(Channel::Stdout, 0, b"y");
        assert!(log.start() <= at);
    }

    #[test]
    fn pieces_that_are_apart_have_numbers() {
        let mut log = Log::new(8, Pieces::Apart);
        assert_eq!(log.after(0), Some(0));
        assert_eq!(log.after(1), None);
        for (at_ms, bytes) in [(5, &b"ab"[..]), (5, b"cd"), (6, b"efgh")] {
            log.push(Channel::Stdout, at_ms, bytes);
        }
        let piece = |at| log.run_at(at, 100).map(|p| (p.number, p.at_ms, p.len));
        assert_eq!(piece(0), Some((1, 5, 2)));
        assert_eq!(piece(2), Some((2, 5, 2)));
        let from = |number| log.after(number);
        assert_eq!(
            [0, 1, 2, 3, 4].map(from),
            [Some(0), Some(2), Some(4), Some(8), None]
        );
        // The first is gone and half of the second: what is left of it is still the second.
        log.push(Channel::Stdout, 7, b"ijk");
        let from = |number| log.after(number);
        assert_eq!([0, 1, 2, 3].map(from), [Some(3), Some(3), Some(4), Some(8)]);
        assert_eq!(log.run_at(3, 100).map(|p| (p.number, p.len)), Some((2, 1)));
    }
}
