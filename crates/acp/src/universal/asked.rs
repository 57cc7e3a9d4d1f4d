//! What the agent asks: permissions, and questions.

use serde_json::{Value, json};

use super::Telling;
use crate::message::{Envelope, Id};

/// Something that the agent asked with `session/request_permission`.
#[derive(Debug, Clone, PartialEq)]
pub struct Asking {
    /// As clients know it.
    pub id: String,
    /// Whether it is a question with answers, and not a permission.
    pub question: bool,
    title: String,
    call: Value,
    options: Vec<Choice>,
}

#[derive(Debug, Clone, PartialEq)]
struct Choice {
    id: String,
    name: String,
    kind: String,
}

/// What somebody says to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Once,
    Always,
    Reject,
    /// The name, or the id, of an option.
    Option(String),
}

impl Asking {
    /// What was asked at `place` of the log. A question is what cannot be refused by one of its
    /// options, and what agents ask to leave a mode.
    pub fn of(place: u64, params: &Value) -> Self {
        let call = params["toolCall"].clone();
        let listed = params["options"].as_array().into_iter().flatten();
        let text =
            |option: &Value, name: &str| option[name].as_str().unwrap_or_default().to_owned();
        let options: Vec<Choice> = listed
            .map(|option| Choice {
                id: text(option, "optionId"),
                name: text(option, "name"),
                kind: text(option, "kind"),
            })
            .collect();
        let refusable = options.iter().any(|it| it.kind.starts_with("reject"));
        let question = !refusable || call["kind"] == "switch_mode";
        let letter = if question { 'q' } else { 'p' };
        Self {
            id: format!("{letter}{place}"),
            question,
            title: text(&call, "title"),
            call,
            options,
        }
    }

    /// The result of the agent's request; `None` if that answer is not among what it offers.
    pub fn result(&self, answer: &Answer) -> Option<Value> {
        let of_kind = |kind: &str| self.options.iter().find(|option| option.kind == kind);
        let chosen = match answer {
            Answer::Once => of_kind("allow_once")?,
            Answer::Always => of_kind("allow_always")?,
            Answer::Reject => {
                let rejects = of_kind("reject_once").or_else(|| of_kind("reject_always"));
                match rejects {
                    Some(option) => option,
                    None => return Some(json!({"outcome": {"outcome": "cancelled"}})),
                }
            }
            Answer::Option(name) => {
                let mut options = self.options.iter();
                options.find(|option| option.name == *name || option.id == *name)?
            }
        };
        Some(json!({"outcome": {"outcome": "selected", "optionId": chosen.id}}))
    }

    fn requested(&self) -> (&'static str, Value) {
        if !self.question {
            let options: Vec<Value> = self
                .options
                .iter()
                .map(|it| json!({"id": it.id, "name": it.name, "kind": it.kind}))
                .collect();
            let data = json!({
                "permission_id": self.id, "action": self.title, "status": "requested",
                "metadata": {"toolCall": self.call, "options": options},
            });
            return ("permission.requested", data);
        }
        let names: Vec<&str> = self.options.iter().map(|it| it.name.as_str()).collect();
        let data = json!({
            "question_id": self.id, "prompt": self.title, "options": names,
            "status": "requested",
        });
        ("question.requested", data)
    }

    /// `chosen`: the id of an option; `None` if it was taken back or refused.
    fn resolved(&self, chosen: Option<&str>) -> (&'static str, Value) {
        let option = chosen.and_then(|id| self.options.iter().find(|it| it.id == id));
        if !self.question {
            let status = match option.map(|it| it.kind.as_str()) {
                Some("allow_always") => "accept_for_session",
                Some(kind) if !kind.starts_with("reject") => "accept",
                _ => "reject",
            };
            let data = json!({
                "permission_id": self.id, "action": self.title, "status": status,
            });
            return ("permission.resolved", data);
        }
        let answer = option.filter(|it| !it.kind.starts_with("reject"));
        let mut data = json!({
            "question_id": self.id, "prompt": self.title, "options": [],
            "status": if answer.is_some() { "answered" } else { "rejected" },
        });
        data["options"] = self.options.iter().map(|it| it.name.as_str()).collect();
        if let Some(answer) = answer {
            data["response"] = Value::from(answer.name.as_str());
        }
        ("question.resolved", data)
    }
}

impl Telling<'_> {
    pub(super) fn asks(&mut self, id: Id, params: &Value) {
        let asking = Asking::of(self.place, params);
        let (kind, data) = asking.requested();
        self.agent(kind, data);
        self.fold.asked.insert(id, asking);
    }

    pub(super) fn answered(&mut self, id: &Id, answer: &Envelope) {
        let Some(asking) = self.fold.asked.remove(id) else {
            return;
        };
        let outcome = answer.ok().and_then(|result| result.get("outcome"));
        let chosen = outcome.and_then(|outcome| outcome.get("optionId"));
        let (kind, data) = asking.resolved(chosen.and_then(Value::as_str));
        self.daemon(kind, data);
    }

    /// Nobody can answer what was asked any more.
    pub(super) fn withdraw(&mut self) {
        for asking in std::mem::take(&mut self.fold.asked).into_values() {
            let (kind, data) = asking.resolved(None);
            self.daemon(kind, data);
        }
    }
}
