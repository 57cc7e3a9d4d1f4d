//! The syntax below instructions: continued lines, words, quotes, variables.

use std::collections::BTreeMap;

/// Lines without comments and continuations, with the number of their first line.
pub(super) fn logical_lines(source: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, raw) in source.lines().enumerate() {
        let trimmed = raw.trim();
        if trimmed.starts_with('#') || (trimmed.is_empty() && open.is_some()) {
            continue;
        }
        let (number, mut text) = open.take().unwrap_or((index + 1, String::new()));
        match trimmed.strip_suffix('\\') {
            Some(part) => {
                text.push_str(part);
                open = Some((number, text));
            }
            None => {
                text.push_str(trimmed);
                lines.push((number, text));
            }
        }
    }
    lines.extend(open);
    lines.retain(|(_, text)| !text.trim().is_empty());
    lines
}

/// Splits at white space outside quotes; quotes and backslashes are taken away, and variables are
/// replaced outside single quotes.
pub(super) fn words(text: &str, known: &BTreeMap<String, String>) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, quote) {
            (q, Some(open)) if q == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => {
                let escaped = rest.next().ok_or("a backslash at the end")?;
                let word = word.get_or_insert_default();
                if quote.is_some() && !matches!(escaped, '"' | '\\' | '$') {
                    word.push('\\');
                }
                word.push(escaped);
            }
            ('$', None | Some('"')) => {
                let value = variable(&mut rest, known)?;
                word.get_or_insert_default().push_str(&value);
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

/// The value of `NAME`, `{NAME}`, `{NAME:-default}` or `{NAME:+other}` after a dollar sign.
fn variable(
    rest: &mut std::str::Chars<'_>,
    known: &BTreeMap<String, String>,
) -> Result<String, String> {
    let text = rest.as_str();
    let value = |name: &str| known.get(name).cloned().unwrap_or_default();
    let Some(braced) = text.strip_prefix('{') else {
        let end = text
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(text.len());
        let (name, after) = text.split_at(end);
        *rest = after.chars();
        return Ok(if name.is_empty() {
            "$".into()
        } else {
            value(name)
        });
    };
    let (inner, after) = braced.split_once('}').ok_or("`${` without `}`")?;
    *rest = after.chars();
    if let Some((name, default)) = inner.split_once(":-") {
        let found = value(name);
        return Ok(if found.is_empty() {
            default.to_owned()
        } else {
            found
        });
    }
    if let Some((name, other)) = inner.split_once(":+") {
        let set = !value(name).is_empty();
        return Ok(if set { other.to_owned() } else { String::new() });
    }
    if inner.is_empty() || !inner.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!("`${{{inner}}}` is not supported"));
    }
    Ok(value(inner))
}

/// The words of a JSON array; `None` if it is not one.
pub(super) fn json_words(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    text.starts_with('[')
        .then(|| serde_json::from_str(text).ok())?
}

/// A word that a shell reads back as it is.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Words as one line for a shell.
pub(super) fn shell_line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}
