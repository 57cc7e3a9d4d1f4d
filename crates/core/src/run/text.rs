//! How long texts of a run may be.

/// Characters of a stored prompt or command.
pub const INPUT_CHARS_MAX: usize = 50_000;
/// Characters of a stored result.
pub const RESULT_CHARS_MAX: usize = 10_000;
/// Characters of an error's message.
pub const ERROR_CHARS_MAX: usize = 1_000;
/// Characters of an error's code.
pub const ERROR_CODE_CHARS_MAX: usize = 50;
/// Characters of an error's details.
pub const ERROR_DETAILS_CHARS_MAX: usize = 2_000;
/// Characters of a thread's name.
pub const THREAD_CHARS_MAX: usize = 100;
/// Characters of an artifact's title.
pub const TITLE_CHARS_MAX: usize = 200;

/// The text, or its beginning and `...`: at most `max` characters in all.
pub fn truncate(text: &str, max: usize) -> String {
    if text.len() <= max || text.chars().count() <= max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(max.saturating_sub(3)).collect();
    cut.push_str("...");
    cut
}

/// What is wrong with a field that is too long, if it is.
pub fn too_long(field: &str, text: &str, max: usize) -> Option<String> {
    let count = text.chars().count();
    (count > max)
        .then(|| format!("{field} exceeds maximum length of {max} characters (got {count})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_and_the_rest_ends_in_dots() {
        for max in [INPUT_CHARS_MAX, RESULT_CHARS_MAX, ERROR_CHARS_MAX] {
            let fits = "ä".repeat(max);
            assert_eq!(truncate(&fits, max), fits);
            let cut = truncate(&"ä".repeat(max + 1), max);
            assert_eq!(cut.chars().count(), max);
            assert_eq!(cut, format!("{}...", "ä".repeat(max - 3)));
        }
    }

    #[test]
    fn the_message_has_the_contracts_words() {
        assert_eq!(too_long("threadId", &"a".repeat(100), 100), None);
        let text = too_long("threadId", &"a".repeat(101), 100);
        let expected = "threadId exceeds maximum length of 100 characters (got 101)";
        assert_eq!(text.as_deref(), Some(expected));
    }
}
