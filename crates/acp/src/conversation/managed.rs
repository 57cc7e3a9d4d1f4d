//! Sessions whose client does not speak ACP: the server speaks it for everybody.

use serde_json::json;
use woodfrog_types::session::Binding;

use super::build::Build;
use super::{
    Asked, Conversation, Failure, Held, Outcome, Prompt, QUEUED_MAX, Queued, SessionFace,
    SessionState, Source, Step, Timestamp, Turn, Value, Waiter, kind,
};
use crate::message::{Envelope, Id};

/// The one conversation of a session that the server holds.
const MAIN: &str = "main";
/// The ACP that the server speaks as a client.
const PROTOCOL: u64 = 1;
/// JSON-RPC: no such method.
const METHOD_NOT_FOUND: i64 = -32601;

impl Conversation {
    /// Prepares the session's one conversation; `init` is what `session/new` is asked with.
    pub fn prepare(record: &mut woodfrog_types::session::Session, init: &Value) {
        record.handshake = Some(
            json!({
                "protocolVersion": PROTOCOL,
                "clientInfo": {"name": "woodfrog", "version": env!("CARGO_PKG_VERSION")},
                "clientCapabilities": {},
            })
            .to_string(),
        );
        record.bindings = vec![Binding {
            public: MAIN.to_owned(),
            agent: MAIN.to_owned(),
            incarnation: 0,
            init: init.to_string(),
            replay_due: None,
            chosen: Vec::new(),
        }];
    }

    /// A prompt. It gets its place at once, and its turn when those before it are over. Answered
    /// when the turn is over, with the agent's answer.
    pub fn prompt(&mut self, prompt: Prompt, waiter: Waiter, now: Timestamp) -> Step {
        let mut build = self.build(now);
        build.prompt(prompt, waiter);
        build.done()
    }

    /// As [`Conversation::prompt`], answered as soon as it has its place: `{"turn": number}`.
    pub fn post(&mut self, prompt: Prompt, waiter: Waiter, now: Timestamp) -> Step {
        let mut build = self.build(now);
        if let Some(number) = build.admit(prompt, None, waiter) {
            let line = json!({"turn": number}).to_string();
            build.answer(Some(waiter), Outcome::Response(line));
            build.next_prompt();
        }
        build.done()
    }

    /// Asks the agent to stop the turn that goes on; prompts that wait stay.
    pub fn cancel(&mut self, author: Option<String>, waiter: Waiter, now: Timestamp) -> Step {
        let mut build = self.build(now);
        let running = build.it.is_running();
        if running {
            let params = json!({"sessionId": MAIN});
            let envelope = Envelope::notification("session/cancel", params);
            // Whoever cancels waits for nothing that the agent was to ask.
            build.withdraw();
            build.hold(envelope, author, Some(waiter), None);
            build.flush();
        } else {
            build.answer(Some(waiter), Outcome::Accepted);
        }
        build.done()
    }

    /// Something that the server asks the agent for somebody: `session/set_mode` and the like.
    pub fn request(
        &mut self,
        method: &str,
        mut params: Value,
        author: Option<String>,
        waiter: Waiter,
        now: Timestamp,
    ) -> Step {
        if let Value::Object(params) = &mut params {
            params.insert("sessionId".to_owned(), Value::from(MAIN));
        }
        let id = self.own_id();
        let mut build = self.build(now);
        let envelope = Envelope::request(&id, method, params);
        build.hold(envelope, author, Some(waiter), None);
        build.flush();
        build.done()
    }

    /// Somebody's answer to what the agent asked: the result of its request. The first one counts.
    pub fn reply(
        &mut self,
        id: &Id,
        result: Value,
        author: Option<String>,
        waiter: Waiter,
        now: Timestamp,
    ) -> Step {
        let mut build = self.build(now);
        if build.it.asked.contains_key(id) {
            let envelope = Envelope::result(id, result);
            build.hold(envelope, author, Some(waiter), None);
            build.flush();
        } else {
            let failure = Failure::Answered;
            build.answer(Some(waiter), Outcome::Failed(failure));
        }
        build.done()
    }

    /// Whether a prompt is with the agent, or on its way.
    fn is_running(&self) -> bool {
        let waiting = self.queued.iter().map(|it| it.turn.number);
        let mut waiting: Vec<u64> = waiting.collect();
        waiting.sort_unstable();
        self.turns
            .keys()
            .any(|number| waiting.binary_search(number).is_err())
    }
}

impl Build<'_> {
    fn prompt(&mut self, prompt: Prompt, waiter: Waiter) {
        if self.admit(prompt, Some(waiter), waiter).is_some() {
            self.next_prompt();
        }
    }

    /// Gives a prompt its place; its turn's number. `waiting` is told when the turn is over, `asker`
    /// if there is to be none.
    fn admit(&mut self, prompt: Prompt, waiting: Option<Waiter>, asker: Waiter) -> Option<u64> {
        if let SessionState::Ended { reason, .. } = &self.it.record.state {
            let failure = Failure::Ended {
                reason: reason.clone(),
            };
            self.answer(Some(asker), Outcome::Failed(failure));
            return None;
        }
        if self.it.queued.len() >= QUEUED_MAX {
            self.answer(Some(asker), Outcome::Failed(Failure::Busy));
            return None;
        }
        let number = self.it.next_turn;
        self.it.next_turn += 1;
        let payload = json!({"turn": number, "prompt": prompt.blocks});
        let first = self.mark_by(kind::USER, &payload, prompt.author.clone());
        let turn = Turn {
            number,
            binding: MAIN.to_owned(),
            author: prompt.author,
            first,
            last: None,
            outcome: None,
            started_at: self.now,
            ended_at: None,
            snapshot: None,
        };
        self.note_turn(turn.clone());
        self.it.queued.push_back(Queued {
            turn,
            blocks: prompt.blocks,
            waiter: waiting,
        });
        Some(number)
    }

    /// Sends the next prompt if none is with the agent.
    pub(super) fn next_prompt(&mut self) {
        if self.it.record.face == SessionFace::Acp || self.it.is_running() {
            return;
        }
        let Some(queued) = self.it.queued.pop_front() else {
            return;
        };
        let id = self.it.own_id();
        let params = json!({"sessionId": MAIN, "prompt": queued.blocks});
        let envelope = Envelope::request(&id, "session/prompt", params);
        let author = queued.turn.author.clone();
        self.hold(envelope, author, queued.waiter, Some(queued.turn.number));
        self.flush();
    }

    fn hold(
        &mut self,
        envelope: Envelope,
        author: Option<String>,
        waiter: Option<Waiter>,
        turn: Option<u64>,
    ) {
        self.it.held.push_back(Held {
            envelope,
            author,
            connection: None,
            waiter,
            turn,
        });
    }

    /// Answers for everybody what needs nobody.
    pub(super) fn consider(&mut self, asked: &Asked) {
        if self.it.record.face == SessionFace::Acp {
            return;
        }
        let answer = if asked.method != "session/request_permission" {
            let error = json!({
                "code": METHOD_NOT_FOUND,
                "message": format!("{} is not offered", asked.method),
            });
            Envelope::failure(&asked.id, error)
        } else if self.it.options.allow_all {
            match option(&asked.params, &["allow_once", "allow_always"]) {
                Some(option) => Envelope::result(&asked.id, selected(&option)),
                None => return,
            }
        } else {
            return;
        };
        self.server_answers(asked, answer);
    }

    fn server_answers(&mut self, asked: &Asked, answer: Envelope) {
        self.it.asked.remove(&asked.id);
        let held = Held {
            envelope: answer,
            author: None,
            connection: None,
            waiter: None,
            turn: None,
        };
        self.send(Source::Server, kind::MESSAGE, &held, None);
    }

    /// Takes back what the agent asked: the turn is canceled.
    fn withdraw(&mut self) {
        let asked: Vec<Asked> = self.it.asked.values().cloned().collect();
        for asked in asked {
            let outcome = json!({"outcome": {"outcome": "cancelled"}});
            let answer = Envelope::result(&asked.id, outcome);
            self.server_answers(&asked, answer);
        }
    }
}

/// The id of the first option of one of these kinds, in the order of `kinds`.
fn option(params: &Value, kinds: &[&str]) -> Option<String> {
    let options = params.get("options")?.as_array()?;
    kinds.iter().find_map(|kind| {
        let found = options
            .iter()
            .find(|option| option.get("kind").and_then(Value::as_str) == Some(*kind))?;
        Some(found.get("optionId")?.as_str()?.to_owned())
    })
}

/// The result of a permission request that chose this option.
fn selected(option: &str) -> Value {
    json!({"outcome": {"outcome": "selected", "optionId": option}})
}
