//! What the agent says, and its coming and going.

use serde_json::json;
use woodfrog_types::session::Binding;
use woodfrog_types::{Code, SandboxId};

use super::build::{Build, end_payload};
use super::{
    About, AgentEnd, AgentProcess, Asked, Conversation, Failure, Held, Outcome, Pending, Phase,
    Source, Step, Timestamp, Value, kind,
};
use crate::message::{Class, Envelope, Id};

/// Bytes of an unreadable line that the log keeps.
const RAW_KEPT: usize = 4096;

impl Conversation {
    /// A process was started on [`super::Act::Start`], in that sandbox.
    pub fn started(&mut self, sandbox: &SandboxId, id: u64, now: Timestamp) -> Step {
        let incarnation = self.incarnation() + 1;
        let mut build = self.build(now);
        build.it.record.sandbox = sandbox.clone();
        build.it.record.process = Some(AgentProcess {
            id,
            incarnation,
            ready: None,
            over: false,
        });
        build.it.phase = Phase::Up;
        build.it.initializing = false;
        build.it.restoring = None;
        build.changed();
        build.rewind();
        let payload = json!({"incarnation": incarnation, "sandbox": sandbox.as_str()});
        build.mark(kind::AGENT_STARTED, &payload);
        build.flush();
        build.done()
    }

    /// The process of the record is there and is listened to again.
    pub fn resumed(&mut self, now: Timestamp) -> Step {
        self.phase = Phase::Up;
        let mut build = self.build(now);
        build.flush();
        build.next_prompt();
        build.done()
    }

    /// No process could be started. Whoever waits is told; the next message tries again.
    pub fn start_failed(&mut self, code: Code, message: &str, now: Timestamp) -> Step {
        self.phase = Phase::Down;
        let mut build = self.build(now);
        let failure = Failure::NotStarted {
            code,
            message: message.to_owned(),
        };
        build.mark(
            kind::AGENT_EXITED,
            &json!({"success": false, "status": message, "stderr": [], "code": null}),
        );
        build.fail_all(&failure);
        build.close_turns("agent_not_started");
        build.done()
    }

    /// The process ended, or is as good as gone. Whoever waits is told at once.
    pub fn exited(&mut self, end: &AgentEnd, now: Timestamp) -> Step {
        self.phase = Phase::Down;
        self.initializing = false;
        self.restoring = None;
        self.asked.clear();
        let mut build = self.build(now);
        if let Some(process) = &mut build.it.record.process {
            process.over = true;
            build.changed();
        }
        let failure = Failure::Exited(end.clone());
        build.fail_pending(&failure);
        build.mark(kind::AGENT_EXITED, &end_payload(end));
        build.fail_held(&failure);
        build.close_running_turns("agent_exited");
        build.next_prompt();
        build.done()
    }

    /// Output between these places is lost.
    pub fn missed(&mut self, from: u64, to: u64, now: Timestamp) -> Step {
        let mut build = self.build(now);
        build.mark(kind::GAP, &json!({"from": from, "to": to, "unit": "byte"}));
        build.heard(to);
        build.done()
    }

    /// A line of the agent, without its end. `output`: where its output goes on after it.
    /// `stderr`: the last lines of its other output.
    pub fn line(&mut self, line: &[u8], output: u64, stderr: &[String], now: Timestamp) -> Step {
        let mut build = self.build(now);
        build.heard(output);
        match Envelope::parse(line) {
            Ok(envelope) => build.agent(envelope, stderr),
            Err(error) => build.unreadable(line, line.len() as u64, &error.to_string()),
        }
        build.done()
    }

    /// A line that is too long to be taken; `start` is how it began.
    pub fn endless(&mut self, start: &[u8], length: u64, output: u64, now: Timestamp) -> Step {
        let mut build = self.build(now);
        build.heard(output);
        build.unreadable(start, length, "longer than a line may be");
        build.done()
    }
}

impl Build<'_> {
    fn unreadable(&mut self, line: &[u8], length: u64, error: &str) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let raw = String::from_utf8_lossy(line.get(..RAW_KEPT).unwrap_or(line));
        let payload = json!({"error": error, "raw": raw, "bytes": length});
        self.log(Source::Agent, kind::UNREADABLE, payload.to_string());
    }

    fn agent(&mut self, mut envelope: Envelope, stderr: &[String]) {
        let agent_session = envelope.session().map(str::to_owned);
        let binding = agent_session.as_deref().and_then(|id| self.bound(id));
        if let Some(binding) = &binding
            && binding.public != binding.agent
        {
            envelope.set_session(&binding.public);
        }
        match envelope.class().clone() {
            Class::Notification { .. } => {
                let reloading = binding.is_some_and(|binding| self.is_reloading(&binding.public));
                let kind = if reloading {
                    kind::REPEATED
                } else {
                    kind::MESSAGE
                };
                self.log(Source::Agent, kind, envelope.to_line());
            }
            Class::Request { method, id } => self.agent_asks(&envelope, method, id),
            Class::Response { id } => {
                let pending = id.as_ref().and_then(|id| self.it.pending.remove(id));
                match pending {
                    Some(pending) => self.agent_answers(id.as_ref(), pending, envelope, stderr),
                    None => {
                        self.log(Source::Agent, kind::UNMATCHED, envelope.to_line());
                    }
                }
            }
        }
    }

    fn agent_asks(&mut self, envelope: &Envelope, method: String, id: Id) {
        let place = self.log(Source::Agent, kind::MESSAGE, envelope.to_line());
        let asked = Asked {
            id: id.clone(),
            method,
            conversation: envelope.session().map(str::to_owned),
            params: envelope.params().cloned().unwrap_or(Value::Null),
            sequence: place,
        };
        self.it.asked.insert(id, asked.clone());
        self.consider(&asked);
    }

    fn agent_answers(
        &mut self,
        id: Option<&Id>,
        pending: Pending,
        mut envelope: Envelope,
        stderr: &[String],
    ) {
        if !stderr.is_empty() {
            envelope.explain_error(&stderr.join("\n"));
        }
        if id != Some(&pending.original) {
            envelope.set_id(&pending.original);
        }
        let ours = pending.about.is_ours();
        if let About::New { .. } = pending.about {
            self.name_apart(&mut envelope);
        }
        let kind = if ours { kind::HANDSHAKE } else { kind::MESSAGE };
        self.log(Source::Agent, kind, envelope.to_line());
        self.answer(pending.waiter, Outcome::Response(envelope.to_line()));
        self.conclude(pending.about, &envelope);
        self.flush();
        self.next_prompt();
    }

    /// What an answer of the agent means for the conversation.
    fn conclude(&mut self, about: About, answer: &Envelope) {
        match about {
            About::Other | About::Rechoose => {}
            About::Choose {
                conversation,
                choice,
            } => {
                if answer.error().is_none() {
                    self.chosen(&conversation, choice);
                }
            }
            About::Initialize { ours } => self.initialized(ours, answer),
            About::New { init } => {
                let id = answer.ok().and_then(|it| it.get("sessionId"));
                if let Some(public) = id.and_then(Value::as_str) {
                    let agent = self.it.renamed.take().unwrap_or_else(|| public.to_owned());
                    self.bind(public, agent, init);
                }
            }
            About::Load { conversation, init } => {
                if answer.error().is_none() {
                    self.bind(&conversation, conversation.clone(), init);
                }
            }
            About::Prompt { conversation } => self.prompt_answered(&conversation, answer),
            About::Reload { conversation } => self.reloaded(&conversation, answer),
            About::Remake { conversation } => self.remade(&conversation, answer),
        }
    }

    fn initialized(&mut self, ours: bool, answer: &Envelope) {
        self.it.initializing = false;
        if let Some(result) = answer.ok() {
            if let Some(process) = &mut self.it.record.process {
                process.ready = Some(result.to_string());
                self.changed();
            }
        } else if ours {
            // Without it nothing that waits can be said.
            let held: Vec<Held> = std::mem::take(&mut self.it.held).into();
            for held in held {
                self.refuse(held, answer);
            }
        }
    }

    /// Agents count from one in each process: where a conversation of an earlier one has the id
    /// already, clients know the new one by another.
    fn name_apart(&mut self, answer: &mut Envelope) {
        let id = answer.ok().and_then(|it| it.get("sessionId"));
        let Some(id) = id.and_then(Value::as_str).map(str::to_owned) else {
            return;
        };
        if self.it.binding(&id).is_some() {
            let public = format!("{id}-{}-{}", self.it.end.epoch, self.it.end.log);
            answer.set_result_session(&public);
            self.it.renamed = Some(id);
        }
    }

    /// Remembers a conversation that a client made.
    fn bind(&mut self, public: &str, agent: String, init: String) {
        let incarnation = self.it.incarnation();
        let binding = Binding {
            public: public.to_owned(),
            agent,
            incarnation,
            init,
            replay_due: None,
            chosen: Vec::new(),
        };
        match self.it.binding(public) {
            Some(known) => *known = binding,
            None => self.it.record.bindings.push(binding),
        }
        self.changed();
    }

    fn prompt_answered(&mut self, conversation: &str, answer: &Envelope) {
        let outcome = answer
            .ok()
            .map(
                |result| match result.get("stopReason").and_then(Value::as_str) {
                    Some(reason) => reason.to_owned(),
                    None => "end_turn".to_owned(),
                },
            )
            .unwrap_or_else(|| "error".to_owned());
        let usage = answer.ok().and_then(|result| result.get("usage")).cloned();
        let waiting: Vec<u64> = self.it.queued.iter().map(|it| it.turn.number).collect();
        let turn = self
            .it
            .turns
            .values()
            .find(|turn| turn.binding == conversation && !waiting.contains(&turn.number))
            .cloned();
        if let Some(turn) = turn {
            self.end_turn(turn, &outcome, usage.as_ref());
        }
    }

    /// Answers a message that will not reach the agent with what the agent said.
    pub(super) fn refuse(&mut self, held: Held, answer: &Envelope) {
        let outcome = match held.envelope.class() {
            Class::Request { id, .. } => {
                let mut answer = answer.clone();
                answer.set_id(id);
                let line = answer.to_line();
                self.log(Source::Client, kind::MESSAGE, held.envelope.to_line());
                self.log(Source::Agent, kind::MESSAGE, line.clone());
                Outcome::Response(line)
            }
            Class::Notification { .. } | Class::Response { .. } => Outcome::Accepted,
        };
        if let Some(turn) = held.turn.and_then(|turn| self.it.turns.get(&turn).cloned()) {
            self.end_turn(turn, "error", None);
        }
        self.answer(held.waiter, outcome);
    }

    /// The conversation that this process knows by `agent`.
    fn bound(&self, agent: &str) -> Option<Binding> {
        let incarnation = self.it.incarnation();
        let mut bindings = self.it.record.bindings.iter();
        let reloading = self.it.restoring.as_deref();
        bindings
            .find(|it| {
                it.agent == agent
                    && (it.incarnation == incarnation || reloading == Some(it.public.as_str()))
            })
            .cloned()
    }

    fn is_reloading(&self, conversation: &str) -> bool {
        self.it.restoring.as_deref() == Some(conversation)
    }
}
