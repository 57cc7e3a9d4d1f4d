//! Going back to the end of a turn: in the same session, or in another one that begins there.

use woodfrog_acp::Mark;
use woodfrog_store::SessionAppend;
use woodfrog_types::SnapshotId;
use woodfrog_types::session::{NewSessionEvent, Source, kind};

use super::acp::new_session;
use super::{
    Code, Command, Conversation, Fault, LogEnd, NAME_BYTES_MAX, Outcome, Scope, Session,
    SessionFace, SessionId, SessionState, Sessions, StoreError, Stream, Timestamp, Turn,
    WorkspaceId, fault, json,
};

/// Entries and bytes that are copied in one transaction.
const COPY: usize = 512;
const COPY_BYTES: usize = 4 << 20;
/// Turns of a session that are copied.
const TURNS_MAX: usize = 100_000;
/// Why a session that is being made takes no prompts; nobody sees it unless that fails.
const COPYING: &str = "its copy was not finished";

impl Sessions {
    /// The session goes on from the end of a turn: in a sandbox made from the snapshot that was
    /// taken then. What came after stays in the log, marked. The sandbox that it had stays, too.
    pub async fn rewind(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        turn: u64,
    ) -> Result<Session, Fault> {
        let session = self.native(workspace, id).await?;
        let (to, snapshot) = self.turn_end(id, turn).await?;
        let sandbox = self.inner.machines.at_turn(&session, &snapshot).await?;
        let made = sandbox.clone();
        let timeout = Some(self.inner.options.request_timeout);
        let command = |reply| Command::Rewind { to, sandbox, reply };
        match self.ask(id, command, timeout).await {
            Ok(Outcome::Accepted | Outcome::Response(_) | Outcome::Failed(_)) => {
                self.fetch(workspace, id).await
            }
            Err(fault) => {
                self.inner.machines.discard(&session, &made).await;
                Err(fault)
            }
        }
    }

    /// Another session that begins as a copy of this one up to the end of a turn, in a sandbox made
    /// from the snapshot that was taken then. This one goes on as it was.
    pub async fn fork(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        turn: u64,
        name: Option<String>,
    ) -> Result<Session, Fault> {
        let source = self.native(workspace, id).await?;
        let (to, snapshot) = self.turn_end(id, turn).await?;
        if let Some(name) = &name
            && (name.is_empty() || name.len() > NAME_BYTES_MAX)
        {
            let text = format!("must have 1 to {NAME_BYTES_MAX} bytes");
            return Err(Fault::invalid("name", text));
        }
        let sandbox = self.inner.machines.at_turn(&source, &snapshot).await?;
        let scope = Scope {
            workspace: source.workspace.clone(),
            sandbox,
        };
        let copied = self.copy(&source, &scope, to, name).await;
        if copied.is_err() {
            self.inner.machines.discard(&source, &scope.sandbox).await;
        }
        copied
    }

    async fn copy(
        &self,
        source: &Session,
        scope: &Scope,
        to: Mark,
        name: Option<String>,
    ) -> Result<Session, Fault> {
        let store = &self.inner.store;
        let mut session = new_session(scope, source.face, "", &source.agent);
        session.name = name.unwrap_or_else(|| session.id.to_string());
        session.settings = source.settings.clone();
        Conversation::prepare_fork(&mut session, source);
        // Complete or over: a crash leaves one that takes no prompts.
        session.state = SessionState::Ended {
            at: session.created_at,
            reason: COPYING.to_owned(),
        };
        let inserted = store.session_insert(&session).await;
        inserted.map_err(|error| match error {
            StoreError::Constraint { .. } => {
                let text = format!("session `{}` exists already", session.name);
                Fault::new(Code::AlreadyExists, text).with_field("name")
            }
            error => fault(error, &session.id),
        })?;
        let filled = self.fill(source, &mut session, to).await;
        if filled.is_err() {
            // What stays is over, and goes as other ended ones do.
            let _ = store.session_remove(&session.id).await;
        }
        filled.map(|()| session)
    }

    /// Copies the log and the turns, then lets prompts in.
    async fn fill(&self, source: &Session, session: &mut Session, to: Mark) -> Result<(), Fault> {
        let store = &self.inner.store;
        let id = session.id.clone();
        let (_, claimed) = store
            .session_claim(&id)
            .await
            .map_err(|error| fault(error, &id))?;
        let append = |events, record, turns| SessionAppend {
            session: id.clone(),
            epoch: claimed.epoch,
            events,
            position: None,
            record,
            turns,
        };
        let begins = self.read_end(&source.id).await?.log_first;
        let mut after = begins - 1;
        while after < to.place {
            let room = usize::try_from(to.place - after).map_or(COPY, |left| left.min(COPY));
            let read = store.session_read(&source.id, Stream::Log, after, room, COPY_BYTES);
            let slice = read.await.map_err(|error| fault(error, &source.id))?;
            check_whole(&slice.end, begins, after)?;
            let Some(last) = slice.events.last() else {
                return Err(Fault::internal("a log ends before one of its turns"));
            };
            after = last.sequence;
            let events: Vec<NewSessionEvent> =
                slice.events.into_iter().map(|it| it.event).collect();
            let written = store.session_append(append(events, None, Vec::new())).await;
            written.map_err(|error| fault(error, &id))?;
        }
        // Places count from 1 again where the beginning is no longer held.
        let moved = |place: u64| place.saturating_sub(begins - 1);
        let turns = self.turns(&source.id, 0, TURNS_MAX).await?;
        let turns = turns.into_iter().filter(|turn| turn.number <= to.turn);
        let turns = turns.filter(|turn| turn.last.is_some_and(|last| last <= to.place));
        let turns: Vec<Turn> = turns
            .map(|turn| Turn {
                first: moved(turn.first),
                last: turn.last.map(moved),
                ..turn
            })
            .collect();
        let now = Timestamp::now();
        session.state = SessionState::Active;
        session.updated_at = now;
        session.generation += 1;
        let mark = json!({
            "session": source.id.as_str(),
            "turn": to.turn,
            "place": to.place,
        });
        let mark = NewSessionEvent {
            stream: Stream::Log,
            at: now,
            source: Source::Server,
            kind: kind::FORKED.to_owned(),
            author: None,
            connection: None,
            payload: mark.to_string(),
            wire: None,
        };
        let last = append(vec![mark], Some(session.clone()), turns);
        let written = store.session_append(last).await;
        written.map(drop).map_err(|error| fault(error, &id))
    }

    /// The session, if the server speaks for it in our own API.
    async fn native(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Session, Fault> {
        let session = self.fetch(workspace, id).await?;
        match session.face {
            SessionFace::Native => Ok(session),
            SessionFace::Acp | SessionFace::Universal => Err(Fault::new(
                Code::Conflict,
                "only sessions of this API have turns to go back to",
            )),
        }
    }

    /// Where a turn ends, and the snapshot that was taken then.
    async fn turn_end(&self, id: &SessionId, number: u64) -> Result<(Mark, SnapshotId), Fault> {
        let turns = match number.checked_sub(1) {
            Some(before) => self.turns(id, before, 1).await?,
            None => Vec::new(),
        };
        let turn = turns.into_iter().find(|turn| turn.number == number);
        let turn = turn.ok_or_else(|| {
            Fault::new(Code::NotFound, format!("the session has no turn {number}"))
        })?;
        let Some(last) = turn.last else {
            let text = format!("turn {number} goes on");
            return Err(Fault::new(Code::Conflict, text));
        };
        let snapshot = turn.snapshot.ok_or_else(|| {
            let text = format!(
                "turn {number} has no snapshot: it is still being taken, or the session was made \
                 without snapshots of turns"
            );
            Fault::new(Code::Conflict, text)
        })?;
        if last < self.read_end(id).await?.log_first {
            let text = format!("the log of turn {number} is no longer held");
            return Err(Fault::new(Code::Trimmed, text));
        }
        let mark = Mark {
            turn: number,
            place: last,
        };
        Ok((mark, snapshot))
    }
}

/// Entries must not go while they are copied.
fn check_whole(end: &LogEnd, begins: u64, after: u64) -> Result<(), Fault> {
    if end.log_first == begins || after + 1 >= end.log_first {
        return Ok(());
    }
    Err(Fault::new(
        Code::Trimmed,
        "the beginning of the log was dropped meanwhile; try again",
    ))
}
