//! Finding out from the log where a conversation stood when its server died.

use super::client::recalled;
use super::{
    About, Asked, Conversation, Pending, Queued, SessionEvent, SessionFace, Source, Stream, Value,
    kind,
};
use crate::message::{Class, Envelope};

impl Conversation {
    /// Takes in the entries since the first turn that is not over began, oldest first. Nobody
    /// waits for anything then: those who did are gone with the server.
    pub fn recall(&mut self, events: &[SessionEvent]) {
        for event in events {
            if event.event.stream != Stream::Log {
                continue;
            }
            if self.record.face == SessionFace::Universal {
                // Clients were told when it was written.
                let _ = self.fold.take(event.sequence, &event.event);
            }
            match event.event.kind.as_str() {
                kind::MESSAGE => self.recall_message(event),
                kind::USER => self.recall_prompt(event),
                kind::TURN_STARTED => {
                    let number = read(&event.event.payload)["turn"].as_u64();
                    self.queued.retain(|it| Some(it.turn.number) != number);
                }
                kind::AGENT_STARTED | kind::AGENT_EXITED => {
                    self.pending.clear();
                    self.asked.clear();
                }
                _ => {}
            }
        }
    }

    fn recall_message(&mut self, event: &SessionEvent) {
        let sent = event.event.wire.as_deref().unwrap_or(&event.event.payload);
        let Ok(envelope) = Envelope::parse(sent.as_bytes()) else {
            return;
        };
        let by_agent = event.event.source == Source::Agent;
        match envelope.class().clone() {
            Class::Notification { .. } => {}
            Class::Request { method, id } if by_agent => {
                let asked = Asked {
                    id: id.clone(),
                    method,
                    conversation: envelope.session().map(str::to_owned),
                    params: envelope.params().cloned().unwrap_or(Value::Null),
                    sequence: event.sequence,
                };
                self.asked.insert(id, asked);
            }
            Class::Request { method, id } => {
                let public = Envelope::parse(event.event.payload.as_bytes());
                let (original, about) = match &public {
                    Ok(public) => match public.class() {
                        Class::Request { id, .. } => (id.clone(), recalled(&method, public)),
                        _ => (id.clone(), About::Other),
                    },
                    Err(_) => (id.clone(), About::Other),
                };
                let pending = Pending {
                    waiter: None,
                    original,
                    about,
                };
                self.pending.insert(id, pending);
            }
            Class::Response { id: Some(id) } if by_agent => {
                // The log has it under the id that the client knows.
                self.pending
                    .retain(|wire, pending| *wire != id && pending.original != id);
            }
            Class::Response { id: Some(id) } => {
                self.asked.remove(&id);
            }
            Class::Response { id: None } => {}
        }
    }

    fn recall_prompt(&mut self, event: &SessionEvent) {
        let payload = read(&event.event.payload);
        let turn = payload["turn"]
            .as_u64()
            .and_then(|number| self.turns.get(&number).cloned());
        if let (Some(turn), Some(blocks)) = (turn, payload["prompt"].as_array()) {
            self.queued.push_back(Queued {
                turn,
                blocks: blocks.clone(),
                waiter: None,
            });
        }
    }
}

fn read(payload: &str) -> Value {
    serde_json::from_str(payload).unwrap_or(Value::Null)
}
