//! Putting a step together.

use super::{
    About, Act, AgentEnd, Conversation, Failure, Held, NewSessionEvent, Outcome, Pending,
    SessionFace, Source, Step, Stream, Timestamp, Turn, Value, Waiter, kind,
};
use crate::message::{Class, Envelope};
use crate::universal::Universal;

/// A step in the making, with the conversation that it is of.
pub(super) struct Build<'a> {
    pub(super) it: &'a mut Conversation,
    pub(super) now: Timestamp,
    step: Step,
    changed: bool,
    moved: bool,
}

impl<'a> Build<'a> {
    pub(super) fn new(it: &'a mut Conversation, now: Timestamp) -> Self {
        Self {
            it,
            now,
            step: Step::default(),
            changed: false,
            moved: false,
        }
    }

    pub(super) fn done(mut self) -> Step {
        if self.changed {
            self.it.record.updated_at = self.now;
            self.step.record = Some(self.it.record.clone());
        }
        if self.moved {
            self.step.position = Some(self.it.end.position);
        }
        self.step
    }

    /// The record is not what is stored.
    pub(super) const fn changed(&mut self) {
        self.changed = true;
    }

    pub(super) fn act(&mut self, act: Act) {
        self.step.acts.push(act);
    }

    pub(super) fn answer(&mut self, waiter: Option<Waiter>, outcome: Outcome) {
        if let Some(waiter) = waiter {
            self.act(Act::Answer { waiter, outcome });
        }
    }

    /// Gives an entry its place in the log.
    pub(super) fn log(&mut self, source: Source, kind: &str, payload: String) -> u64 {
        self.log_by(source, kind, payload, None, None)
    }

    fn log_by(
        &mut self,
        source: Source,
        kind: &str,
        payload: String,
        author: Option<String>,
        connection: Option<String>,
    ) -> u64 {
        self.it.end.log += 1;
        self.step.events.push(NewSessionEvent {
            stream: Stream::Log,
            at: self.now,
            source,
            kind: kind.to_owned(),
            author,
            connection,
            payload,
            wire: None,
        });
        let place = self.it.end.log;
        match self.it.record.face {
            SessionFace::Acp => self.number_line(place),
            SessionFace::Universal => self.tell(place),
            SessionFace::Native => {}
        }
        place
    }

    /// Tells clients of the universal schema, in their own order, what the entry means to them.
    fn tell(&mut self, place: u64) {
        let Some(event) = self.step.events.last() else {
            return;
        };
        let told = self.it.fold.take(place, event);
        let mut bindings = self.it.record.bindings.iter();
        let native = bindings.find(|it| it.incarnation > 0);
        let native = native.map(|binding| binding.agent.clone());
        for told in told {
            self.it.end.universal += 1;
            let payload = Universal {
                synthetic: told.synthetic,
                native_session_id: native.clone(),
                data: told.data,
                raw: told.raw,
            };
            self.step.events.push(NewSessionEvent {
                stream: Stream::Universal,
                at: self.now,
                source: told.source,
                kind: told.kind.to_owned(),
                author: None,
                connection: None,
                payload: payload.to_json(),
                wire: None,
            });
        }
    }

    /// Gives what clients of ACP see a number in their own order.
    fn number_line(&mut self, place: u64) {
        if !self
            .step
            .events
            .last()
            .is_some_and(NewSessionEvent::is_line)
        {
            return;
        }
        self.it.end.universal += 1;
        self.step.events.push(NewSessionEvent {
            stream: Stream::Universal,
            at: self.now,
            source: Source::Server,
            kind: kind::LINE.to_owned(),
            author: None,
            connection: None,
            payload: place.to_string(),
            wire: None,
        });
    }

    /// An entry of the server's own.
    pub(super) fn mark(&mut self, kind: &str, payload: &Value) -> u64 {
        self.log(Source::Server, kind, payload.to_string())
    }

    /// As [`Build::mark`], because of somebody.
    pub(super) fn mark_by(&mut self, kind: &str, payload: &Value, author: Option<String>) -> u64 {
        self.log_by(Source::Server, kind, payload.to_string(), author, None)
    }

    /// The agent's output is in the log up to here.
    pub(super) const fn heard(&mut self, output: u64) {
        self.it.end.position.output = output;
        self.moved = true;
    }

    /// The byte streams begin anew.
    pub(super) fn rewind(&mut self) {
        self.it.end.position = super::Position::default();
        self.moved = true;
    }

    /// Puts a message in the log and on its way to the agent. `wire` is what the agent gets, where
    /// that is not the message itself.
    pub(super) fn send(
        &mut self,
        source: Source,
        kind: &str,
        held: &Held,
        wire: Option<&Envelope>,
    ) -> u64 {
        let payload = held.envelope.to_line();
        let wire = wire.map(Envelope::to_line);
        let mut line = wire.clone().unwrap_or_else(|| payload.clone());
        line.push('\n');
        let place = self.log_by(
            source,
            kind,
            payload,
            held.author.clone(),
            held.connection.clone(),
        );
        // What readers of the other stream are told of it may be after it.
        let mut events = self.step.events.iter_mut().rev();
        if let Some(event) = events.find(|event| event.stream == Stream::Log) {
            event.wire = wire;
        }
        let at = self.it.end.position.input;
        self.it.end.position.input += line.len() as u64;
        self.moved = true;
        self.act(Act::Send { at, line });
        place
    }

    /// Asks the agent something on the server's own behalf.
    pub(super) fn ask_agent(&mut self, method: &str, params: Value, about: About) {
        let id = self.it.own_id();
        let held = Held {
            envelope: Envelope::request(&id, method, params),
            author: None,
            connection: None,
            waiter: None,
            turn: None,
        };
        self.send(Source::Server, kind::HANDSHAKE, &held, None);
        let pending = Pending {
            waiter: None,
            original: id.clone(),
            about,
        };
        self.it.pending.insert(id, pending);
    }

    pub(super) fn begin_turn(&mut self, turn: Turn) {
        let payload = serde_json::json!({"turn": turn.number, "conversation": turn.binding});
        self.mark_by(kind::TURN_STARTED, &payload, turn.author.clone());
        self.note_turn(turn);
    }

    /// Keeps a turn and has it written.
    pub(super) fn note_turn(&mut self, turn: Turn) {
        self.step.turns.retain(|it| it.number != turn.number);
        self.step.turns.push(turn.clone());
        match turn.last {
            Some(_) => self.it.turns.remove(&turn.number),
            None => self.it.turns.insert(turn.number, turn),
        };
    }

    /// Ends a turn; `extra` goes into its mark.
    pub(super) fn end_turn(&mut self, mut turn: Turn, outcome: &str, extra: Option<&Value>) {
        let mut payload = serde_json::json!({
            "turn": turn.number,
            "conversation": turn.binding,
            "outcome": outcome,
        });
        if let (Some(usage), Value::Object(payload)) = (extra, &mut payload) {
            payload.insert("usage".to_owned(), usage.clone());
        }
        let place = self.mark_by(kind::TURN_ENDED, &payload, turn.author.clone());
        turn.last = Some(place);
        turn.outcome = Some(outcome.to_owned());
        turn.ended_at = Some(self.now);
        let number = turn.number;
        self.note_turn(turn);
        self.act(Act::TurnEnded { number });
    }

    /// Ends every turn that has begun or waits.
    pub(super) fn close_turns(&mut self, outcome: &str) {
        for turn in std::mem::take(&mut self.it.turns).into_values() {
            self.end_turn(turn, outcome, None);
        }
    }

    /// Ends the turns whose prompts the agent has, or was about to have.
    pub(super) fn close_running_turns(&mut self, outcome: &str) {
        let waiting: Vec<u64> = self.it.queued.iter().map(|it| it.turn.number).collect();
        let running: Vec<Turn> = self
            .it
            .turns
            .values()
            .filter(|turn| !waiting.contains(&turn.number))
            .cloned()
            .collect();
        for turn in running {
            self.end_turn(turn, outcome, None);
        }
    }

    /// Tells everybody who waits for something that the agent has, and those who read along.
    pub(super) fn fail_pending(&mut self, failure: &Failure) {
        for pending in std::mem::take(&mut self.it.pending).into_values() {
            if pending.about.is_ours() {
                continue;
            }
            let line = Envelope::failure(&pending.original, failure.error()).to_line();
            self.log(Source::Server, kind::FAILED, line.clone());
            // Clients that speak JSON-RPC wait for its answer: a failed transport tells them less.
            let outcome = match self.it.record.face {
                SessionFace::Acp => Outcome::Response(line),
                SessionFace::Universal | SessionFace::Native => Outcome::Failed(failure.clone()),
            };
            self.answer(pending.waiter, outcome);
        }
    }

    /// Tells everybody who waits for something that the agent does not have yet.
    pub(super) fn fail_held(&mut self, failure: &Failure) {
        for held in std::mem::take(&mut self.it.held) {
            self.answer(held.waiter, Outcome::Failed(failure.clone()));
        }
    }

    pub(super) fn fail_all(&mut self, failure: &Failure) {
        self.fail_pending(failure);
        self.fail_held(failure);
        for queued in std::mem::take(&mut self.it.queued) {
            self.answer(queued.waiter, Outcome::Failed(failure.clone()));
        }
    }
}

/// What the log says of the end of an agent process.
pub(super) fn end_payload(end: &AgentEnd) -> Value {
    serde_json::json!({
        "success": end.code == Some(0),
        "code": end.code,
        "status": end.status,
        "stderr": end.stderr,
    })
}

/// Whether a message begins the protocol.
pub(super) fn is_initialize(envelope: &Envelope) -> bool {
    matches!(envelope.class(), Class::Request { method, .. } if method == "initialize")
}
