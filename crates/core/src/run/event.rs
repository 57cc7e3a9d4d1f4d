//! What a program writes, read as events of a run.

use serde_json::{Map, Value, json};
use woodfrog_types::run::RunEventKind;
use woodfrog_types::usage::Tokens;

/// Bytes of one line that are looked at; the rest of a longer one is cut off.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// An event without its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    pub kind: RunEventKind,
    pub data: Value,
}

impl Said {
    /// An event with these fields.
    pub fn new(kind: RunEventKind, data: Value) -> Self {
        Self { kind, data }
    }
}

/// Which stream of a process a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Stdout,
    Stderr,
}

/// A line of output: an event, `{"type": …, "data": {…}}`, or text as it is. What a program writes
/// to its standard error is always text.
pub fn line(from: From, line: &str) -> Said {
    let stream = match from {
        From::Stdout => match parse(line) {
            Some(said) => return said,
            None => "stdout",
        },
        From::Stderr => "stderr",
    };
    Said::new(RunEventKind::Raw, json!({"stream": stream, "text": line}))
}

fn parse(line: &str) -> Option<Said> {
    let line = line.trim();
    if !line.starts_with('{') {
        return None;
    }
    let Value::Object(mut object) = serde_json::from_str(line).ok()? else {
        return None;
    };
    let kind = kind(object.get("type")?.as_str()?)?;
    let data = match object.remove("data") {
        Some(data @ Value::Object(_)) => data,
        None => Value::Object(Map::new()),
        Some(_) => return None,
    };
    Some(Said { kind, data })
}

/// Those that a program may use; the others are the server's own.
fn kind(name: &str) -> Option<RunEventKind> {
    use RunEventKind::{
        Complete, Error, Raw, Result, Start, Status, Text, Thinking, ToolResult, ToolUse, Usage,
    };
    let kind = RunEventKind::ALL
        .into_iter()
        .find(|it| it.as_str() == name)?;
    match kind {
        Start | Text | Thinking | ToolUse | ToolResult | Error | Result | Complete => Some(kind),
        Raw | Status | Usage => None,
    }
}

/// What the last line of a program's output says of its result, where it wrote no event of it:
/// `{"result": …, "usage": {…}}`.
pub fn last_line(line: &str) -> Option<(String, Option<Tokens>)> {
    let value: Value = serde_json::from_str(line.trim()).ok()?;
    let result = value.as_object()?.get("result")?;
    let usage = value.get("usage").and_then(tokens);
    Some((text_of(result), usage))
}

/// Text as it is, anything else as JSON.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Tokens as the model's API names them; cached ones are not among the input.
pub fn tokens(usage: &Value) -> Option<Tokens> {
    let number = |names: &[&str]| {
        let found = names.iter().find_map(|name| usage.get(*name)?.as_u64());
        found.unwrap_or(0)
    };
    let tokens = Tokens {
        input: number(&["input_tokens", "inputTokens"]),
        output: number(&["output_tokens", "outputTokens"])
            .saturating_add(number(&["thoughtTokens"])),
        cache_read: number(&["cache_read_input_tokens", "cachedReadTokens"]),
        cache_write: number(&["cache_creation_input_tokens", "cachedWriteTokens"]),
    };
    (usage.is_object() && tokens.total() > 0).then_some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_of_the_contract_is_read() {
        for (text, kind) in [
            (
                r#"{"type":"start","data":{"prompt":"p"}}"#,
                RunEventKind::Start,
            ),
            (r#"{"type":"text","data":{"text":"t"}}"#, RunEventKind::Text),
            (
                r#"{"type":"thinking","data":{"thinking":"t","signature":"s"}}"#,
                RunEventKind::Thinking,
            ),
            (
                r#"{"type":"tool_use","data":{"id":"1","name":"Bash","input":{}}}"#,
                RunEventKind::ToolUse,
            ),
            (
                r#"{"type":"tool_result","data":{"tool_use_id":"1","content":"c"}}"#,
                RunEventKind::ToolResult,
            ),
            (
                r#"{"type":"error","data":{"error":"e","message":"m"}}"#,
                RunEventKind::Error,
            ),
            (
                r#" {"type":"result","data":{"result":"r","duration_ms":1,"cost":0.1}} "#,
                RunEventKind::Result,
            ),
            (
                r#"{"type":"complete","data":{"status":"s"}}"#,
                RunEventKind::Complete,
            ),
        ] {
            let said = line(From::Stdout, text);
            let original: Value = serde_json::from_str(text).unwrap();
            assert_eq!((said.kind, &said.data), (kind, &original["data"]), "{text}");
            assert_eq!(line(From::Stderr, text).kind, RunEventKind::Raw);
        }
    }

    #[test]
    fn everything_else_passes_as_it_is() {
        for text in [
            "",
            "hello",
            "{",
            "{}",
            "[1]",
            r#"{"type":"raw","data":{}}"#,
            r#"{"type":"status","data":{}}"#,
            r#"{"type":"usage","data":{}}"#,
            r#"{"type":1,"data":{}}"#,
            r#"{"type":"text","data":"no object"}"#,
            "  indented",
        ] {
            let said = line(From::Stdout, text);
            assert_eq!(said.kind, RunEventKind::Raw, "{text}");
            assert_eq!(said.data, json!({"stream": "stdout", "text": text}));
        }
    }

    #[test]
    fn the_last_line_may_be_the_result() {
        let line = r#"{"result":"42","usage":{"input_tokens":3,"output_tokens":4,
            "cache_read_input_tokens":5,"cache_creation_input_tokens":6}}"#;
        let tokens = Tokens {
            input: 3,
            output: 4,
            cache_read: 5,
            cache_write: 6,
        };
        assert_eq!(last_line(line), Some(("42".to_owned(), Some(tokens))));
        let nested = last_line(r#"{"result":{"a":1}}"#);
        assert_eq!(nested, Some((r#"{"a":1}"#.to_owned(), None)));
        for none in ["", "42", "{}", "[]", r#"{"results":1}"#] {
            assert_eq!(last_line(none), None, "{none}");
        }
    }
}
