//! Taking a session over: from the store, and from the agent process if it is still there.

use std::collections::HashMap;

use tokio::sync::mpsc;
use woodfrog_acp::{AgentEnd, Conversation, Options};
use woodfrog_types::session::{LogEnd, Session, SessionEvent, Stream, Turn, kind};
use woodfrog_types::{Code, Fault, SessionId, Timestamp};

use super::{Command, Means, Owner, Silence, fault, sent};
use crate::agent::{self, Agent, Reached};

/// Entries of one read.
const PAGE: usize = 512;
/// Bytes of one read.
const PAGE_BYTES: usize = 4 << 20;
/// Turns looked at for those that are not over.
const TURNS: usize = 100_000;
/// Entries looked at for input that the process was not given.
const UNSENT_MAX: usize = 4096;

/// Opens the session and serves it until nobody needs it.
pub(super) async fn open_and_run(
    id: &SessionId,
    means: Means,
    mut commands: mpsc::Receiver<Command>,
) -> Result<(), Fault> {
    match open(id, means).await {
        Ok(owner) => owner.run(commands).await,
        Err(fault) => {
            // Those who asked learn that it did not go; the next ones get another owner.
            commands.close();
            while commands.try_recv().is_ok() {}
            Err(fault)
        }
    }
}

async fn open(id: &SessionId, means: Means) -> Result<Owner, Fault> {
    let claimed = means.store.session_claim(id).await;
    let (session, end) = claimed.map_err(|error| fault(error, id))?;
    means.hub.learn(end);
    let turns = means.store.session_turns(id, 0, TURNS).await;
    let turns = turns.map_err(|error| fault(error, id))?;
    let last_turn = turns.last().map_or(0, |turn| turn.number);
    let open: Vec<Turn> = turns.into_iter().filter(|it| it.last.is_none()).collect();
    let options = Options {
        replay: means.replay,
        allow_all: allows_all(&session),
    };
    let since = open.iter().map(|turn| turn.first).min();
    let mut conversation = Conversation::new(session.clone(), end, open, last_turn, options);
    if let Some(first) = since {
        recall(&mut conversation, id, &means, first, &end).await?;
    }
    let request_timeout = means.request_timeout;
    let mut owner = Owner {
        id: id.clone(),
        means,
        conversation,
        epoch: end.epoch,
        agent: None,
        starting: None,
        waiters: HashMap::new(),
        next_waiter: 0,
        silence: Silence::new(request_timeout),
        away: false,
        finished: Vec::new(),
    };
    owner.reattach(&session, &end).await?;
    Ok(owner)
}

/// Whether the session's settings let the agent do what it wants.
fn allows_all(session: &Session) -> bool {
    let settings: serde_json::Value =
        serde_json::from_str(&session.settings).unwrap_or(serde_json::Value::Null);
    settings["permissions"] == "bypass"
}

async fn recall(
    conversation: &mut Conversation,
    id: &SessionId,
    means: &Means,
    first: u64,
    end: &LogEnd,
) -> Result<(), Fault> {
    let mut after = first.saturating_sub(1);
    while after < end.log {
        let read = means
            .store
            .session_read(id, Stream::Log, after, PAGE, PAGE_BYTES)
            .await;
        let slice = read.map_err(|error| fault(error, id))?;
        let Some(last) = slice.events.last() else {
            return Ok(());
        };
        after = last.sequence;
        conversation.recall(&slice.events);
    }
    Ok(())
}

impl Owner {
    /// Listens to the process of the record again, and gives it what it was not given.
    async fn reattach(&mut self, session: &Session, end: &LogEnd) -> Result<(), Fault> {
        let Some(process) = session.process.as_ref().filter(|process| !process.over) else {
            return self.without_agent("").await;
        };
        let reached = Reached {
            machines: self.means.machines.clone(),
            sandbox: session.sandbox.clone(),
        };
        let attached = async {
            match agent::is_of(&reached, process.id, &self.id).await? {
                true => Agent::attach(&reached, process.id, end.position.output).await,
                false => Ok(None),
            }
        };
        match attached.await {
            Ok(Some(agent)) => {
                self.resend(&agent, end).await?;
                self.agent = Some(agent);
                let step = self.conversation.resumed(Timestamp::now());
                self.carry_out(step).await
            }
            Ok(None) => self.without_agent("gone when the server came back").await,
            Err(fault) if fault.code == Code::SandboxNotFound => {
                self.without_agent("its sandbox is gone").await
            }
            Err(fault) => Err(fault),
        }
    }

    /// Goes on without a process: the next message starts one.
    async fn without_agent(&mut self, status: &str) -> Result<(), Fault> {
        let known = self.conversation.record().process.clone();
        if known.is_none_or(|process| process.over) && !self.conversation.is_busy() {
            return Ok(());
        }
        let end = AgentEnd {
            code: None,
            status: status.to_owned(),
            stderr: Vec::new(),
        };
        let step = self.conversation.exited(&end, Timestamp::now());
        self.carry_out(step).await
    }

    /// What the log holds for the process and the process was not given.
    async fn resend(&self, agent: &Agent, end: &LogEnd) -> Result<(), Fault> {
        let given = match agent.given().await {
            Ok(given) => given,
            // It has ended, or does not read: its reader tells.
            Err(error) => {
                tracing::debug!(session = %self.id, %error, "an agent's input is not to be reached");
                return Ok(());
            }
        };
        if given >= end.position.input {
            return Ok(());
        }
        let read = self
            .means
            .store
            .session_read_back(&self.id, Stream::Log, end.log, UNSENT_MAX)
            .await;
        let slice = read.map_err(|error| fault(error, &self.id))?;
        for (at, line) in unsent(&slice.events, end.position.input, given) {
            agent.send(at, line);
        }
        Ok(())
    }
}

/// The lines of which the process does not have all, with their places, oldest first. `newest_first`
/// ends where its input began.
fn unsent(newest_first: &[SessionEvent], mut input: u64, given: u64) -> Vec<(u64, String)> {
    let mut lines = Vec::new();
    for event in newest_first {
        if input <= given || event.event.kind == kind::AGENT_STARTED {
            break;
        }
        if let Some(line) = sent(event) {
            input = input.saturating_sub(line.len() as u64);
            lines.push((input, line));
        }
    }
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use woodfrog_types::session::{NewSessionEvent, Source};

    use super::*;

    fn message(source: Source, kind: &str, payload: &str) -> SessionEvent {
        SessionEvent {
            session: SessionId::generate(),
            sequence: 0,
            event: NewSessionEvent {
                stream: Stream::Log,
                at: Timestamp::from_millis(0),
                source,
                kind: kind.to_owned(),
                author: None,
                connection: None,
                payload: payload.to_owned(),
                wire: None,
            },
        }
    }

    #[test]
    fn what_the_process_lacks_is_found() {
        let newest_first = [
            message(Source::Client, kind::MESSAGE, "third"),
            message(Source::Agent, kind::MESSAGE, "said"),
            message(Source::Client, kind::UNMATCHED, "never sent"),
            message(Source::Server, kind::HANDSHAKE, "second"),
            message(Source::Client, kind::MESSAGE, "first"),
            message(Source::Server, kind::AGENT_STARTED, "{}"),
            message(Source::Client, kind::MESSAGE, "to the one before"),
        ];
        // "first\n" is 6 bytes, "second\n" 7, "third\n" 6.
        let all = unsent(&newest_first, 19, 0);
        assert_eq!(all.iter().map(|it| it.0).collect::<Vec<_>>(), [0, 6, 13]);
        assert_eq!(unsent(&newest_first, 19, 8).len(), 2);
        assert_eq!(unsent(&newest_first, 19, 13), [(13, "third\n".to_owned())]);
        assert!(unsent(&newest_first, 19, 19).is_empty());
    }
}
