//! Lines out of a byte stream, with their places.

/// Bytes of a line that is taken; a longer one is noted and skipped.
pub(crate) const LINE_MAX: usize = 32 << 20;
/// Bytes of the beginning of a line that is too long.
const START_KEPT: usize = 4096;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Without its end. `output`: where the stream goes on after it.
    Whole { bytes: Vec<u8>, output: u64 },
    /// Longer than [`LINE_MAX`].
    Endless {
        start: Vec<u8>,
        length: u64,
        output: u64,
    },
}

/// Cuts lines. Other bytes may lie between the parts of a line: the place of a line's first byte is
/// remembered, for there reading has to begin anew if the line is not finished.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    part: Vec<u8>,
    /// Length of the line so far, if it is too long.
    endless: Option<u64>,
    /// Where the unfinished line began.
    began: Option<u64>,
}

impl Lines {
    /// Takes bytes that lie at `offset`.
    pub(crate) fn push(&mut self, offset: u64, mut bytes: &[u8], mut take: impl FnMut(Line)) {
        let mut at = offset;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end + 1);
            self.add(at, line.get(..end).unwrap_or_default());
            at += line.len() as u64;
            take(self.finish(at));
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.add(at, bytes);
        }
    }

    /// What was begun is lost.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    fn add(&mut self, at: u64, bytes: &[u8]) {
        self.began.get_or_insert(at);
        if let Some(length) = &mut self.endless {
            *length += bytes.len() as u64;
        } else if self.part.len() + bytes.len() > LINE_MAX {
            self.endless = Some((self.part.len() + bytes.len()) as u64);
            self.part.truncate(START_KEPT);
            self.part.shrink_to_fit();
        } else {
            self.part.extend_from_slice(bytes);
        }
    }

    fn finish(&mut self, output: u64) -> Line {
        let bytes = std::mem::take(&mut self.part);
        self.began = None;
        match self.endless.take() {
            None => Line::Whole { bytes, output },
            Some(length) => Line::Endless {
                start: bytes,
                length,
                output,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[(u64, &[u8])]) -> Vec<Line> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for (offset, bytes) in parts {
            lines.push(*offset, bytes, |line| out.push(line));
        }
        out
    }

    #[test]
    fn lines_are_cut_wherever_the_parts_end() {
        let whole = |text: &str, output| Line::Whole {
            bytes: text.as_bytes().to_vec(),
            output,
        };
        assert_eq!(
            cut(&[(0, b"a\nb"), (3, b"c\n\n"), (6, b"d")]),
            [whole("a", 2), whole("bc", 5), whole("", 6)]
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_told_and_skipped() {
        let long = vec![b'x'; LINE_MAX];
        let after = LINE_MAX as u64;
        let lines = cut(&[(0, &long), (after, b"yz\nok\n")]);
        assert!(matches!(&lines[0], Line::Endless { start, length, output }
                if start.len() == START_KEPT && *length == after + 2 && *output == after + 3));
        assert!(matches!(&lines[1], Line::Whole { bytes, .. } if bytes == b"ok"));
    }
}
