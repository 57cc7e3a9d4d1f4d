//! A streaming splitter of `multipart/form-data`: bytes in, parts out, bounded memory.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

/// Bytes of one part's headers.
const PART_HEADERS_MAX: usize = 16 << 10;
/// Parts of one body.
const PARTS_MAX: usize = 10_000;
/// RFC 2046 allows 70; some clients make longer ones.
const BOUNDARY_MAX: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MultipartError {
    #[error("no multipart boundary param in Content-Type")]
    Boundary,
    #[error("part headers are above the limit of {PART_HEADERS_MAX} bytes")]
    HeadersTooLarge,
    #[error("malformed part headers")]
    Headers,
    #[error("more than {PARTS_MAX} parts")]
    TooManyParts,
    #[error("malformed boundary line")]
    Delimiter,
    #[error("the body ended inside a part")]
    Truncated,
}

/// The names in a part's `Content-Disposition`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PartHead {
    pub(crate) name: Option<String>,
    /// With its slashes.
    pub(crate) filename: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Part(PartHead),
    Data(Bytes),
    PartEnd,
    /// More bytes are needed.
    More,
    /// The closing delimiter was there; what follows is ignored.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble,
    /// Right behind a delimiter: `--` closes, a line break opens a part.
    Delimiter,
    Headers,
    Data,
    Done,
}

/// The state of one body.
pub(crate) struct Splitter {
    /// `\r\n--boundary`; the body is treated as if a line break preceded it.
    delimiter: memmem::Finder<'static>,
    delimiter_len: usize,
    buffer: BytesMut,
    state: State,
    parts: usize,
}

impl Splitter {
    /// Takes the boundary of a `Content-Type` value.
    pub(crate) fn new(content_type: &str) -> Result<Self, MultipartError> {
        let boundary = parameters(content_type)
            .into_iter()
            .find(|(name, _)| name == "boundary")
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty() && value.len() <= BOUNDARY_MAX)
            .ok_or(MultipartError::Boundary)?;
        let delimiter = format!("\r\n--{boundary}");
        Ok(Self {
            delimiter: memmem::Finder::new(&delimiter).into_owned(),
            delimiter_len: delimiter.len(),
            buffer: BytesMut::from(&b"\r\n"[..]),
            state: State::Preamble,
            parts: 0,
        })
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event; call until it says [`Event::More`] or [`Event::Done`].
    pub(crate) fn next(&mut self) -> Result<Event, MultipartError> {
        loop {
            match self.state {
                State::Preamble => {
                    if !self.skip_to_delimiter() {
                        return Ok(Event::More);
                    }
                }
                State::Delimiter => match self.after_delimiter()? {
                    Some(state) => self.state = state,
                    None => return Ok(Event::More),
                },
                State::Headers => return self.headers(),
                State::Data => return Ok(self.data()),
                State::Done => return Ok(Event::Done),
            }
        }
    }

    /// To be called at the end of the bytes.
    pub(crate) fn finish(&self) -> Result<(), MultipartError> {
        if self.state == State::Done {
            Ok(())
        } else {
            Err(MultipartError::Truncated)
        }
    }

    fn skip_to_delimiter(&mut self) -> bool {
        if let Some(at) = self.delimiter.find(&self.buffer) {
            let _ = self.buffer.split_to(at + self.delimiter_len);
            self.state = State::Delimiter;
            return true;
        }
        let keep = self.buffer.len().min(self.delimiter_len - 1);
        let _ = self.buffer.split_to(self.buffer.len() - keep);
        false
    }

    fn after_delimiter(&mut self) -> Result<Option<State>, MultipartError> {
        if self.buffer.starts_with(b"--") {
            self.buffer.clear();
            return Ok(Some(State::Done));
        }
        let padding = self
            .buffer
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        let Some(rest) = self.buffer.get(padding..padding + 2) else {
            return if self.buffer.len() > PART_HEADERS_MAX {
                Err(MultipartError::Delimiter)
            } else {
                Ok(None)
            };
        };
        if rest != b"\r\n" {
            return Err(MultipartError::Delimiter);
        }
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return Err(MultipartError::TooManyParts);
        }
        // The line break stays: headers may be none, and then a blank line follows at once.
        let _ = self.buffer.split_to(padding);
        Ok(Some(State::Headers))
    }

    fn headers(&mut self) -> Result<Event, MultipartError> {
        let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") else {
            return if self.buffer.len() > PART_HEADERS_MAX {
                Err(MultipartError::HeadersTooLarge)
            } else {
                Ok(Event::More)
            };
        };
        if end > PART_HEADERS_MAX {
            return Err(MultipartError::HeadersTooLarge);
        }
        let block = self.buffer.split_to(end + 2);
        let text = std::str::from_utf8(&block).map_err(|_| MultipartError::Headers)?;
        let head = part_head(text);
        // The blank line.
        let _ = self.buffer.split_to(2);
        self.state = State::Data;
        Ok(Event::Part(head))
    }

    fn data(&mut self) -> Event {
        if let Some(at) = self.delimiter.find(&self.buffer) {
            if at > 0 {
                return Event::Data(self.buffer.split_to(at).freeze());
            }
            let _ = self.buffer.split_to(self.delimiter_len);
            self.state = State::Delimiter;
            return Event::PartEnd;
        }
        // The tail may be the beginning of a delimiter.
        let safe = self.buffer.len().saturating_sub(self.delimiter_len - 1);
        if safe == 0 {
            Event::More
        } else {
            Event::Data(self.buffer.split_to(safe).freeze())
        }
    }
}

fn part_head(block: &str) -> PartHead {
    let mut head = PartHead::default();
    for line in block.split("\r\n") {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if !name.trim().eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        for (name, value) in parameters(value) {
            match name.as_str() {
                "name" => head.name = Some(value),
                "filename" if head.filename.is_none() => head.filename = Some(value),
                "filename*" => head.filename = extended(&value).or(head.filename),
                _ => {}
            }
        }
    }
    head
}

/// `UTF-8''a%20b`.
fn extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let decoded = percent_encoding::percent_decode_str(encoded)
        .decode_utf8()
        .ok()?;
    Some(decoded.into_owned())
}

/// The parameters of a header value (`text/x; a=b; c="d;\"e"`), names in lower case.
fn parameters(value: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut rest = value.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((name, after)) = rest.split_once('=') {
        let name = name
            .trim()
            .trim_start_matches(';')
            .trim()
            .to_ascii_lowercase();
        let after = after.trim_start();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let (value, left) = after.split_once(';').unwrap_or((after, ""));
                (value.trim().to_owned(), left)
            }
        };
        out.push((name, value));
        rest = left.trim_start().trim_start_matches(';');
    }
    out
}

/// A quoted string behind its first quote, and what follows its last. A backslash escapes only
/// quotes and backslashes: some browsers send Windows paths as they are.
fn unquote(text: &str) -> (String, &str) {
    let mut out = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (out, &text[at + 1..]),
            '\\' => match characters.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => out.push(escaped),
                None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
    (out, "")
}

#[cfg(test)]
mod tests;
