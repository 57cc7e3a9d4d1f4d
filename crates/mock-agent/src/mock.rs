//! The agent without its streams.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::action::{Action, Job};
use crate::message::{
    self, INTERNAL, INVALID_REQUEST, Incoming, METHOD_NOT_FOUND, NOT_FOUND, Refusal,
};
use crate::parse;
use crate::session::Session;
use crate::turn::{Blocks, Moved, Turn};

/// The version of the protocol that is spoken.
const PROTOCOL: u64 = 1;
/// Sessions of one process.
const SESSIONS_MAX: usize = 10_000;
/// Bytes of a session id that is asked for.
const ID_MAX: usize = 128;

/// How the agent is.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What session ids begin with; the number of the session follows.
    pub prefix: String,
    /// Whether sessions are recorded and `session/load` is offered.
    pub store: bool,
}

/// The agent. Deterministic: the same lines in the same order give the same actions.
#[derive(Debug)]
pub struct Mock {
    options: Options,
    sessions: BTreeMap<String, Session>,
    turns: BTreeMap<u64, Turn>,
    loads: BTreeMap<u64, Load>,
    tickets: u64,
}

/// A `session/load` whose history is being fetched.
#[derive(Debug)]
struct Load {
    request: Value,
    session: Session,
}

impl Mock {
    /// An agent that has not heard anything yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            sessions: BTreeMap::new(),
            turns: BTreeMap::new(),
            loads: BTreeMap::new(),
            tickets: 0,
        }
    }

    /// A line from the client, without its newline.
    pub fn line(&mut self, line: &str) -> Vec<Action> {
        match message::read(line) {
            Ok(Incoming::Request { id, method, params }) => self.request(&id, &method, &params),
            Ok(Incoming::Notification { method, params }) if method == "session/cancel" => {
                self.cancel(&params)
            }
            Ok(Incoming::Notification { .. }) => Vec::new(),
            Ok(Incoming::Answer { id, result }) => {
                let ticket = id.as_u64().unwrap_or_default();
                self.with_turn(ticket, |turn, session| turn.answered(session, result))
            }
            Err((id, refusal)) => vec![Action::Send(message::error(&id, &refusal))],
        }
    }

    /// A line that could not be read as text.
    pub fn unreadable(&self, why: &str) -> Vec<Action> {
        let refusal = Refusal::new(message::PARSE_ERROR, why);
        vec![Action::Send(message::error(&Value::Null, &refusal))]
    }

    /// The time of [`Action::Wake`] has come. A ticket of a turn that ended is nothing.
    pub fn wake(&mut self, ticket: u64) -> Vec<Action> {
        self.with_turn(ticket, Turn::wake)
    }

    /// The result of [`Action::Perform`]. A ticket of a turn that ended is nothing.
    pub fn performed(&mut self, ticket: u64, result: Result<String, String>) -> Vec<Action> {
        match self.loads.remove(&ticket) {
            Some(load) => self.loaded(load, result),
            None => self.with_turn(ticket, |turn, session| turn.performed(session, result)),
        }
    }

    fn request(&mut self, id: &Value, method: &str, params: &Value) -> Vec<Action> {
        let answer = match method {
            "initialize" => Ok(self.initialize(params)),
            "authenticate" => authenticate(params),
            "session/new" => {
                return self
                    .new_session(id, params)
                    .unwrap_or_else(|r| refuse(id, &r));
            }
            "session/load" if self.options.store => {
                return self.load(id, params).unwrap_or_else(|r| refuse(id, &r));
            }
            "session/prompt" => return self.prompt(id, params).unwrap_or_else(|r| refuse(id, &r)),
            "session/set_mode" => return self.set(id, params, "mode", "modeId"),
            "session/set_model" => return self.set(id, params, "model", "modelId"),
            "session/set_config_option" => {
                let option = text(params, "configId").unwrap_or_default();
                return self.set(id, params, option, "value");
            }
            _ => Err(Refusal::new(
                METHOD_NOT_FOUND,
                format!("there is no method `{method}`"),
            )),
        };
        match answer {
            Ok(result) => vec![Action::Send(message::result(id, &result))],
            Err(refusal) => refuse(id, &refusal),
        }
    }

    fn initialize(&self, params: &Value) -> Value {
        let asked = params.get("protocolVersion").and_then(Value::as_u64);
        json!({
            "protocolVersion": asked.unwrap_or(PROTOCOL).min(PROTOCOL),
            "agentInfo": {
                "name": "mock", "title": "Mock agent", "version": env!("CARGO_PKG_VERSION"),
            },
            "agentCapabilities": {
                "loadSession": self.options.store,
                "promptCapabilities": {"image": true, "audio": true, "embeddedContext": true},
                "mcpCapabilities": {"http": true, "sse": true},
            },
            "authMethods": [
                {"id": "mock", "name": "Mock", "description": "Needs no credential"},
            ],
        })
    }

    fn new_session(&mut self, id: &Value, params: &Value) -> Result<Vec<Action>, Refusal> {
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(Refusal::new(INTERNAL, "too many sessions"));
        }
        let cwd = cwd(params)?;
        let name = format!("{}{}", self.options.prefix, self.sessions.len() + 1);
        let session = Session::new(name.clone(), cwd);
        let answer = Action::Send(message::result(id, &opened(&session)));
        let mut actions = Vec::new();
        if self.options.store {
            let entry = json!({"cwd": session.cwd}).to_string();
            let session = name.clone();
            actions.push(Action::Record { session, entry });
        }
        actions.push(answer);
        self.sessions.insert(name, session);
        Ok(actions)
    }

    fn load(&mut self, id: &Value, params: &Value) -> Result<Vec<Action>, Refusal> {
        let name = text(params, "sessionId")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || name.len() > ID_MAX || !name.chars().all(plain) {
            return Err(unknown(name));
        }
        if self.running(name).is_some() {
            return Err(busy(name));
        }
        let ticket = self.ticket();
        let session = Session::new(name.to_owned(), cwd(params)?);
        let request = id.clone();
        self.loads.insert(ticket, Load { request, session });
        let job = Job::Recall {
            session: name.to_owned(),
        };
        Ok(vec![Action::Perform { ticket, job }])
    }

    /// Tells the whole conversation again, as the protocol wants it, and answers.
    fn loaded(&mut self, load: Load, result: Result<String, String>) -> Vec<Action> {
        let Load {
            request,
            mut session,
        } = load;
        let Ok(history) = result else {
            return refuse(&request, &unknown(&session.id));
        };
        let mut actions = Vec::new();
        for line in history.lines() {
            let Ok(entry) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let part = |key: &str| entry.get(key).and_then(Value::as_str);
            let (Some(prompt), Some(answer)) = (part("prompt"), part("answer")) else {
                continue;
            };
            session.remember(prompt);
            for (kind, text) in [
                ("user_message_chunk", prompt),
                ("agent_message_chunk", answer),
            ] {
                actions.push(Action::Send(message::chunk(&session.id, kind, text)));
            }
        }
        let answer = session.describe();
        actions.push(Action::Send(message::result(&request, &answer)));
        self.sessions.insert(session.id.clone(), session);
        actions
    }

    fn prompt(&mut self, id: &Value, params: &Value) -> Result<Vec<Action>, Refusal> {
        let name = text(params, "sessionId")?;
        if self.running(name).is_some() {
            return Err(busy(name));
        }
        let blocks = blocks(params)?;
        let ticket = self.ticket();
        let session = self.sessions.get_mut(name).ok_or_else(|| unknown(name))?;
        let steps = parse::steps(&blocks.text)?;
        session.remember(&blocks.text);
        let mut turn = Turn::new(ticket, name.to_owned(), id.clone(), blocks, steps);
        let moved = turn.advance(session);
        self.turns.insert(ticket, turn);
        Ok(self.moved(ticket, moved))
    }

    fn set(&mut self, id: &Value, params: &Value, option: &str, key: &str) -> Vec<Action> {
        let result = text(params, "sessionId").and_then(|name| {
            let session = self.sessions.get_mut(name).ok_or_else(|| unknown(name))?;
            let value = text(params, key)?;
            session.set(option, value)?;
            let options = session.config_options();
            let update = if option == "mode" {
                json!({"sessionUpdate": "current_mode_update", "currentModeId": value})
            } else {
                json!({"sessionUpdate": "config_option_update", "configOptions": options})
            };
            let answer = match key {
                "value" => json!({"configOptions": options}),
                _ => json!({}),
            };
            Ok((message::update(name, &update), answer))
        });
        match result {
            Ok((update, answer)) => vec![
                Action::Send(update),
                Action::Send(message::result(id, &answer)),
            ],
            Err(refusal) => refuse(id, &refusal),
        }
    }

    fn cancel(&mut self, params: &Value) -> Vec<Action> {
        let name = text(params, "sessionId").unwrap_or_default();
        let Some(ticket) = self.running(name) else {
            return Vec::new();
        };
        let moved = self.turns.get_mut(&ticket).and_then(Turn::cancel);
        moved.map_or_else(Vec::new, |moved| self.moved(ticket, moved))
    }

    fn with_turn(
        &mut self,
        ticket: u64,
        act: impl FnOnce(&mut Turn, &mut Session) -> Moved,
    ) -> Vec<Action> {
        let Some(turn) = self.turns.get_mut(&ticket) else {
            return Vec::new();
        };
        let Some(session) = self.sessions.get_mut(&turn.session) else {
            return Vec::new();
        };
        let moved = act(turn, session);
        self.moved(ticket, moved)
    }

    /// Takes away a turn that ended, and records it before it is answered.
    fn moved(&mut self, ticket: u64, moved: Moved) -> Vec<Action> {
        let mut actions = moved.actions;
        if !moved.ended {
            return actions;
        }
        if let Some(turn) = self.turns.remove(&ticket)
            && self.options.store
        {
            let entry = turn.record();
            let session = turn.session;
            actions.insert(0, Action::Record { session, entry });
        }
        actions
    }

    fn running(&self, session: &str) -> Option<u64> {
        let found = self.turns.iter().find(|(_, turn)| turn.session == session);
        found.map(|(ticket, _)| *ticket)
    }

    /// From 1: requests of ours carry them as ids.
    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }
}

fn refuse(id: &Value, refusal: &Refusal) -> Vec<Action> {
    vec![Action::Send(message::error(id, refusal))]
}

fn unknown(session: &str) -> Refusal {
    Refusal::new(NOT_FOUND, format!("there is no session `{session}`"))
}

fn busy(session: &str) -> Refusal {
    Refusal::new(
        INVALID_REQUEST,
        format!("a prompt of session `{session}` is running"),
    )
}

fn authenticate(params: &Value) -> Result<Value, Refusal> {
    match text(params, "methodId")? {
        "mock" => Ok(json!({})),
        other => Err(Refusal::params(format!("there is no method `{other}`"))),
    }
}

/// The answer to `session/new`.
fn opened(session: &Session) -> Value {
    let mut answer = match session.describe() {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    answer.insert("sessionId".to_owned(), session.id.as_str().into());
    Value::Object(answer)
}

fn text<'a>(params: &'a Value, key: &str) -> Result<&'a str, Refusal> {
    let value = params.get(key).and_then(Value::as_str);
    value.ok_or_else(|| Refusal::params(format!("`{key}` is a string and required")))
}

fn cwd(params: &Value) -> Result<PathBuf, Refusal> {
    let cwd = PathBuf::from(text(params, "cwd")?);
    if !cwd.is_absolute() {
        return Err(Refusal::params("`cwd` is an absolute path"));
    }
    match params.get("mcpServers") {
        Some(Value::Array(_)) => Ok(cwd),
        _ => Err(Refusal::params("`mcpServers` is a list and required")),
    }
}

fn blocks(params: &Value) -> Result<Blocks, Refusal> {
    let list = params.get("prompt").and_then(Value::as_array);
    let list = list.ok_or_else(|| Refusal::params("`prompt` is a list and required"))?;
    let mut all = Blocks::default();
    for block in list {
        let kind = text(block, "type")?;
        if kind == "text" {
            let said = text(block, "text")?;
            all.history += all.text.chars().count();
            all.bytes += said.len();
            said.clone_into(&mut all.text);
            all.kinds.push(format!("text of {}", said.chars().count()));
        } else {
            all.kinds.push(kind.to_owned());
        }
    }
    Ok(all)
}
