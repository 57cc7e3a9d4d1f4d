//! Going on from the end of an earlier turn.

use serde_json::json;
use woodfrog_types::SandboxId;
use woodfrog_types::session::{AgentProcess, Session, SessionEvent};

use super::{
    Act, Conversation, Failure, Outcome, Phase, SessionState, Step, Timestamp, Waiter, kind,
};

/// A turn to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub turn: u64,
    /// The last place of the log that belongs to it.
    pub place: u64,
}

impl Conversation {
    /// The session goes on from the end of a turn, in a sandbox that is as its own was then.
    /// Refused while anything is under way.
    pub fn rewind(
        &mut self,
        to: Mark,
        sandbox: &SandboxId,
        waiter: Waiter,
        now: Timestamp,
    ) -> Step {
        let busy =
            self.is_busy() || !self.turns.is_empty() || matches!(self.phase, Phase::Starting);
        let mut build = self.build(now);
        if let SessionState::Ended { reason, .. } = &build.it.record.state {
            let reason = reason.clone();
            build.answer(Some(waiter), Outcome::Failed(Failure::Ended { reason }));
            return build.done();
        }
        if busy {
            build.answer(Some(waiter), Outcome::Failed(Failure::UnderWay));
            return build.done();
        }
        build.it.phase = Phase::Down;
        build.it.initializing = false;
        build.it.restoring = None;
        build.it.remembering = false;
        build.it.told.clear();
        build.it.asked.clear();
        if let Some(process) = &mut build.it.record.process {
            process.over = true;
        }
        build.it.record.sandbox = sandbox.clone();
        build.changed();
        let payload = json!({
            "turn": to.turn,
            "place": to.place,
            "sandbox": sandbox.as_str(),
        });
        build.mark(kind::REWOUND, &payload);
        build.act(Act::Stop);
        build.answer(Some(waiter), Outcome::Accepted);
        build.done()
    }

    /// Prepares the record of a session that is to begin as a copy of `source`: its agent is
    /// started anew, and takes the conversations up or is told of them.
    pub fn prepare_fork(record: &mut Session, source: &Session) {
        record.handshake = source.handshake.clone();
        record.bindings = source.bindings.clone();
        // No conversation is known to the process that will be the next one.
        record.process = source.process.clone().map(|process| AgentProcess {
            over: true,
            ..process
        });
    }
}

/// Where the conversation goes on before this entry, if the session was rewound there: what lies
/// between is no part of it.
pub fn rewound_to(event: &SessionEvent) -> Option<u64> {
    if event.event.kind != kind::REWOUND {
        return None;
    }
    let payload: serde_json::Value = serde_json::from_str(&event.event.payload).ok()?;
    // Never forward: who follows this must come to an end.
    payload["place"]
        .as_u64()
        .filter(|place| *place < event.sequence)
}
