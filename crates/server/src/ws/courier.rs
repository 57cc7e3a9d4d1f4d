//! How output gets to a client so that a cut connection loses and doubles nothing: pure.
//!
//! A client that remembers cursors says itself how far it is; what it has is confirmed by the pong
//! to a ping that was sent behind it.
//!
//! Another client cannot say what it has. It gets one message at a time, and the next only after
//! the pong to the one before. A larger message is held open, but for its last byte, until the
//! client has shown by a pong that it has the rest: a message that is cut off there was never
//! seen. What remains uncertain when a connection breaks is one frame of a few bytes, or one small
//! message; it counts as delivered, and is not sent again.

use std::time::{Duration, Instant};

use woodfrog_wire::ws::output;

use super::outbox::{Chunk, Outbox};

/// Bytes of text in one message: with every byte escaped it is below the 1 MiB that the Python
/// library takes by default.
const MESSAGE: usize = 128 << 10;
/// Bytes of a message that is not worth being held open.
const SMALL: usize = 1 << 10;
/// Bytes of messages that go out together.
const TOGETHER: usize = 16 << 10;
/// Between messages while little is to be said: the moments in which something is uncertain are
/// few then.
const PACE: Duration = Duration::from_millis(20);
/// Bytes after which a client with cursors is asked what it has.
const ASK: usize = 256 << 10;

/// What is to be written to the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A whole text message.
    Whole(String),
    /// A text message without its end.
    Open(String),
    /// The end of the message that was held open.
    End(String),
    /// A ping; its pong comes back with this number.
    Ping(u64),
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    Send(Vec<Part>),
    /// Not before this.
    Wait(Instant),
    /// Until something happens.
    Nothing,
}

/// Whether the client knows cursors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Cursors,
    Guarded,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Guard {
    Ready,
    /// A message is open; its last byte, and the chunk that it ends.
    Open {
        last: String,
        chunk: u64,
        ping: u64,
    },
    /// The client has not shown yet that it has the last message.
    Unsure {
        ping: u64,
    },
}

/// See the module. Of one connection and one execution.
#[derive(Debug)]
pub(super) struct Courier {
    mode: Mode,
    guard: Guard,
    pings: u64,
    sent_at: Option<Instant>,
    /// The client said something since: it waits for an answer.
    hurry: bool,
    /// Bytes since the last ping, and the last chunk in them.
    unasked: usize,
    /// Pings that are out, and the chunks before them.
    asked: Vec<(u64, u64)>,
}

impl Courier {
    /// `pings`: where its numbers begin, so that those of an earlier execution are not taken for
    /// its own.
    pub(super) const fn new(mode: Mode, pings: u64) -> Self {
        Self {
            mode,
            guard: Guard::Ready,
            pings,
            sent_at: None,
            hurry: false,
            unasked: 0,
            asked: Vec::new(),
        }
    }

    /// The number of the last ping.
    pub(super) const fn pings(&self) -> u64 {
        self.pings
    }

    /// The client said something.
    pub(super) const fn hurry(&mut self) {
        self.hurry = true;
    }

    /// What can be sent now. `over`: no more output comes.
    pub(super) fn next(&mut self, outbox: &mut Outbox, over: bool, now: Instant) -> Next {
        match self.mode {
            Mode::Cursors => self.next_with_cursors(outbox),
            Mode::Guarded => self.next_guarded(outbox, over, now),
        }
    }

    fn ping(&mut self) -> u64 {
        self.pings += 1;
        self.pings
    }

    fn next_with_cursors(&mut self, outbox: &mut Outbox) -> Next {
        let Some(chunk) = outbox.take(MESSAGE) else {
            return Next::Nothing;
        };
        self.unasked += chunk.text.len();
        let cursor = chunk.cursor.to_string();
        let text = output(chunk.output, &chunk.text, Some(&cursor));
        let mut parts = vec![Part::Whole(text)];
        if self.unasked >= ASK || outbox.waiting() == 0 {
            self.unasked = 0;
            let ping = self.ping();
            self.asked.push((ping, chunk.number));
            parts.push(Part::Ping(ping));
        }
        Next::Send(parts)
    }

    fn next_guarded(&mut self, outbox: &mut Outbox, over: bool, now: Instant) -> Next {
        let waiting = outbox.waiting();
        if self.guard != Guard::Ready || waiting == 0 {
            return Next::Nothing;
        }
        let much = waiting >= MESSAGE / 2 || over || self.hurry;
        if let Some(at) = self.sent_at.map(|at| at + PACE)
            && !much
            && now < at
        {
            return Next::Wait(at);
        }
        self.hurry = false;
        self.sent_at = Some(now);
        let Some(first) = outbox.take(MESSAGE) else {
            return Next::Nothing;
        };
        if first.text.len() > SMALL {
            return Next::Send(self.open(&first));
        }
        let (mut last, mut bytes) = (first.number, first.text.len());
        let mut parts = vec![whole(&first)];
        while bytes < TOGETHER
            && let Some(more) = outbox.take(SMALL)
        {
            last = more.number;
            bytes += more.text.len();
            parts.push(whole(&more));
        }
        outbox.confirm(last);
        let ping = self.ping();
        self.guard = Guard::Unsure { ping };
        parts.push(Part::Ping(ping));
        Next::Send(parts)
    }

    fn open(&mut self, chunk: &Chunk) -> Vec<Part> {
        let mut text = output(chunk.output, &chunk.text, None);
        let last = text.pop().map(String::from).unwrap_or_default();
        let ping = self.ping();
        self.guard = Guard::Open {
            last,
            chunk: chunk.number,
            ping,
        };
        vec![Part::Open(text), Part::Ping(ping)]
    }

    /// A pong came.
    pub(super) fn pong(&mut self, number: u64, outbox: &mut Outbox) -> Vec<Part> {
        let has = |(ping, _): &(u64, u64)| *ping <= number;
        if let Some((_, chunk)) = self.asked.iter().rev().find(|asked| has(asked)) {
            outbox.confirm(*chunk);
        }
        self.asked.retain(|asked| !has(asked));
        match &self.guard {
            Guard::Open { ping, .. } if *ping <= number => self.close(outbox),
            Guard::Unsure { ping } if *ping <= number => {
                self.guard = Guard::Ready;
                Vec::new()
            }
            Guard::Ready | Guard::Open { .. } | Guard::Unsure { .. } => Vec::new(),
        }
    }

    /// Ends the message that is open, if one is: something else is to be said.
    pub(super) fn close(&mut self, outbox: &mut Outbox) -> Vec<Part> {
        let guard = std::mem::replace(&mut self.guard, Guard::Ready);
        let Guard::Open { last, chunk, .. } = guard else {
            self.guard = guard;
            return Vec::new();
        };
        outbox.confirm(chunk);
        let ping = self.ping();
        self.guard = Guard::Unsure { ping };
        vec![Part::End(last), Part::Ping(ping)]
    }

    /// Whether something could be sent, now or after a pause.
    pub(super) fn could_send(&self, outbox: &Outbox) -> bool {
        self.guard == Guard::Ready && outbox.waiting() > 0
    }

    /// Whether everything was sent that was there to be sent.
    pub(super) fn is_done(&self, outbox: &Outbox) -> bool {
        !matches!(self.guard, Guard::Open { .. }) && outbox.waiting() == 0
    }
}

fn whole(chunk: &Chunk) -> Part {
    Part::Whole(output(chunk.output, &chunk.text, None))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use woodfrog_wire::ws::Output;

    use super::*;
    use crate::ws::outbox::Cursor;

    fn outbox(texts: &[&str]) -> Outbox {
        let mut outbox = Outbox::new(Cursor::start(1));
        for text in texts {
            outbox.push(Output::Stdout, text.as_bytes());
        }
        outbox
    }

    fn data(message: &str) -> String {
        let value: serde_json::Value = serde_json::from_str(message).unwrap();
        value["data"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_small_message_goes_at_once_and_the_next_after_its_pong() {
        let mut outbox = outbox(&["a"]);
        let mut courier = Courier::new(Mode::Guarded, 0);
        let now = Instant::now();
        let Next::Send(parts) = courier.next(&mut outbox, false, now) else {
            panic!("nothing is sent")
        };
        let [Part::Whole(text), Part::Ping(ping)] = &parts[..] else {
            panic!("{parts:?}")
        };
        assert_eq!(data(text), "a");
        outbox.push(Output::Stdout, b"b");
        assert_eq!(courier.next(&mut outbox, false, now), Next::Nothing);
        assert!(courier.pong(*ping, &mut outbox).is_empty());
        let wait = courier.next(&mut outbox, false, now);
        assert_eq!(wait, Next::Wait(now + PACE));
        let hurried = {
            courier.hurry();
            courier.next(&mut outbox, false, now)
        };
        assert!(matches!(hurried, Next::Send(_)));
    }

    #[test]
    fn a_large_message_is_open_until_its_pong() {
        let text = "x".repeat(SMALL + 1);
        let mut outbox = outbox(&[&text]);
        let mut courier = Courier::new(Mode::Guarded, 10);
        let Next::Send(parts) = courier.next(&mut outbox, false, Instant::now()) else {
            panic!("nothing is sent")
        };
        let [Part::Open(head), Part::Ping(11)] = &parts[..] else {
            panic!("{parts:?}")
        };
        assert!(!courier.is_done(&outbox));
        assert!(courier.pong(10, &mut outbox).is_empty(), "an earlier one");
        let parts = courier.pong(11, &mut outbox);
        let [Part::End(last), Part::Ping(12)] = &parts[..] else {
            panic!("{parts:?}")
        };
        assert_eq!(data(&format!("{head}{last}")), text);
        assert!(courier.is_done(&outbox));
        outbox.rewind();
        assert_eq!(outbox.waiting(), 0, "it counts as delivered");
    }

    #[test]
    fn c9_a_message_that_was_cut_off_is_sent_again() {
        let text = "x".repeat(SMALL + 1);
        let mut outbox = outbox(&[&text]);
        let mut courier = Courier::new(Mode::Guarded, 0);
        courier.next(&mut outbox, false, Instant::now());
        outbox.rewind();
        assert_eq!(outbox.waiting(), text.len());
    }

    #[test]
    fn a_client_with_cursors_is_asked_now_and_then() {
        let part = "y".repeat(MESSAGE);
        let mut outbox = outbox(&[&part, &part, &part]);
        let mut courier = Courier::new(Mode::Cursors, 0);
        let mut pings = Vec::new();
        while let Next::Send(parts) = courier.next(&mut outbox, false, Instant::now()) {
            pings.extend(parts.into_iter().filter_map(|part| match part {
                Part::Ping(number) => Some(number),
                _ => None,
            }));
        }
        assert_eq!(pings, [1, 2]);
        courier.pong(1, &mut outbox);
        outbox.rewind();
        assert_eq!(outbox.waiting(), MESSAGE);
        courier.pong(2, &mut outbox);
        outbox.rewind();
        assert_eq!(outbox.waiting(), 0);
    }

    /// A client that keeps what it was shown, on connections that break at any part.
    fn through_cuts(mode: Mode, pieces: &[(bool, u16)], cuts: &[u8]) -> (String, String) {
        let (mut outbox, mut sent, mut got) =
            (Outbox::new(Cursor::start(1)), String::new(), String::new());
        let mut cursor = "1:0".to_owned();
        let mut cuts = cuts.iter().copied();
        let mut left = pieces.iter();
        let mut pings = 0;
        loop {
            let mut courier = Courier::new(mode, pings);
            match mode {
                Mode::Cursors => {
                    outbox.seek(&cursor.parse().unwrap());
                }
                Mode::Guarded => outbox.rewind(),
            }
            // Parts until the connection breaks; after the last cut it holds.
            let mut holds = cuts.next().map_or(u32::MAX, u32::from);
            let mut open = String::new();
            let mut queue: Vec<Part> = Vec::new();
            'connection: loop {
                if queue.is_empty() {
                    if let Some((large, length)) = left.next() {
                        let length = usize::from(*length) * if *large { 40 } else { 1 };
                        let text: String = (0..length)
                            .map(|at| char::from(b'a' + (at % 26) as u8))
                            .collect();
                        sent.push_str(&text);
                        outbox.push(Output::Stdout, text.as_bytes());
                    }
                    let over = left.len() == 0;
                    match courier.next(&mut outbox, over, Instant::now()) {
                        Next::Send(parts) => queue.extend(parts),
                        Next::Wait(_) => courier.hurry(),
                        Next::Nothing if over && outbox.waiting() == 0 => return (sent, got),
                        Next::Nothing => {}
                    }
                }
                for part in std::mem::take(&mut queue) {
                    // What the client was shown and did not answer is what nobody can know: the
                    // connection breaks before or after a message and its ping.
                    if holds == 0 && !matches!(part, Part::Ping(_)) {
                        break 'connection;
                    }
                    holds = holds.saturating_sub(1);
                    match part {
                        Part::Whole(text) => {
                            got.push_str(&data(&text));
                            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                            if let Some(place) = value["cursor"].as_str() {
                                cursor = place.to_owned();
                            }
                        }
                        Part::Open(text) => open = text,
                        Part::End(text) => got.push_str(&data(&format!("{open}{text}"))),
                        Part::Ping(number) => queue.extend(courier.pong(number, &mut outbox)),
                    }
                }
            }
            pings = courier.pings();
        }
    }

    proptest! {
        #[test]
        fn c9_cuts_lose_and_double_nothing_with_cursors(
            pieces in proptest::collection::vec((any::<bool>(), 1_u16..2000), 1..20),
            cuts in proptest::collection::vec(0_u8..12, 0..20),
        ) {
            let (sent, got) = through_cuts(Mode::Cursors, &pieces, &cuts);
            prop_assert_eq!(sent, got);
        }
    }
}
