//! Output of two streams, cut into lines, each stream with the place up to which it was read.

use woodfrog_core::run::event::{From, LINE_BYTES_MAX};
use woodfrog_types::run::RunPosition;

/// One stream's part that is no line yet.
#[derive(Debug, Default)]
struct Part {
    bytes: Vec<u8>,
    /// Where it began.
    start: u64,
    /// Before this, everything was in the log already when reading began.
    known: u64,
}

/// Both.
#[derive(Debug)]
pub(super) struct Lines {
    stdout: Part,
    stderr: Part,
    /// Output of both that was seen.
    seen: u64,
}

impl Lines {
    /// Reading goes on where it ended. It is to begin at [`Lines::begin`].
    pub(super) fn new(at: RunPosition) -> Self {
        let part = |known| Part {
            known,
            ..Part::default()
        };
        Self {
            stdout: part(at.stdout),
            stderr: part(at.stderr),
            seen: at.stdout.min(at.stderr),
        }
    }

    pub(super) fn begin(&self) -> u64 {
        self.stdout.known.min(self.stderr.known)
    }

    /// Bytes of one stream that lie at `offset` of the output; `line` gets whole lines.
    pub(super) fn push(
        &mut self,
        from: From,
        offset: u64,
        bytes: &[u8],
        mut line: impl FnMut(&str),
    ) {
        let end = offset + bytes.len() as u64;
        self.seen = self.seen.max(end);
        let part = match from {
            From::Stdout => &mut self.stdout,
            From::Stderr => &mut self.stderr,
        };
        if end <= part.known {
            return;
        }
        let skip = usize::try_from(part.known.saturating_sub(offset)).unwrap_or(usize::MAX);
        let skip = skip.min(bytes.len());
        let mut place = offset + skip as u64;
        for piece in bytes[skip..].split_inclusive(|byte| *byte == b'\n') {
            if part.bytes.is_empty() {
                part.start = place;
            }
            place += piece.len() as u64;
            let room = LINE_BYTES_MAX.saturating_sub(part.bytes.len());
            part.bytes
                .extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                part.finish(&mut line);
            }
        }
    }

    /// Output that is lost: what was no line yet is one.
    pub(super) fn gap(&mut self, to: u64, mut line: impl FnMut(From, &str)) {
        self.rest(&mut line);
        self.seen = self.seen.max(to);
    }

    /// The end: what was no line yet is one.
    pub(super) fn rest(&mut self, mut line: impl FnMut(From, &str)) {
        for (from, part) in [
            (From::Stdout, &mut self.stdout),
            (From::Stderr, &mut self.stderr),
        ] {
            if !part.bytes.is_empty() {
                part.finish(&mut |text: &str| line(from, text));
            }
        }
    }

    /// Up to where each stream's lines were given.
    pub(super) fn position(&self) -> RunPosition {
        let of = |part: &Part| match part.bytes.is_empty() {
            true => self.seen.max(part.known),
            false => part.start,
        };
        RunPosition {
            stdout: of(&self.stdout),
            stderr: of(&self.stderr),
            log: 0,
        }
    }
}

impl Part {
    fn finish(&mut self, line: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.bytes);
        line(text.trim_end_matches(['\n', '\r']));
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(lines: &mut Lines, output: &[(From, &str)], begin: u64) -> Vec<(From, String)> {
        let (mut said, mut offset) = (Vec::new(), 0);
        for (from, text) in output {
            let bytes = text.as_bytes();
            let end = offset + bytes.len() as u64;
            if end > begin {
                let skip = usize::try_from(begin.saturating_sub(offset)).unwrap();
                lines.push(*from, offset + skip as u64, &bytes[skip..], |line| {
                    said.push((*from, line.to_owned()));
                });
            }
            offset = end;
        }
        said
    }

    const OUTPUT: [(From, &str); 7] = [
        (From::Stdout, "one\ntw"),
        (From::Stderr, "err"),
        (From::Stdout, "o\n"),
        (From::Stderr, "or\r\n"),
        (From::Stdout, "three\n\n"),
        (From::Stderr, "x\n"),
        (From::Stdout, "rest"),
    ];

    #[test]
    fn streams_are_cut_apart() {
        let mut lines = Lines::new(RunPosition::default());
        let said = feed(&mut lines, &OUTPUT, 0);
        let texts: Vec<&str> = said.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["one", "two", "error", "three", "", "x"]);
        let mut rest = Vec::new();
        lines.rest(|from, text| rest.push((from, text.to_owned())));
        assert_eq!(rest, [(From::Stdout, "rest".to_owned())]);
    }

    /// Whoever goes on from any place in between gets what is missing, and nothing twice.
    #[test]
    fn reading_goes_on_from_any_place() {
        let whole = feed(&mut Lines::new(RunPosition::default()), &OUTPUT, 0);
        for cut in 0..=OUTPUT.len() {
            let mut first = Lines::new(RunPosition::default());
            let mut said = feed(&mut first, &OUTPUT[..cut], 0);
            let mut second = Lines::new(first.position());
            let begin = second.begin();
            said.extend(feed(&mut second, &OUTPUT, begin));
            let (mut said, mut whole) = (said, whole.clone());
            // Per stream in order; between streams the order may differ.
            said.sort_by_key(|(from, _)| *from == From::Stderr);
            whole.sort_by_key(|(from, _)| *from == From::Stderr);
            assert_eq!(said, whole, "cut at {cut}");
        }
    }

    #[test]
    fn long_lines_are_cut_off() {
        let mut lines = Lines::new(RunPosition::default());
        let long = "a".repeat(LINE_BYTES_MAX + 100) + "\nb\n";
        let mut sizes = Vec::new();
        lines.push(From::Stdout, 0, long.as_bytes(), |line| {
            sizes.push(line.len())
        });
        assert_eq!(sizes, [LINE_BYTES_MAX, 1]);
        assert_eq!(lines.position().stdout, long.len() as u64);
    }
}
