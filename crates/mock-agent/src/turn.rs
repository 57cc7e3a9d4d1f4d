//! One prompt being answered.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::action::{Action, Job};
use crate::message::{self, Refusal};
use crate::script::Step;
use crate::session::{Session, clip};

/// Actions between two looks at what came in.
const BATCH: usize = 64;
/// Bytes of an answer that are kept for the history.
const RECORDED_MAX: usize = 64 << 10;

/// The prompt's blocks, counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blocks {
    /// The last text block: what the person said.
    pub(crate) text: String,
    /// Type and, for text, the number of characters of each block.
    pub(crate) kinds: Vec<String>,
    /// Characters of the text blocks before the last.
    pub(crate) history: usize,
    /// Bytes of all text.
    pub(crate) bytes: usize,
}

/// What a turn waits for.
#[derive(Debug, Clone)]
enum Waiting {
    Nothing,
    Time,
    Write {
        tool: String,
        path: String,
        text: String,
    },
    Words,
    Permission {
        tool: String,
        title: String,
    },
    Choice {
        tool: String,
    },
    Client {
        method: String,
    },
    /// Until it is cancelled.
    Cancel,
    /// For ever.
    Deaf,
}

/// How a turn ends.
#[derive(Debug, Clone)]
enum Ending {
    Stop(String),
    Error(Refusal),
    Exit,
}

#[derive(Debug, Clone)]
pub(crate) struct Turn {
    ticket: u64,
    pub(crate) session: String,
    request: Value,
    blocks: Blocks,
    steps: VecDeque<Step>,
    waiting: Waiting,
    skipping: bool,
    twice: bool,
    /// Requests and tool calls so far.
    serial: u64,
    said: String,
    out_bytes: u64,
    out: Vec<Action>,
}

/// What became of a turn that was moved on.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) actions: Vec<Action>,
    pub(crate) ended: bool,
}

impl Turn {
    pub(crate) fn new(
        ticket: u64,
        session: String,
        request: Value,
        blocks: Blocks,
        steps: Vec<Step>,
    ) -> Self {
        Self {
            ticket,
            session,
            request,
            blocks,
            steps: steps.into(),
            waiting: Waiting::Nothing,
            skipping: false,
            twice: false,
            serial: 0,
            said: String::new(),
            out_bytes: 0,
            out: Vec::new(),
        }
    }

    /// Time has passed.
    pub(crate) fn wake(&mut self, session: &mut Session) -> Moved {
        if matches!(self.waiting, Waiting::Time) {
            self.waiting = Waiting::Nothing;
        }
        self.advance(session)
    }

    /// A job is done.
    pub(crate) fn performed(
        &mut self,
        session: &mut Session,
        result: Result<String, String>,
    ) -> Moved {
        match std::mem::replace(&mut self.waiting, Waiting::Nothing) {
            Waiting::Write { tool, path, text } => match result {
                Ok(_) => {
                    let diff = json!([{"type": "diff", "path": path, "newText": text}]);
                    self.tool_update(&tool, "completed", Some(diff));
                }
                Err(why) => self.tool_update(&tool, "failed", Some(content(&why))),
            },
            Waiting::Words => match result {
                Ok(text) => self.say(&text),
                Err(why) => self.say(&format!("failed: {why}")),
            },
            other => self.waiting = other,
        }
        self.advance(session)
    }

    /// The client answered request `id`. `None` when that was not asked.
    pub(crate) fn answered(
        &mut self,
        session: &mut Session,
        result: Result<Value, Value>,
    ) -> Moved {
        match std::mem::replace(&mut self.waiting, Waiting::Nothing) {
            Waiting::Permission { tool, title } => {
                let Some(chosen) = self.outcome(&tool, &result) else {
                    return self.end(Ending::Stop("cancelled".to_owned()));
                };
                self.say(&format!("permission: {chosen}"));
                let allowed = chosen.starts_with("allow");
                if chosen == "allow_always" {
                    session.allowed.insert(title);
                }
                self.tool_update(&tool, if allowed { "completed" } else { "failed" }, None);
                self.skipping = !allowed;
            }
            Waiting::Choice { tool } => {
                let Some(chosen) = self.outcome(&tool, &result) else {
                    return self.end(Ending::Stop("cancelled".to_owned()));
                };
                self.tool_update(&tool, "completed", Some(content(&chosen)));
                self.say(&format!("answer: {chosen}"));
            }
            Waiting::Client { method } => match result {
                Ok(value) => self.say(&format!("{method}: {value}")),
                Err(error) => self.say(&format!("{method} failed: {error}")),
            },
            other => self.waiting = other,
        }
        self.advance(session)
    }

    /// What was chosen; `None` when the person cancelled. An error counts as a refusal.
    fn outcome(&mut self, tool: &str, result: &Result<Value, Value>) -> Option<String> {
        let chosen = match result {
            Err(_) => "error".to_owned(),
            Ok(value) => match value.pointer("/outcome/outcome").and_then(Value::as_str) {
                Some("selected") => value
                    .pointer("/outcome/optionId")
                    .and_then(Value::as_str)
                    .unwrap_or("nothing")
                    .to_owned(),
                Some("cancelled") => {
                    self.tool_update(tool, "failed", None);
                    return None;
                }
                _ => "nothing".to_owned(),
            },
        };
        Some(chosen)
    }

    /// The person cancelled. `None` when the turn does not care.
    pub(crate) fn cancel(&mut self) -> Option<Moved> {
        match self.waiting {
            Waiting::Deaf => None,
            _ => Some(self.end(Ending::Stop("cancelled".to_owned()))),
        }
    }

    /// Steps until one has to wait, or the end.
    pub(crate) fn advance(&mut self, session: &mut Session) -> Moved {
        while matches!(self.waiting, Waiting::Nothing) {
            if self.out.len() >= BATCH {
                self.sleep(0);
                break;
            }
            let Some(step) = self.steps.pop_front() else {
                return self.end(Ending::Stop("end_turn".to_owned()));
            };
            if self.skipping {
                self.skipping = step != Step::Anyway;
                continue;
            }
            if let Some(ending) = self.step(step, session) {
                return self.end(ending);
            }
        }
        Moved {
            actions: std::mem::take(&mut self.out),
            ended: false,
        }
    }

    fn step(&mut self, step: Step, session: &mut Session) -> Option<Ending> {
        match step {
            Step::Say(text) => self.say(&text),
            Step::Think(text) => {
                let line = message::chunk(&self.session, "agent_thought_chunk", &text);
                self.out.push(Action::Send(line));
            }
            Step::Tool { id, kind, title } => self.update(&json!({
                "sessionUpdate": "tool_call", "toolCallId": id, "title": title, "kind": kind,
                "status": "in_progress", "rawInput": {"title": title},
            })),
            Step::ToolEnd { id, status, text } => {
                self.tool_update(&id, status, Some(content(&text)));
            }
            Step::Plan(entries) => {
                let entries: Vec<Value> = entries
                    .iter()
                    .map(|(text, status)| {
                        json!({"content": text, "priority": "medium", "status": status})
                    })
                    .collect();
                self.update(&json!({"sessionUpdate": "plan", "entries": entries}));
            }
            Step::Usage { used, size, cost } => {
                let cost =
                    cost.map(|(amount, currency)| json!({"amount": amount, "currency": currency}));
                self.update(&json!({
                    "sessionUpdate": "usage_update", "used": used, "size": size, "cost": cost,
                }));
            }
            Step::Mode(mode) => match session.set("mode", &mode) {
                Ok(()) => self.update(&json!({
                    "sessionUpdate": "current_mode_update", "currentModeId": mode,
                })),
                Err(refusal) => return Some(Ending::Error(refusal)),
            },
            Step::Title(title) => {
                self.update(&json!({"sessionUpdate": "session_info_update", "title": title}));
            }
            Step::Commands => self.update(&json!({
                "sessionUpdate": "available_commands_update",
                "availableCommands": [{"name": "mock", "description": "Runs a script"}],
            })),
            Step::Anyway => {}
            Step::Cwd => self.say(&session.cwd.display().to_string()),
            Step::Settings => self.say(&session.settings()),
            Step::Before => self.say(&self.before(session)),
            Step::Blocks => {
                let kinds = self.blocks.kinds.join(", ");
                self.say(&format!("{} blocks: {kinds}", self.blocks.kinds.len()));
            }
            Step::Ask(title) => self.ask(title, session),
            Step::Choose { title, options } => self.choose(&title, &options),
            Step::Write { path, text } => self.write(&path, text, session),
            Step::Read(path) => {
                let path = session.cwd.join(path);
                self.perform(Waiting::Words, Job::Read { path });
            }
            Step::Env(name) => self.perform(Waiting::Words, Job::Env { name }),
            Step::Request { method, params } => {
                self.request(&method, &params);
                self.waiting = Waiting::Client { method };
            }
            Step::Notify { method, params } => {
                let line = message::notification(&method, &params);
                self.out.push(Action::Send(line));
            }
            Step::Delay(ms) => self.sleep(ms),
            Step::Chunks {
                left,
                number,
                bytes,
                every_ms,
            } => {
                self.chunk(left, number, bytes, every_ms);
            }
            Step::Line(bytes) => self.long(bytes),
            other => return self.misbehave(other),
        }
        None
    }

    /// What no agent should do, and the ordinary ends of a turn.
    fn misbehave(&mut self, step: Step) -> Option<Ending> {
        match step {
            Step::Hang => self.waiting = Waiting::Cancel,
            Step::Deaf => self.waiting = Waiting::Deaf,
            Step::Error { code, message } => {
                return Some(Ending::Error(Refusal::new(code, message)));
            }
            Step::Stop(reason) => return Some(Ending::Stop(reason)),
            Step::Crash { code, text } => {
                if !text.is_empty() {
                    self.out.push(Action::Stderr(text));
                }
                self.out.push(Action::Exit(code));
                return Some(Ending::Exit);
            }
            Step::Stderr(text) => self.out.push(Action::Stderr(text)),
            Step::Garbage(text) => self.out.push(Action::Send(text)),
            Step::Raw(text) => self.out.push(Action::Raw(text.into_bytes())),
            Step::Stray(id) => {
                let line = message::result(&id, &json!({}));
                self.out.push(Action::Send(line));
            }
            Step::Twice => self.twice = true,
            Step::CloseStdout => self.out.push(Action::CloseStdout),
            Step::IgnoreSignals => self.out.push(Action::IgnoreSignals),
            _ => {}
        }
        None
    }

    fn end(&mut self, ending: Ending) -> Moved {
        let line = match ending {
            Ending::Exit => None,
            Ending::Error(refusal) => Some(message::error(&self.request, &refusal)),
            Ending::Stop(reason) => {
                let usage = self.usage();
                let result = json!({"stopReason": reason, "usage": usage});
                Some(message::result(&self.request, &result))
            }
        };
        if let Some(line) = line {
            let times = if self.twice { 2 } else { 1 };
            for _ in 0..times {
                self.out.push(Action::Send(line.clone()));
            }
        }
        Moved {
            actions: std::mem::take(&mut self.out),
            ended: true,
        }
    }

    /// A line of the history.
    pub(crate) fn record(&self) -> String {
        let prompt = clip(&self.blocks.text, RECORDED_MAX);
        json!({"prompt": prompt, "answer": self.said}).to_string()
    }

    /// Four bytes to a token, as a rule of thumb.
    fn usage(&self) -> Value {
        let input = (self.blocks.bytes as u64).div_ceil(4);
        let output = self.out_bytes.div_ceil(4);
        json!({"inputTokens": input, "outputTokens": output, "totalTokens": input + output})
    }

    fn before(&self, session: &Session) -> String {
        let memory = match (session.count.saturating_sub(1), session.prompt(1)) {
            (0, _) | (_, None) => "mock: before this I got no prompt".to_owned(),
            (1, Some(last)) => format!("mock: before this I got 1 prompt; the last was: {last}"),
            (n, Some(last)) => format!("mock: before this I got {n} prompts; the last was: {last}"),
        };
        match self.blocks.history {
            0 => memory,
            n => format!("{memory} (this one came with {n} characters of history)"),
        }
    }

    fn say(&mut self, text: &str) {
        let room = RECORDED_MAX.saturating_sub(self.said.len());
        self.said.push_str(clip(text, room));
        self.out_bytes += text.len() as u64;
        let line = message::chunk(&self.session, "agent_message_chunk", text);
        self.out.push(Action::Send(line));
    }

    fn update(&mut self, update: &Value) {
        let line = message::update(&self.session, update);
        self.out.push(Action::Send(line));
    }

    fn tool_update(&mut self, id: &str, status: &str, content: Option<Value>) {
        let mut update =
            json!({"sessionUpdate": "tool_call_update", "toolCallId": id, "status": status});
        if let (Some(content), Some(object)) = (content, update.as_object_mut()) {
            object.insert("content".to_owned(), content);
        }
        self.update(&update);
    }

    fn ask(&mut self, title: String, session: &Session) {
        if session.allowed.contains(&title) {
            return self.say("permission: allow_always");
        }
        let option = |id: &str, name: &str| json!({"optionId": id, "kind": id, "name": name});
        let options = json!([
            option("allow_once", "Allow once"),
            option("allow_always", "Always allow"),
            option("reject_once", "Reject"),
            option("reject_always", "Always reject"),
        ]);
        let tool = self.question("execute", &title, &options);
        self.waiting = Waiting::Permission { tool, title };
    }

    fn choose(&mut self, title: &str, options: &[String]) {
        let options: Value = options
            .iter()
            .map(|name| json!({"optionId": name, "kind": "allow_once", "name": name}))
            .collect();
        let tool = self.question("other", title, &options);
        self.waiting = Waiting::Choice { tool };
    }

    /// A tool call and the request for the client to decide on it.
    fn question(&mut self, kind: &str, title: &str, options: &Value) -> String {
        let tool = self.tool_id("ask");
        let call = json!({
            "toolCallId": tool, "title": title, "kind": kind, "status": "pending",
            "rawInput": {"title": title},
        });
        let mut update = call.clone();
        if let Some(object) = update.as_object_mut() {
            object.insert("sessionUpdate".to_owned(), "tool_call".into());
        }
        self.update(&update);
        let params = json!({"sessionId": self.session, "toolCall": call, "options": options});
        self.request("session/request_permission", &params);
        tool
    }

    fn write(&mut self, path: &str, text: String, session: &Session) {
        let full = session.cwd.join(path);
        let shown = full.display().to_string();
        let tool = self.tool_id("write");
        self.update(&json!({
            "sessionUpdate": "tool_call", "toolCallId": tool, "title": format!("Write {path}"),
            "kind": "edit", "status": "in_progress", "locations": [{"path": shown}],
            "rawInput": {"path": shown, "content": text},
        }));
        let waiting = Waiting::Write {
            tool,
            path: shown,
            text: text.clone(),
        };
        self.perform(waiting, Job::Write { path: full, text });
    }

    /// The number of the request is the turn's ticket: a turn has one open request at most.
    fn request(&mut self, method: &str, params: &Value) {
        let line = message::request(self.ticket, method, params);
        self.out.push(Action::Send(line));
    }

    fn perform(&mut self, waiting: Waiting, job: Job) {
        self.waiting = waiting;
        self.out.push(Action::Perform {
            ticket: self.ticket,
            job,
        });
    }

    fn sleep(&mut self, after_ms: u64) {
        self.waiting = Waiting::Time;
        self.out.push(Action::Wake {
            ticket: self.ticket,
            after_ms,
        });
    }

    /// Unique in the process.
    fn tool_id(&mut self, what: &str) -> String {
        self.serial += 1;
        format!("{what}-{}-{}", self.ticket, self.serial)
    }

    fn chunk(&mut self, left: u64, number: u64, bytes: usize, every_ms: u64) {
        let Some(left) = left.checked_sub(1) else {
            return;
        };
        let number = number + 1;
        let mut text = number.to_string();
        if text.len() < bytes {
            text.push(' ');
            text.extend(std::iter::repeat_n('x', bytes - text.len()));
        }
        self.say(&text);
        if left == 0 {
            return;
        }
        self.steps.push_front(Step::Chunks {
            left,
            number,
            bytes,
            every_ms,
        });
        if every_ms > 0 {
            self.sleep(every_ms);
        }
    }

    fn long(&mut self, bytes: u64) {
        const MARK: &str = "@@";
        let line = message::chunk(&self.session, "agent_message_chunk", MARK);
        if let Some((head, tail)) = line.split_once(MARK) {
            self.out_bytes += bytes;
            self.out.push(Action::Long {
                head: head.to_owned(),
                fill: bytes,
                tail: tail.to_owned(),
            });
        }
    }
}

fn content(text: &str) -> Value {
    json!([{"type": "content", "content": {"type": "text", "text": text}}])
}
