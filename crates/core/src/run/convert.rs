//! What an agent says over the Agent Client Protocol, as events of a run.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use woodfrog_types::run::RunEventKind;
use woodfrog_types::usage::Tokens;

use super::event::{Said, tokens};

/// Bytes of an answer that are kept to be the result.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Tool calls that wait for their input.
const PENDING_MAX: usize = 256;

/// One turn of an agent, while it goes on.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// What the agent said since it last used a tool.
    answer: String,
    /// The same before that.
    before: String,
    /// Tool calls that were announced without what they are about, which comes with an update.
    pending: BTreeMap<String, Value>,
}

impl Turn {
    /// An update that the agent sent (`params.update` of `session/update`).
    pub fn update(&mut self, update: &Value) -> Vec<Said> {
        match update["sessionUpdate"].as_str().unwrap_or_default() {
            "agent_message_chunk" => self.chunk(RunEventKind::Text, update),
            "agent_thought_chunk" => self.chunk(RunEventKind::Thinking, update),
            "tool_call" => self.tool_call(update),
            "tool_call_update" => self.tool_update(update),
            "usage_update" => {
                let data = json!({
                    "used": update["used"], "size": update["size"], "cost": update["cost"],
                });
                vec![Said::new(RunEventKind::Usage, data)]
            }
            _ => Vec::new(),
        }
    }

    /// What the agent answered in the end: what it said after its last tool call, else all.
    pub fn answer(&self) -> &str {
        match self.answer.trim() {
            "" => self.before.trim(),
            answer => answer,
        }
    }

    /// Tool calls that were never told more of.
    pub fn rest(&mut self) -> Vec<Said> {
        let pending = std::mem::take(&mut self.pending);
        pending.values().map(tool_use).collect()
    }

    fn chunk(&mut self, kind: RunEventKind, update: &Value) -> Vec<Said> {
        let content = &update["content"];
        let Some(text) = content["text"].as_str() else {
            return Vec::new();
        };
        if kind == RunEventKind::Text {
            let room = ANSWER_BYTES_MAX.saturating_sub(self.answer.len());
            self.answer
                .push_str(&text[..text.floor_char_boundary(room)]);
            return vec![Said::new(kind, json!({"text": text}))];
        }
        let signature = content["_meta"]["signature"].as_str().unwrap_or_default();
        vec![Said::new(
            kind,
            json!({"thinking": text, "signature": signature}),
        )]
    }

    fn tool_call(&mut self, call: &Value) -> Vec<Said> {
        if !self.answer.is_empty() {
            self.before = std::mem::take(&mut self.answer);
        }
        let id = call["toolCallId"].as_str().unwrap_or_default().to_owned();
        let empty = match &call["rawInput"] {
            Value::Null => true,
            Value::Object(input) => input.is_empty(),
            _ => false,
        };
        let waits = empty && matches!(call["status"].as_str(), None | Some("pending"));
        if waits && self.pending.len() < PENDING_MAX {
            self.pending.insert(id, call.clone());
            return Vec::new();
        }
        let mut said = vec![tool_use(call)];
        said.extend(tool_end(call));
        said
    }

    fn tool_update(&mut self, update: &Value) -> Vec<Said> {
        let id = update["toolCallId"].as_str().unwrap_or_default();
        let mut said = Vec::new();
        if let Some(mut call) = self.pending.remove(id) {
            if let (Value::Object(call), Value::Object(more)) = (&mut call, update) {
                let more = more.iter().filter(|(_, value)| !value.is_null());
                call.extend(more.map(|(name, value)| (name.clone(), value.clone())));
            }
            said.push(tool_use(&call));
        }
        said.extend(tool_end(update));
        said
    }
}

fn tool_use(call: &Value) -> Said {
    let input = match &call["rawInput"] {
        Value::Null => json!({}),
        input => input.clone(),
    };
    let data = json!({"id": call["toolCallId"], "name": tool_name(call), "input": input});
    Said::new(RunEventKind::ToolUse, data)
}

/// What the agent itself calls the tool, where it says so; else what it tells people, or the kind.
fn tool_name(call: &Value) -> Value {
    let meta = call["_meta"].as_object().into_iter().flatten();
    let mut named = meta.filter_map(|(_, of_agent)| of_agent["toolName"].as_str());
    let name = named
        .next()
        .or_else(|| call["title"].as_str().filter(|title| !title.is_empty()))
        .or_else(|| call["kind"].as_str());
    name.unwrap_or("tool").into()
}

/// What came of a tool call, if it is over.
fn tool_end(update: &Value) -> Option<Said> {
    let is_error = match update["status"].as_str()? {
        "completed" => false,
        "failed" => true,
        _ => return None,
    };
    let content = content(update);
    let data = json!({
        "tool_use_id": update["toolCallId"], "content": content, "is_error": is_error,
    });
    Some(Said::new(RunEventKind::ToolResult, data))
}

fn content(update: &Value) -> Value {
    let blocks = update["content"].as_array().into_iter().flatten();
    let texts: Vec<String> = blocks
        .filter_map(|block| match block["type"].as_str()? {
            "content" => block["content"]["text"].as_str().map(str::to_owned),
            "diff" => block["path"].as_str().map(|path| format!("changed {path}")),
            _ => None,
        })
        .collect();
    match (texts.is_empty(), &update["rawOutput"]) {
        (true, Value::Null) => "".into(),
        (true, output) => match output["output"].as_str() {
            Some(text) => text.into(),
            None => output.clone(),
        },
        (false, _) => texts.join("\n").into(),
    }
}

/// The tokens of a turn, as the agent counted them.
pub fn turn_tokens(usage: &Value) -> Option<Tokens> {
    tokens(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(said: &[Said]) -> Vec<RunEventKind> {
        said.iter().map(|said| said.kind).collect()
    }

    fn text(text: &str) -> Value {
        json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}})
    }

    #[test]
    fn chunks_are_text_and_thoughts() {
        let mut turn = Turn::default();
        let said = turn.update(&text("hello"));
        assert_eq!(
            said,
            [Said::new(RunEventKind::Text, json!({"text": "hello"}))]
        );
        let thought = json!({"sessionUpdate": "agent_thought_chunk",
            "content": {"type": "text", "text": "hm"}});
        let said = turn.update(&thought);
        let expected = json!({"thinking": "hm", "signature": ""});
        assert_eq!(said, [Said::new(RunEventKind::Thinking, expected)]);
        let image = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "image"}});
        assert_eq!(turn.update(&image), []);
        assert_eq!(turn.update(&json!({"sessionUpdate": "plan"})), []);
        assert_eq!(turn.update(&json!(7)), []);
    }

    /// As OpenCode does: the call first, what it is about later.
    #[test]
    fn a_tool_is_used_once_with_its_input() {
        let mut turn = Turn::default();
        let call = json!({"sessionUpdate": "tool_call", "toolCallId": "c", "title": "bash",
            "kind": "execute", "status": "pending", "rawInput": {}});
        assert_eq!(turn.update(&call), []);
        let progress = json!({"sessionUpdate": "tool_call_update", "toolCallId": "c",
            "status": "in_progress", "rawInput": {"command": "ls"}});
        let said = turn.update(&progress);
        let expected = json!({"id": "c", "name": "bash", "input": {"command": "ls"}});
        assert_eq!(said, [Said::new(RunEventKind::ToolUse, expected)]);
        let done = json!({"sessionUpdate": "tool_call_update", "toolCallId": "c",
            "status": "completed", "rawOutput": {"output": "a\n"},
            "content": [{"type": "content", "content": {"type": "text", "text": "a"}}]});
        let said = turn.update(&done);
        let expected = json!({"tool_use_id": "c", "content": "a", "is_error": false});
        assert_eq!(said, [Said::new(RunEventKind::ToolResult, expected)]);
        assert_eq!(turn.rest(), []);
    }

    #[test]
    fn calls_that_end_at_once_or_never_are_told() {
        let mut turn = Turn::default();
        let at_once = json!({"sessionUpdate": "tool_call", "toolCallId": "a", "kind": "read",
            "status": "failed", "rawOutput": {"error": "no"},
            "_meta": {"claudeCode": {"toolName": "Read"}}});
        let said = turn.update(&at_once);
        assert_eq!(
            kinds(&said),
            [RunEventKind::ToolUse, RunEventKind::ToolResult]
        );
        assert_eq!(said[0].data["name"], "Read");
        assert_eq!(said[1].data["is_error"], true);
        assert_eq!(said[1].data["content"], json!({"error": "no"}));
        let late = json!({"sessionUpdate": "tool_call", "toolCallId": "b", "title": "t"});
        assert_eq!(turn.update(&late), []);
        let done = json!({"sessionUpdate": "tool_call_update", "toolCallId": "b",
            "status": "completed"});
        let said = turn.update(&done);
        assert_eq!(
            kinds(&said),
            [RunEventKind::ToolUse, RunEventKind::ToolResult]
        );
        turn.update(&late);
        assert_eq!(kinds(&turn.rest()), [RunEventKind::ToolUse]);
    }

    #[test]
    fn the_answer_is_what_comes_after_the_last_tool() {
        let mut turn = Turn::default();
        turn.update(&text("I will "));
        turn.update(&text("look. "));
        assert_eq!(turn.answer(), "I will look.");
        turn.update(&json!({"sessionUpdate": "tool_call", "toolCallId": "a"}));
        assert_eq!(turn.answer(), "I will look.", "nothing came after it yet");
        turn.update(&text("It is 4."));
        assert_eq!(turn.answer(), "It is 4.");
        let long = "ä".repeat(ANSWER_BYTES_MAX);
        turn.update(&text(&long));
        assert!(turn.answer().len() <= ANSWER_BYTES_MAX);
    }

    #[test]
    fn tokens_are_read_in_both_spellings() {
        let acp = json!({"inputTokens": 1, "outputTokens": 2, "thoughtTokens": 4,
            "cachedReadTokens": 8, "cachedWriteTokens": 16, "totalTokens": 31});
        let tokens = turn_tokens(&acp).expect("some");
        let kinds = (
            tokens.input,
            tokens.output,
            tokens.cache_read,
            tokens.cache_write,
        );
        assert_eq!(kinds, (1, 6, 8, 16));
        assert_eq!(turn_tokens(&json!({})), None);
        assert_eq!(turn_tokens(&json!(null)), None);
    }
}
