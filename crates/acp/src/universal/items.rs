//! Items: messages, thoughts, tool calls and their results, and what else there is to see.

use serde_json::{Value, json};

use super::{TOOLS_MAX, Telling, content};

/// Bytes of one message; a longer one goes on as another.
const ITEM_BYTES_MAX: usize = 1 << 20;
/// Tool calls of a turn that are remembered as over.
const DONE_MAX: usize = 4096;

/// What the agent is saying, or thinking.
#[derive(Debug)]
pub(super) struct Speech {
    item: String,
    thought: bool,
    /// Parts before the text.
    parts: Vec<Value>,
    text: String,
    bytes: usize,
}

/// A tool call that is not over.
#[derive(Debug)]
pub(super) struct Tool {
    place: u64,
    call: String,
    title: String,
    kind: String,
    input: Value,
    content: Value,
    output: Value,
    locations: Value,
}

impl Speech {
    fn part(&self) -> Option<Value> {
        if self.text.is_empty() {
            return None;
        }
        Some(match self.thought {
            true => json!({"type": "reasoning", "text": self.text, "visibility": "public"}),
            false => json!({"type": "text", "text": self.text}),
        })
    }

    fn item(&self, status: &str) -> Value {
        let mut content = self.parts.clone();
        content.extend(self.part());
        json!({
            "item_id": self.item, "kind": "message", "role": "assistant", "status": status,
            "content": content,
        })
    }
}

impl Tool {
    fn id(&self, letter: char) -> String {
        format!("item_{letter}{}", self.place)
    }

    fn item(&self, status: &str) -> Value {
        let arguments = match &self.input {
            Value::Null => "{}".to_owned(),
            input => input.to_string(),
        };
        json!({
            "item_id": self.id('c'), "native_item_id": self.call, "kind": "tool_call",
            "role": "assistant", "status": status,
            "content": [{
                "type": "tool_call", "name": self.title, "arguments": arguments,
                "call_id": self.call,
            }],
        })
    }

    fn result(&self, status: &str) -> Value {
        let output = content::output(&self.content, &self.output);
        let mut parts = vec![json!({
            "type": "tool_result", "call_id": self.call, "output": output,
        })];
        parts.extend(content::files(&self.kind, &self.content, &self.locations));
        json!({
            "item_id": self.id('r'), "native_item_id": self.call, "parent_id": self.id('c'),
            "kind": "tool_result", "role": "tool", "status": status, "content": parts,
        })
    }

    fn learn(&mut self, update: &Value) {
        let known = |name: &str| update.get(name).filter(|value| !value.is_null());
        if let Some(title) = known("title").and_then(Value::as_str) {
            title.clone_into(&mut self.title);
        }
        if let Some(kind) = known("kind").and_then(Value::as_str) {
            kind.clone_into(&mut self.kind);
        }
        for (name, field) in [
            ("rawInput", &mut self.input),
            ("content", &mut self.content),
            ("rawOutput", &mut self.output),
            ("locations", &mut self.locations),
        ] {
            if let Some(value) = known(name) {
                field.clone_from(value);
            }
        }
    }
}

impl Telling<'_> {
    /// What somebody asked of the agent.
    pub(super) fn user(&mut self, mark: &Value) {
        if let Some(number) = mark["turn"].as_u64() {
            self.fold.turns.insert(number);
        }
        let blocks = mark["prompt"].as_array().into_iter().flatten();
        let parts: Vec<Value> = blocks.map(content::part).collect();
        let item = |status: &str, content: &[Value]| {
            json!({"item": {
                "item_id": format!("item_u{}", self.place), "kind": "message", "role": "user",
                "status": status, "content": content,
            }})
        };
        let (started, completed) = (item("in_progress", &[]), item("completed", &parts));
        self.daemon("item.started", started);
        self.daemon("item.completed", completed);
    }

    /// A piece of what the agent says or thinks.
    pub(super) fn chunk(&mut self, thought: bool, block: &Value) {
        let goes_on = self
            .fold
            .speech
            .as_ref()
            .is_some_and(|speech| speech.thought == thought && speech.bytes < ITEM_BYTES_MAX);
        if !goes_on {
            self.close_speech("completed");
            let letter = if thought { 't' } else { 'm' };
            let speech = Speech {
                item: format!("item_{letter}{}", self.place),
                thought,
                parts: Vec::new(),
                text: String::new(),
                bytes: 0,
            };
            let item = speech.item("in_progress");
            self.synthetic("item.started", json!({"item": item}));
            self.fold.speech = Some(speech);
        }
        let Some(speech) = &mut self.fold.speech else {
            return;
        };
        let part = content::part(block);
        match part["text"].as_str() {
            Some(text) => {
                speech.bytes += text.len();
                speech.text.push_str(text);
                let data = json!({"item_id": speech.item, "delta": text});
                self.agent("item.delta", data);
            }
            None => {
                speech.bytes += part.to_string().len();
                let before = speech.part();
                speech.parts.extend(before);
                speech.text.clear();
                speech.parts.push(part);
            }
        }
    }

    /// A tool call begins, goes on, or is over.
    pub(super) fn tool(&mut self, update: &Value) {
        let call = update["toolCallId"].as_str().unwrap_or_default().to_owned();
        let begins = update["sessionUpdate"] == "tool_call";
        if self.fold.done.contains(&call) && !begins {
            return;
        }
        let status = update["status"].as_str().unwrap_or("in_progress");
        match self.fold.tools.get_mut(&call) {
            Some(tool) => tool.learn(update),
            None => self.begin_tool(call.clone(), update),
        }
        if matches!(status, "completed" | "failed") {
            self.end_tool(&call, status);
        }
    }

    fn begin_tool(&mut self, call: String, update: &Value) {
        self.close_speech("completed");
        if self.fold.tools.len() >= TOOLS_MAX {
            self.close("completed");
        }
        let mut tool = Tool {
            place: self.place,
            call: call.clone(),
            title: "tool".to_owned(),
            kind: "other".to_owned(),
            input: Value::Null,
            content: Value::Null,
            output: Value::Null,
            locations: Value::Null,
        };
        tool.learn(update);
        let item = tool.item("in_progress");
        self.agent("item.started", json!({"item": item}));
        self.fold.tools.insert(call, tool);
    }

    fn end_tool(&mut self, call: &str, status: &str) {
        let Some(tool) = self.fold.tools.remove(call) else {
            return;
        };
        self.is_done(call.to_owned());
        let completed = tool.item(status);
        self.agent("item.completed", json!({"item": completed}));
        let mut started = tool.result("in_progress");
        started["content"] = json!([]);
        self.synthetic("item.started", json!({"item": started}));
        let result = tool.result(status);
        self.agent("item.completed", json!({"item": result}));
    }

    fn is_done(&mut self, call: String) {
        if self.fold.done.len() >= DONE_MAX {
            self.fold.done.clear();
        }
        self.fold.done.insert(call);
    }

    fn close_speech(&mut self, status: &str) {
        if let Some(speech) = self.fold.speech.take() {
            let item = speech.item(status);
            self.synthetic("item.completed", json!({"item": item}));
        }
    }

    /// Completes all items that are open. A call without a result has none.
    pub(super) fn close(&mut self, status: &str) {
        self.close_speech(status);
        for (call, tool) in std::mem::take(&mut self.fold.tools) {
            self.is_done(call);
            let item = tool.item(status);
            self.synthetic("item.completed", json!({"item": item}));
        }
    }

    /// Something to see that is no message.
    pub(super) fn status(
        &mut self,
        label: &str,
        native: Option<&Value>,
        detail: &str,
        by_agent: bool,
    ) {
        let mut part = json!({"type": "status", "label": label});
        if !detail.is_empty() {
            part["detail"] = Value::from(detail);
        }
        let mut parts = vec![part];
        if let Some(native) = native {
            parts.push(json!({"type": "json", "json": native}));
        }
        self.whole("status", &parts, by_agent);
    }

    /// Something of the agent that the schema has no word for.
    pub(super) fn unknown(&mut self, what: &Value) {
        self.whole("unknown", &[json!({"type": "json", "json": what})], true);
    }

    /// An item that is completed as it starts.
    fn whole(&mut self, kind: &str, parts: &[Value], by_agent: bool) {
        let item = |status: &str, content: &[Value]| {
            json!({"item": {
                "item_id": format!("item_s{}", self.place), "kind": kind, "role": "system",
                "status": status, "content": content,
            }})
        };
        let (started, completed) = (item("in_progress", &[]), item("completed", parts));
        if by_agent {
            self.synthetic("item.started", started);
            self.agent("item.completed", completed);
        } else {
            self.daemon("item.started", started);
            self.daemon("item.completed", completed);
        }
    }
}
