//! The log of a session as events of sandbox-agent's universal schema (version 0.1).
//!
//! A [`Fold`] takes the entries of the log in their order and gives the events that each leads to.
//! Its state is what a turn has begun and not completed, and follows from the entries since the
//! oldest turn that is not over: [`Fold::take`] over them gives it back. Ids come from places in
//! the log, so that they are the same then.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use woodfrog_types::session::{NewSessionEvent, Source, kind};

use crate::message::{Class, Envelope, Id};

mod asked;
mod content;
mod items;
#[cfg(test)]
mod tests;

pub use asked::{Answer, Asking};
use items::{Speech, Tool};

/// What an event is, before it has its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// [`Source::Agent`] if the agent said so, else [`Source::Server`].
    pub source: Source,
    /// The type: `item.started`.
    pub kind: &'static str,
    pub data: Value,
    /// Nothing that the agent said is behind it.
    pub synthetic: bool,
    /// What the agent said, on the last event that it leads to.
    pub raw: Option<Value>,
}

/// An event as the log holds it: the payload of an entry of [`Stream::Universal`], whose kind is
/// the type.
///
/// [`Stream::Universal`]: woodfrog_types::session::Stream::Universal
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Universal {
    pub synthetic: bool,
    /// The agent's own id of the session.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub native_session_id: Option<String>,
    pub data: Value,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub raw: Option<Value>,
}

impl Universal {
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Tool calls that are open at a time; those before are completed when more come.
const TOOLS_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    /// Turns whose prompts are in the log and that are not over.
    turns: BTreeSet<u64>,
    /// Whether a prompt is with the agent.
    running: bool,
    /// The request of that prompt.
    prompt: Option<Id>,
    speech: Option<Speech>,
    tools: BTreeMap<String, Tool>,
    /// Calls of this turn that are over: what comes of them later says nothing new.
    done: BTreeSet<String>,
    asked: BTreeMap<Id, Asking>,
}

/// One entry on its way through.
struct Telling<'a> {
    fold: &'a mut Fold,
    place: u64,
    told: Vec<Told>,
}

impl Fold {
    /// What the entry at `place` of the log leads to.
    pub(crate) fn take(&mut self, place: u64, event: &NewSessionEvent) -> Vec<Told> {
        let mut telling = Telling {
            fold: self,
            place,
            told: Vec::new(),
        };
        match event.kind.as_str() {
            kind::MESSAGE => telling.message(event),
            kind::SESSION_STARTED => {
                telling.daemon("session.started", json!({"metadata": read(&event.payload)}));
            }
            kind::USER => telling.user(&read(&event.payload)),
            kind::TURN_STARTED => telling.turn_started(&read(&event.payload)),
            kind::TURN_ENDED => telling.turn_ended(&read(&event.payload)),
            kind::AGENT_EXITED => telling.exited(&read(&event.payload)),
            kind::SESSION_ENDED => telling.ended(&read(&event.payload)),
            kind::UNREADABLE => telling.unparsed(read(&event.payload)),
            kind::RESTORED => telling.status("session.restored", None, "", false),
            kind::GAP => {
                let details = read(&event.payload);
                let message = "output of the agent was lost";
                let data = json!({"message": message, "code": "output_lost", "details": details});
                telling.daemon("error", data);
            }
            _ => {}
        }
        telling.told
    }
}

impl Telling<'_> {
    /// An event that the agent said.
    fn agent(&mut self, kind: &'static str, data: Value) {
        self.tell(Source::Agent, kind, data, false);
    }

    /// An event that follows from what the agent said.
    fn synthetic(&mut self, kind: &'static str, data: Value) {
        self.tell(Source::Agent, kind, data, true);
    }

    /// An event of the server's.
    fn daemon(&mut self, kind: &'static str, data: Value) {
        self.tell(Source::Server, kind, data, true);
    }

    fn tell(&mut self, source: Source, kind: &'static str, data: Value, synthetic: bool) {
        self.told.push(Told {
            source,
            kind,
            data,
            synthetic,
            raw: None,
        });
    }

    fn message(&mut self, event: &NewSessionEvent) {
        let Ok(envelope) = Envelope::parse(event.payload.as_bytes()) else {
            return;
        };
        match (envelope.class().clone(), event.source) {
            (Class::Notification { method }, Source::Agent) => {
                self.notification(&method, &envelope);
            }
            (Class::Request { method, id }, Source::Agent) => {
                if method == "session/request_permission" {
                    self.asks(id, envelope.params().unwrap_or(&Value::Null));
                }
            }
            (Class::Request { method, id }, _) => {
                if method == "session/prompt" {
                    self.fold.prompt = Some(id);
                }
            }
            (Class::Response { id: Some(id) }, Source::Agent) => {
                if self.fold.prompt.as_ref() == Some(&id) {
                    self.fold.prompt = None;
                    self.prompt_failed(&envelope);
                }
            }
            (Class::Response { id: Some(id) }, _) => self.answered(&id, &envelope),
            (Class::Notification { .. } | Class::Response { id: None }, _) => {}
        }
        if event.source == Source::Agent
            && let Some(last) = self.told.last_mut()
        {
            last.raw = Some(read(&event.payload));
        }
    }

    fn notification(&mut self, method: &str, envelope: &Envelope) {
        let params = envelope.params().unwrap_or(&Value::Null);
        if method != "session/update" {
            return self.unknown(params);
        }
        let update = &params["update"];
        match update["sessionUpdate"].as_str().unwrap_or_default() {
            "agent_message_chunk" => self.chunk(false, &update["content"]),
            "agent_thought_chunk" => self.chunk(true, &update["content"]),
            "tool_call" | "tool_call_update" => self.tool(update),
            // Ours come back to us.
            "user_message_chunk" => {}
            "plan" => self.status("plan", Some(update), &content::plan(update), true),
            "current_mode_update" => {
                let mode = update["currentModeId"].as_str().unwrap_or_default();
                self.status("mode", Some(update), mode, true);
            }
            "session_info_update" => {
                let title = update["title"].as_str().unwrap_or_default();
                self.status("session_info", Some(update), title, true);
            }
            "usage_update" => {
                let usage = format!("{}/{}", update["used"], update["size"]);
                self.status("usage", Some(update), &usage, true);
            }
            label @ ("available_commands_update" | "config_option_update") => {
                let label = label.trim_end_matches("_update").to_owned();
                self.status(&label, Some(update), "", true);
            }
            _ => self.unknown(update),
        }
        if !self.fold.running {
            // Nothing will come that completes it.
            self.close("completed");
        }
    }

    fn prompt_failed(&mut self, answer: &Envelope) {
        let Some(error) = answer.error() else {
            return;
        };
        self.close("failed");
        let message = error["message"].as_str().unwrap_or("the agent failed");
        let mut data = json!({"message": message});
        if let Some(code) = error.get("code") {
            let code = code
                .as_str()
                .map_or_else(|| code.to_string(), str::to_owned);
            data["code"] = Value::from(code);
        }
        if let Some(details) = error.get("data") {
            data["details"] = details.clone();
        }
        self.agent("error", data);
    }

    fn turn_started(&mut self, mark: &Value) {
        self.close("completed");
        self.fold.done.clear();
        self.fold.running = true;
        if let Some(number) = mark["turn"].as_u64() {
            self.fold.turns.insert(number);
        }
        let turn = turn_id(mark);
        self.daemon("turn.started", json!({"phase": "started", "turn_id": turn}));
    }

    fn turn_ended(&mut self, mark: &Value) {
        if let Some(number) = mark["turn"].as_u64() {
            self.fold.turns.remove(&number);
        }
        let outcome = mark["outcome"].as_str().unwrap_or_default();
        // What the agent left open when it said that it is done, is done.
        self.close(match outcome {
            "agent_exited" | "agent_not_started" | "session_ended" | "error" => "failed",
            _ => "completed",
        });
        self.fold.running = false;
        self.fold.done.clear();
        let mut metadata = json!({"outcome": outcome});
        if let Some(usage) = mark.get("usage") {
            metadata["usage"] = usage.clone();
        }
        let turn = turn_id(mark);
        let data = json!({"phase": "ended", "turn_id": turn, "metadata": metadata});
        self.daemon("turn.ended", data);
    }

    /// An agent that goes while nobody waits for it is started again when it is needed: nobody
    /// needs to know.
    fn exited(&mut self, mark: &Value) {
        self.close("failed");
        self.withdraw();
        self.fold.prompt = None;
        if self.fold.turns.is_empty() {
            return;
        }
        let status = mark["status"].as_str().unwrap_or("unknown");
        let data = json!({
            "message": format!("agent process exited ({status})"),
            "code": "agent_exited",
            "details": {"exit_code": mark["code"], "stderr": mark["stderr"]},
        });
        self.daemon("error", data);
    }

    fn ended(&mut self, mark: &Value) {
        self.close("failed");
        self.withdraw();
        let mut data = json!({"reason": "terminated", "terminated_by": "daemon"});
        match mark["reason"].as_str() {
            None | Some("terminated") => {}
            Some(reason) => data["message"] = Value::from(reason),
        }
        self.daemon("session.ended", data);
    }

    fn unparsed(&mut self, payload: Value) {
        let error = payload["error"].clone();
        self.agent(
            "agent.unparsed",
            json!({"error": error, "location": "stdout"}),
        );
        if let Some(last) = self.told.last_mut() {
            last.raw = Some(payload);
        }
    }
}

fn turn_id(mark: &Value) -> String {
    format!("turn_{}", mark["turn"])
}

fn read(payload: &str) -> Value {
    serde_json::from_str(payload).unwrap_or(Value::Null)
}
