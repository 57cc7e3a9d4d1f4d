//! A prompt: a turn of an agent in a session.

use std::future::Future;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use woodfrog_core::run::convert::{Turn, turn_tokens};
use woodfrog_core::run::event::Said;
use woodfrog_sessions::acp::Prompt;
use woodfrog_sessions::{Batch, NewSession, Reader, Scope};
use woodfrog_types::run::{Run, RunEventKind, RunPosition};
use woodfrog_types::session::{SessionEvent, SessionFace, SessionState, Source, Stream, kind};
use woodfrog_types::usage::Tokens;
use woodfrog_types::{Code, Fault, SandboxId, SessionId, WorkspaceId};

use super::{Heard, Look, WorkEnd};
use crate::service::Inner;

/// Turns that are looked through for the run's own, at a time.
const TURNS: usize = 1000;

/// The session that a run wants.
pub(crate) struct Wanted<'a> {
    pub(crate) sandbox: &'a SandboxId,
    pub(crate) agent: &'a str,
    pub(crate) model: Option<&'a str>,
    /// That of its thread, if there is one.
    pub(crate) shared: Option<SessionId>,
}

/// Who prompts, in the session's log: a run finds its own turn again by it.
fn author(run: &Run) -> String {
    format!("run:{}", run.id)
}

/// The session of the run's thread if it goes on, else a new one.
pub(crate) async fn session(
    inner: &Inner,
    run: &Run,
    wanted: Wanted<'_>,
) -> Result<SessionId, Fault> {
    for known in run.session.iter().chain(&wanted.shared) {
        let view = inner.sessions.show(&run.workspace, known).await;
        if view.is_ok_and(|view| view.session.state == SessionState::Active) {
            return Ok(known.clone());
        }
    }
    let scope = Scope {
        workspace: run.workspace.clone(),
        sandbox: wanted.sandbox.clone(),
    };
    let access = inner.engine.access(wanted.sandbox).await?;
    let cwd = run.setup.cwd.clone().or(access.default_workdir);
    let new = NewSession {
        face: SessionFace::Native,
        name: None,
        agent: wanted.agent.to_owned(),
        cwd,
        mcp_servers: Vec::new(),
        settings: json!({
            // Nobody is there to be asked.
            "permissions": "bypass",
            "snapshots": "none",
            "template": null,
            "env": run.setup.env,
            "secrets": run.setup.secrets,
            "run": run.id.to_string(),
        }),
    };
    let session = inner.sessions.create(&scope, new).await?.id;
    if let Some(model) = wanted.model {
        let params = json!({"modelId": model});
        inner
            .sessions
            .request(&session, "session/set_model", params, Some(author(run)))
            .await?;
    }
    Ok(session)
}

/// Prompts, unless a try before did. The place in the session's log before the turn.
pub(crate) async fn post(inner: &Inner, run: &Run, input: &str) -> Result<u64, Fault> {
    let session = run.session.as_ref();
    let session = session.ok_or_else(|| Fault::internal("a prompt without a session"))?;
    if let Some(turn) = own_turn(inner, run, session).await? {
        return Ok(turn.first.saturating_sub(1));
    }
    let prompt = Prompt {
        blocks: vec![json!({"type": "text", "text": input})],
        author: Some(author(run)),
    };
    inner.sessions.post(session, prompt).await?;
    let turn = own_turn(inner, run, session).await?;
    let turn = turn.ok_or_else(|| Fault::internal("a prompt without a turn"))?;
    Ok(turn.first.saturating_sub(1))
}

async fn own_turn(
    inner: &Inner,
    run: &Run,
    session: &SessionId,
) -> Result<Option<woodfrog_types::session::Turn>, Fault> {
    let author = author(run);
    let mut after = 0;
    loop {
        let turns = inner.sessions.turns(session, after, TURNS).await?;
        let Some(last) = turns.last() else {
            return Ok(None);
        };
        after = last.number;
        let mut turns = turns.into_iter();
        if let Some(own) = turns.find(|it| it.author.as_deref() == Some(&author)) {
            return Ok(Some(own));
        }
    }
}

/// Listens to the run's turn. What is in the run's log already is read again, silently: what the
/// turn is about began there.
pub(super) async fn listen(
    inner: &Arc<Inner>,
    run: &Run,
    session: &SessionId,
    tell: mpsc::Sender<Heard>,
) -> Result<impl Future<Output = ()> + Send + use<>, Fault> {
    let turn = own_turn(inner, run, session).await?;
    let turn = turn.ok_or_else(|| Fault::new(Code::Conflict, "the run's turn is gone"))?;
    let view = inner.sessions.show(&run.workspace, session).await?;
    inner.sessions.attend(&view.session).await;
    let first = turn.first.saturating_sub(1);
    let reader = inner.sessions.follow(session, Stream::Log, first);
    let mut following = Following {
        turn: Turn::default(),
        number: turn.number,
        begun: false,
        known: run.position.log,
    };
    Ok(async move {
        let end = following.follow(reader, &tell).await;
        // Nobody may listen any more.
        let _ = tell.send(Heard::End(end)).await;
    })
}

struct Following {
    turn: Turn,
    number: u64,
    begun: bool,
    /// Up to this place the run's log has it.
    known: u64,
}

impl Following {
    async fn follow(&mut self, mut reader: Reader, tell: &mpsc::Sender<Heard>) -> WorkEnd {
        loop {
            let events = match reader.next().await {
                Ok(Batch::Events(events)) => events,
                Ok(Batch::Gap { .. } | Batch::Ephemeral(_)) => continue,
                Err(fault) => {
                    return WorkEnd::Lost {
                        reason: fault.message,
                    };
                }
            };
            for event in events {
                let (said, used, end) = self.event(&event);
                if event.sequence > self.known {
                    let at = RunPosition {
                        log: event.sequence,
                        ..RunPosition::default()
                    };
                    let heard = Heard::Said { said, at, used };
                    if tell.send(heard).await.is_err() {
                        return WorkEnd::Lost {
                            reason: "nobody listens".to_owned(),
                        };
                    }
                }
                if let Some(end) = end {
                    return end;
                }
            }
        }
    }

    fn event(
        &mut self,
        event: &SessionEvent,
    ) -> (Vec<Said>, Option<(String, Tokens)>, Option<WorkEnd>) {
        let payload: Value = serde_json::from_str(&event.event.payload).unwrap_or_default();
        let own = payload["turn"].as_u64() == Some(self.number);
        match (event.event.kind.as_str(), event.event.source) {
            (kind::TURN_STARTED, _) if own => self.begun = true,
            (kind::TURN_ENDED, _) if own => {
                let said = self.turn.rest();
                let tokens = turn_tokens(&payload["usage"]);
                let used = tokens.map(|tokens| ("turn".to_owned(), tokens));
                let end = WorkEnd::Turn {
                    outcome: payload["outcome"].as_str().unwrap_or("error").to_owned(),
                    answer: self.turn.answer().to_owned(),
                };
                return (said, used, Some(end));
            }
            (kind::SESSION_ENDED, _) => {
                let reason = "its session was ended".to_owned();
                return (Vec::new(), None, Some(WorkEnd::Lost { reason }));
            }
            (kind::AGENT_EXITED, _) if self.begun => {
                let lines = payload["stderr"].as_array().into_iter().flatten();
                let said = lines.filter_map(Value::as_str).map(|line| {
                    let data = json!({"stream": "stderr", "text": line});
                    Said::new(RunEventKind::Raw, data)
                });
                return (said.collect(), None, None);
            }
            (kind::MESSAGE, Source::Agent) if self.begun => {
                if payload["method"] == "session/update" {
                    let said = self.turn.update(&payload["params"]["update"]);
                    return (said, None, None);
                }
                if let Some(message) = payload["error"]["message"].as_str() {
                    let data = json!({"stream": "stderr", "text": message});
                    return (vec![Said::new(RunEventKind::Raw, data)], None, None);
                }
            }
            _ => {}
        }
        (Vec::new(), None, None)
    }
}

/// Whether the agent is there. One that ended tells so in the log.
pub(super) async fn lives(inner: &Inner, workspace: &WorkspaceId, session: &SessionId) -> Look {
    match inner.sessions.show(workspace, session).await {
        Ok(view) if view.running => Look::Lives,
        Ok(_) | Err(_) => Look::Unknown,
    }
}

/// Asks the agent to stop its turn.
pub(super) async fn stop(inner: &Inner, run: &Run, session: &SessionId) {
    let stopped = inner.sessions.cancel(session, Some(author(run))).await;
    if let Err(fault) = stopped {
        tracing::debug!(run = %run.id, %fault, "the agent was not asked to stop");
    }
}
