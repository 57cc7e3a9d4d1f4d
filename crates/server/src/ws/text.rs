//! Text out of bytes that come in pieces.

/// Decodes one stream. The beginning of a character waits for its end; what is no UTF-8 becomes
/// U+FFFD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Decoder {
    /// At most three bytes.
    waiting: Vec<u8>,
}

impl Decoder {
    /// Goes on after these bytes, which are the beginning of a character; `None` if they cannot be.
    pub(super) fn after(waiting: &[u8]) -> Option<Self> {
        let begins = match std::str::from_utf8(waiting) {
            Ok(text) => text.is_empty(),
            Err(error) => error.valid_up_to() == 0 && error.error_len().is_none(),
        };
        begins.then(|| Self {
            waiting: waiting.to_vec(),
        })
    }

    /// What of the stream has not become text yet.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.waiting
    }

    /// The text that these bytes complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.waiting);
        all.extend_from_slice(bytes);
        match String::from_utf8(all) {
            Ok(text) => text,
            Err(error) => self.mend(error.as_bytes()),
        }
    }

    fn mend(&mut self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            let unfinished = chunks.peek().is_none()
                && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if unfinished {
                self.waiting = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }

    /// The stream has ended: a character that was begun never comes.
    pub(super) fn finish(&mut self) -> Option<&'static str> {
        let unfinished = !std::mem::take(&mut self.waiting).is_empty();
        unfinished.then_some("\u{fffd}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn c8_a_character_on_a_boundary_is_whole() {
        let text = format!("{}é", "a".repeat(1023));
        let (first, second) = text.as_bytes().split_at(1024);
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(first), "a".repeat(1023));
        assert_eq!(decoder.waiting(), "é".as_bytes().split_at(1).0);
        assert_eq!(decoder.push(second), "é");
        assert_eq!(decoder.finish(), None);
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(decoder.push(b"\xe2\x82"), "");
        assert_eq!(decoder.push(b"x"), "\u{fffd}x");
        assert_eq!(decoder.push(b"\xf0"), "");
        assert_eq!(decoder.finish(), Some("\u{fffd}"));
        assert!(Decoder::after(b"\xe2\x82").is_some());
        assert!(Decoder::after(b"").is_some());
        assert!(Decoder::after(b"a").is_none());
        assert!(Decoder::after(b"\xff").is_none());
    }

    proptest! {
        #[test]
        fn any_cuts_give_the_same_text(text in "\\PC{0,60}", cuts in proptest::collection::vec(0_usize..240, 0..8)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut decoder = Decoder::default();
            let read: String = cuts.windows(2).map(|cut| decoder.push(&bytes[cut[0]..cut[1]])).collect();
            prop_assert_eq!(read, text);
        }
    }
}
