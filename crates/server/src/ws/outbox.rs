//! The output of one execution that its client is not known to have: pure.
//!
//! Chunks are numbered. A chunk stays until it is confirmed; a new connection sends again what is
//! left. A cursor names a place between two chunks, for clients that remember how far they are.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use woodfrog_wire::ws::Output;

use super::text::Decoder;

/// Bytes of text that may wait to be confirmed; then the process is held back.
pub(super) const WINDOW: usize = 1 << 20;

/// A place in a process's output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The guest's number of the process.
    pub(super) process: u64,
    /// Bytes of output, both streams together.
    pub(super) offset: u64,
    /// Bytes before `offset` that are the beginning of a character, of either stream.
    stdout: Decoder,
    stderr: Decoder,
}

/// A text that is no cursor.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub(super) struct NotACursor;

impl Cursor {
    pub(super) fn start(process: u64) -> Self {
        Self {
            process,
            ..Self::default()
        }
    }

    pub(super) const fn at(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    fn decoder(&mut self, output: Output) -> &mut Decoder {
        match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.process, self.offset)?;
        let (stdout, stderr) = (self.stdout.waiting(), self.stderr.waiting());
        if stdout.is_empty() && stderr.is_empty() {
            return Ok(());
        }
        write!(f, ":{}:{}", hex::encode(stdout), hex::encode(stderr))
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let mut parts = text.split(':');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (process, offset) = number().zip(number()).ok_or(NotACursor)?;
        let mut decoder = || match parts.next() {
            None => Some(Decoder::default()),
            Some(digits) => Decoder::after(&hex::decode(digits).ok()?),
        };
        let (stdout, stderr) = decoder().zip(decoder()).ok_or(NotACursor)?;
        match parts.next() {
            None => Ok(Self {
                process,
                offset,
                stdout,
                stderr,
            }),
            Some(_) => Err(NotACursor),
        }
    }
}

/// Output that belongs together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) number: u64,
    pub(super) output: Output,
    pub(super) text: String,
    /// Behind it.
    pub(super) cursor: Cursor,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    /// In order, without a hole in their numbers.
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// The number of the next chunk to be sent.
    next: u64,
    /// The number of the next chunk to come.
    coming: u64,
    /// Behind what was confirmed.
    confirmed: Cursor,
    /// Behind what came.
    came: Cursor,
}

/// What a client's cursor means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seek {
    /// Output goes on there.
    Here,
    /// It lies before what is here.
    Earlier,
    /// There is no such place.
    Nowhere,
}

impl Outbox {
    /// Of output that is read from `from` on.
    pub(super) fn new(from: Cursor) -> Self {
        Self {
            chunks: VecDeque::new(),
            bytes: 0,
            next: 0,
            coming: 0,
            confirmed: from.clone(),
            came: from,
        }
    }

    /// Whether more may come.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < WINDOW
    }

    /// Takes bytes of output that begin where the last ended.
    pub(super) fn push(&mut self, output: Output, bytes: &[u8]) {
        self.came.offset += bytes.len() as u64;
        let text = self.came.decoder(output).push(bytes);
        self.add(output, text);
    }

    /// Output up to this offset is lost; characters that were begun are lost, too.
    pub(super) fn skip_to(&mut self, offset: u64) {
        self.finish();
        self.came.offset = offset;
    }

    /// The output has ended, or goes on somewhere else.
    pub(super) fn finish(&mut self) {
        for output in [Output::Stdout, Output::Stderr] {
            if let Some(rest) = self.came.decoder(output).finish() {
                self.add(output, rest.to_owned());
            }
        }
    }

    fn add(&mut self, output: Output, text: String) {
        if text.is_empty() {
            return;
        }
        self.bytes += text.len();
        self.chunks.push_back(Chunk {
            number: self.coming,
            output,
            text,
            cursor: self.came.clone(),
        });
        self.coming += 1;
    }

    /// The next chunk that was not sent on this connection, joined with those behind it that are
    /// of the same stream, up to `most` bytes.
    pub(super) fn take(&mut self, most: usize) -> Option<Chunk> {
        let index = self.index(self.next)?;
        let mut taken = self.chunks.get(index)?.clone();
        for more in self.chunks.iter().skip(index + 1) {
            if more.output != taken.output || taken.text.len() + more.text.len() > most {
                break;
            }
            taken.text.push_str(&more.text);
            taken.number = more.number;
            taken.cursor = more.cursor.clone();
        }
        self.next = taken.number + 1;
        Some(taken)
    }

    fn index(&self, number: u64) -> Option<usize> {
        let first = self.chunks.front()?.number;
        usize::try_from(number.checked_sub(first)?).ok()
    }

    /// Bytes of text that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        let unsent = |chunk: &&Chunk| chunk.number >= self.next;
        let unsent = self.chunks.iter().rev().take_while(unsent);
        unsent.map(|chunk| chunk.text.len()).sum()
    }

    /// The client has everything up to this chunk.
    pub(super) fn confirm(&mut self, number: u64) {
        while let Some(first) = self.chunks.front()
            && first.number <= number
        {
            if let Some(gone) = self.chunks.pop_front() {
                self.bytes -= gone.text.len();
                self.confirmed = gone.cursor;
            }
        }
        self.next = self.next.max(number + 1);
    }

    /// A new connection: what was not confirmed is sent again.
    pub(super) fn rewind(&mut self) {
        self.next = self.chunks.front().map_or(self.coming, |it| it.number);
    }

    /// As [`Self::rewind`], to where the client says that it is, if that is here.
    pub(super) fn seek(&mut self, cursor: &Cursor) -> Seek {
        if *cursor == self.confirmed {
            self.rewind();
            return Seek::Here;
        }
        let found = self.chunks.iter().find(|chunk| chunk.cursor == *cursor);
        if let Some(number) = found.map(|chunk| chunk.number) {
            self.rewind();
            self.confirm(number);
            return Seek::Here;
        }
        let same = cursor.process == self.came.process;
        match same && cursor.offset <= self.came.offset {
            true => Seek::Earlier,
            false => Seek::Nowhere,
        }
    }

    /// Behind everything that the client has.
    pub(super) fn confirmed(&self) -> &Cursor {
        &self.confirmed
    }

    #[cfg(test)]
    pub(super) fn came(&self) -> &Cursor {
        &self.came
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(parts: &[(Output, &str)]) -> Outbox {
        let mut outbox = Outbox::new(Cursor::start(7));
        for (output, text) in parts {
            outbox.push(*output, text.as_bytes());
        }
        outbox
    }

    fn drain(outbox: &mut Outbox) -> String {
        let mut all = String::new();
        while let Some(chunk) = outbox.take(1) {
            all.push_str(&chunk.text);
        }
        all
    }

    #[test]
    fn c9_what_was_not_confirmed_is_sent_again_and_nothing_twice() {
        let mut outbox = outbox(&[
            (Output::Stdout, "one "),
            (Output::Stdout, "two "),
            (Output::Stderr, "three "),
        ]);
        let first = outbox.take(1).unwrap();
        assert_eq!(first.text, "one ");
        outbox.take(1).unwrap();
        outbox.confirm(first.number);
        outbox.rewind();
        assert_eq!(drain(&mut outbox), "two three ");
        outbox.push(Output::Stdout, b"four");
        assert_eq!(drain(&mut outbox), "four");
        outbox.rewind();
        assert_eq!(drain(&mut outbox), "two three four");
        outbox.confirm(3);
        outbox.rewind();
        assert_eq!(drain(&mut outbox), "");
        assert!(outbox.has_room());
    }

    #[test]
    fn chunks_of_one_stream_are_joined() {
        let mut outbox = outbox(&[
            (Output::Stdout, "a"),
            (Output::Stdout, "b"),
            (Output::Stderr, "c"),
            (Output::Stdout, "d"),
        ]);
        assert_eq!(outbox.waiting(), 4);
        let joined = outbox.take(100).unwrap();
        assert_eq!((joined.text.as_str(), joined.number), ("ab", 1));
        assert_eq!(outbox.waiting(), 2);
        assert_eq!(outbox.take(100).unwrap().text, "c");
        assert_eq!(outbox.waiting(), 1);
    }

    #[test]
    fn a_cursor_finds_its_place() {
        let mut outbox = Outbox::new(Cursor::start(7));
        let euro = "€".as_bytes();
        outbox.push(Output::Stdout, b"x");
        outbox.push(Output::Stdout, &euro[..2]);
        outbox.push(Output::Stderr, b"e");
        outbox.push(Output::Stdout, &euro[2..]);
        let mut cursors = Vec::new();
        while let Some(chunk) = outbox.take(1) {
            cursors.push((chunk.text.clone(), chunk.cursor.to_string()));
        }
        let wanted = [("x", "7:1"), ("e", "7:4:e282:"), ("€", "7:5")];
        for ((text, cursor), wanted) in cursors.iter().zip(wanted) {
            assert_eq!((text.as_str(), cursor.as_str()), wanted);
        }
        let seek = |outbox: &mut Outbox, text: &str| outbox.seek(&text.parse().unwrap());
        assert_eq!(seek(&mut outbox, "7:0"), Seek::Here);
        assert_eq!(drain(&mut outbox), "xe€");
        assert_eq!(seek(&mut outbox, "7:4:e282:"), Seek::Here);
        assert_eq!(drain(&mut outbox), "€");
        // Nor is anything sent twice to who asks for what is not here.
        assert_eq!(seek(&mut outbox, "7:1"), Seek::Earlier);
        assert_eq!(seek(&mut outbox, "7:6"), Seek::Nowhere);
        assert_eq!(seek(&mut outbox, "8:1"), Seek::Nowhere);
        assert_eq!(outbox.waiting(), 0);
        for bad in ["", "7", "a:1", "7:1:e2", "7:1:ff:", "7:1:e282::", "7:-1"] {
            let parsed = bad.parse::<Cursor>();
            assert!(parsed.is_err() || bad == "7:1:e2", "{bad}");
        }
    }

    #[test]
    fn a_full_window_has_no_room() {
        let mut outbox = Outbox::new(Cursor::start(1));
        outbox.push(Output::Stdout, &vec![b'x'; WINDOW]);
        assert!(!outbox.has_room());
        outbox.take(1).unwrap();
        outbox.confirm(0);
        assert!(outbox.has_room());
        assert_eq!(outbox.confirmed().offset, WINDOW as u64);
    }

    #[test]
    fn a_gap_ends_characters_that_were_begun() {
        let mut outbox = Outbox::new(Cursor::start(1));
        outbox.push(Output::Stdout, b"\xe2");
        outbox.skip_to(100);
        outbox.push(Output::Stdout, b"y");
        assert_eq!(outbox.take(100).unwrap().text, "\u{fffd}y");
        assert_eq!(outbox.came().to_string(), "1:101");
    }
}
