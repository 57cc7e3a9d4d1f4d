//! What clients that speak ACP say, and its way to the agent.

use super::build::{Build, is_initialize};
use super::{
    About, Act, Choice, ClientMessage, Conversation, Failure, HELD_MAX, Held, Outcome, Pending,
    Phase, SessionState, Source, Step, Timestamp, Turn, Value, Waiter, kind,
};
use crate::message::{Class, Envelope, Id};

impl Conversation {
    /// A client's message. A request is answered when the agent does; everything else once it is
    /// in the log.
    pub fn client(&mut self, message: ClientMessage, waiter: Waiter, now: Timestamp) -> Step {
        let mut build = self.build(now);
        build.client(message, waiter);
        build.done()
    }
}

impl Build<'_> {
    fn client(&mut self, message: ClientMessage, waiter: Waiter) {
        if let SessionState::Ended { reason, .. } = &self.it.record.state {
            let failure = Failure::Ended {
                reason: reason.clone(),
            };
            self.answer(Some(waiter), Outcome::Failed(failure));
            return;
        }
        if let Class::Response { id } = message.envelope.class() {
            let known = id.as_ref().is_some_and(|id| self.it.asked.contains_key(id));
            if !known {
                // The first answer wins; the log keeps the others.
                self.log(Source::Client, kind::UNMATCHED, message.envelope.to_line());
                self.answer(Some(waiter), Outcome::Accepted);
                return;
            }
        }
        if self.it.held.len() >= HELD_MAX {
            self.answer(Some(waiter), Outcome::Failed(Failure::Busy));
            return;
        }
        self.it.held.push_back(Held {
            envelope: message.envelope,
            author: message.author,
            connection: message.connection,
            waiter: Some(waiter),
            turn: None,
        });
        self.flush();
    }

    /// Sends what can be sent, in order. Stops at the first message that has to wait, so that no
    /// message overtakes another.
    pub(super) fn flush(&mut self) {
        while let Some(held) = self.it.held.front() {
            if !matches!(self.it.phase, Phase::Up) {
                if matches!(self.it.phase, Phase::Down) {
                    self.it.phase = Phase::Starting;
                    self.act(Act::Start);
                }
                return;
            }
            if is_initialize(&held.envelope) {
                self.pass_on();
                continue;
            }
            if !self.it.is_ready() && self.it.record.handshake.is_some() {
                self.introduce();
                return;
            }
            let conversation = held.envelope.session().map(str::to_owned);
            if let Some(conversation) = conversation {
                let is_prompt = held.envelope.method() == Some("session/prompt");
                if !self.is_at_hand(&conversation, is_prompt) {
                    return;
                }
            }
            self.pass_on();
        }
    }

    /// Sends the first held message.
    fn pass_on(&mut self) {
        let Some(held) = self.it.held.pop_front() else {
            return;
        };
        match held.envelope.class().clone() {
            Class::Request { method, id } => self.pass_request(held, &method, id),
            Class::Notification { .. } => {
                let wire = self.translated(&held.envelope);
                self.send(Source::Client, kind::MESSAGE, &held, wire.as_ref());
                self.answer(held.waiter, Outcome::Accepted);
            }
            Class::Response { id } => {
                // Held back until now: somebody else may have answered meanwhile.
                let asked = id.and_then(|id| self.it.asked.remove(&id));
                match asked {
                    Some(_) => {
                        self.send(Source::Client, kind::MESSAGE, &held, None);
                    }
                    None => {
                        self.log(Source::Client, kind::UNMATCHED, held.envelope.to_line());
                    }
                }
                self.answer(held.waiter, Outcome::Accepted);
            }
        }
    }

    fn pass_request(&mut self, held: Held, method: &str, original: Id) {
        let mut wire = self.translated(&held.envelope);
        let about = about(method, &held.envelope);
        // Two clients may count from the same number.
        let id = if self.it.pending.contains_key(&original) {
            let id = self.it.own_id();
            wire.get_or_insert_with(|| held.envelope.clone())
                .set_id(&id);
            id
        } else {
            original.clone()
        };
        if let About::Initialize { .. } = about {
            self.it.initializing = true;
            let params = held.envelope.params().cloned().unwrap_or(Value::Null);
            let params = params.to_string();
            if self.it.record.handshake.as_deref() != Some(params.as_str()) {
                self.it.record.handshake = Some(params);
                self.changed();
            }
        }
        if let About::Prompt { conversation } = &about {
            if let Some(text) = self.history_of(conversation) {
                wire.get_or_insert_with(|| held.envelope.clone())
                    .prepend_text(&text);
            }
            self.turn_of(&held, conversation);
        }
        self.send(Source::Client, kind::MESSAGE, &held, wire.as_ref());
        let pending = Pending {
            waiter: held.waiter,
            original,
            about,
        };
        self.it.pending.insert(id, pending);
    }

    /// Begins the turn of a prompt.
    fn turn_of(&mut self, held: &Held, conversation: &str) {
        let known = held.turn.and_then(|turn| self.it.turns.get(&turn).cloned());
        let turn = known.unwrap_or_else(|| {
            let number = self.it.next_turn;
            self.it.next_turn += 1;
            Turn {
                number,
                binding: conversation.to_owned(),
                author: held.author.clone(),
                first: self.it.end.log + 1,
                last: None,
                outcome: None,
                started_at: self.now,
                ended_at: None,
                snapshot: None,
            }
        });
        self.begin_turn(turn);
    }

    /// The message with the ids that this process knows; `None` if it has them already.
    fn translated(&self, envelope: &Envelope) -> Option<Envelope> {
        let public = envelope.session()?;
        let mut bindings = self.it.record.bindings.iter();
        let binding = bindings.find(|it| it.public == public)?;
        if binding.agent == binding.public {
            return None;
        }
        let mut wire = envelope.clone();
        wire.set_session(&binding.agent);
        Some(wire)
    }
}

fn about(method: &str, envelope: &Envelope) -> About {
    let params = envelope.params();
    let init = || params.map_or_else(|| "{}".to_owned(), Value::to_string);
    match (method, envelope.session()) {
        ("initialize", _) => About::Initialize { ours: false },
        ("session/new", _) => About::New { init: init() },
        ("session/load" | "session/resume", Some(session)) => About::Load {
            conversation: session.to_owned(),
            init: init(),
        },
        ("session/prompt", Some(session)) => About::Prompt {
            conversation: session.to_owned(),
        },
        ("session/set_mode" | "session/set_model" | "session/set_config_option", Some(session)) => {
            About::Choose {
                conversation: session.to_owned(),
                choice: Choice {
                    method: method.to_owned(),
                    params: init(),
                },
            }
        }
        _ => About::Other,
    }
}

/// What the log of a request says it was about, for [`Conversation::recall`].
pub(super) fn recalled(method: &str, envelope: &Envelope) -> About {
    about(method, envelope)
}
