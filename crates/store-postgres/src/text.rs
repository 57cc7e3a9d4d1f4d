//! Text that may hold what Postgres' type `text` cannot: the character NUL.
//!
//! NUL is kept as `\x01\x01` and `\x01` as `\x01\x02`: every text has one form, and forms sort as
//! the texts do.

use std::borrow::Cow;
use std::error::Error;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// A text on its way to the database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a>(pub(crate) &'a str);

/// The same, owned.
#[derive(Debug, Clone)]
pub(crate) struct TextBuf(pub(crate) String);

impl ToSql for Text<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        escape(self.0).as_ref().to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        <&str as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

impl ToSql for TextBuf {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        Text(&self.0).to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        <&str as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', '\u{1}']) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().flat_map(|c| match c {
        '\0' => ['\u{1}', '\u{1}'].map(Some),
        '\u{1}' => ['\u{1}', '\u{2}'].map(Some),
        other => [Some(other), None],
    });
    Cow::Owned(escaped.flatten().collect())
}

/// The text again.
pub(crate) fn unescape(stored: &str) -> String {
    let mut chars = stored.chars();
    let mut text = String::with_capacity(stored.len());
    while let Some(c) = chars.next() {
        match c {
            '\u{1}' => match chars.next() {
                Some('\u{1}') => text.push('\0'),
                _ => text.push('\u{1}'),
            },
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_and_sorts_as_before() {
        let texts = [
            "",
            "\0",
            "\0\0",
            "\0\u{1}",
            "\0a",
            "\u{1}",
            "\u{1}\0",
            "\u{1}\u{1}",
            "\u{1}\u{2}",
            "\u{1}a",
            "\u{2}",
            "a",
            "a\0",
            "a\0b",
            "a\u{1}",
            "a\u{2}",
            "b",
            "ü",
        ];
        assert!(texts.is_sorted());
        let escaped: Vec<_> = texts.map(escape).into();
        assert!(escaped.is_sorted_by(|one, two| one < two), "{escaped:?}");
        for (text, escaped) in texts.iter().zip(&escaped) {
            assert!(!escaped.contains('\0'));
            assert_eq!(unescape(escaped), *text);
        }
    }
}
