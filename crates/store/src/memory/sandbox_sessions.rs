//! Sandbox sessions in memory.

use std::time::Duration;

use async_trait::async_trait;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox_session::{SandboxSession, SandboxSessionFilter, SessionState};
use woodfrog_types::{SandboxId, SandboxSessionId, Timestamp, WorkspaceId};

use super::{MemoryStore, State, cut_page};
use crate::cursor::{self, List};
use crate::{NewEvent, Result, SandboxSessionStore, StoreError};

const WHAT: &str = "sandbox session";

#[async_trait]
impl SandboxSessionStore for MemoryStore {
    async fn sandbox_session_insert(&self, session: &SandboxSession) -> Result<()> {
        let mut state = self.lock();
        if !state.sandboxes.contains_key(&session.sandbox) {
            return Err(StoreError::NotFound { what: "sandbox" });
        }
        let taken =
            |other: &SandboxSession| other.id == session.id || other.sandbox == session.sandbox;
        if state.sandbox_sessions.values().any(taken) {
            return Err(StoreError::Constraint { what: WHAT });
        }
        let millis = u64::try_from(session.auto_pause.as_millis()).unwrap_or(u64::MAX);
        let session = SandboxSession {
            auto_pause: Duration::from_millis(millis),
            ..session.clone()
        };
        state.sandbox_sessions.insert(session.id.clone(), session);
        Ok(())
    }

    async fn sandbox_session_touch(&self, id: &SandboxSessionId, at: Timestamp) -> Result<()> {
        let mut state = self.lock();
        let session = state.sandbox_sessions.get_mut(id);
        let session = session.ok_or(StoreError::NotFound { what: WHAT })?;
        session.last_activity = session.last_activity.max(at);
        session.updated_at = session.updated_at.max(at);
        Ok(())
    }

    async fn sandbox_session_remove(&self, id: &SandboxSessionId) -> Result<bool> {
        Ok(self.lock().sandbox_sessions.remove(id).is_some())
    }

    async fn sandbox_session_fetch(&self, id: &SandboxSessionId) -> Result<Option<SandboxSession>> {
        Ok(self.lock().sandbox_sessions.get(id).cloned())
    }

    async fn sandbox_session_of(&self, sandbox: &SandboxId) -> Result<Option<SandboxSession>> {
        let state = self.lock();
        let mut all = state.sandbox_sessions.values();
        Ok(all.find(|session| session.sandbox == *sandbox).cloned())
    }

    async fn sandbox_session_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SandboxSessionFilter,
        page: &PageRequest,
    ) -> Result<Page<SandboxSession>> {
        let after = page
            .cursor
            .as_deref()
            .map(|cursor| cursor::decode_time(List::SandboxSessions, cursor))
            .transpose()?;
        let state = self.lock();
        let mut found: Vec<&SandboxSession> = state
            .sandbox_sessions
            .values()
            .filter(|session| session.workspace == *workspace && matches(&state, session, filter))
            .filter(|session| {
                let after = after.as_ref();
                after.is_none_or(|after| sort_key(session) > *after)
            })
            .collect();
        found.sort_by_key(|session| sort_key(session));
        let found = found.into_iter().cloned();
        Ok(cut_page(found, cursor::page_items(page), |last| {
            let (at, id) = sort_key(last);
            cursor::encode(List::SandboxSessions, &at.to_string(), &id)
        }))
    }

    async fn sandbox_session_trim(&self, before: Timestamp, limit: usize) -> Result<u64> {
        let mut state = self.lock();
        let mut old: Vec<_> = state
            .sandbox_sessions
            .values()
            .filter_map(|session| Some((session.ended_at?, session.id.clone())))
            .filter(|(ended_at, _)| *ended_at < before)
            .collect();
        old.sort();
        old.truncate(limit);
        for (_, id) in &old {
            state.sandbox_sessions.remove(id);
        }
        Ok(u64::try_from(old.len()).unwrap_or(u64::MAX))
    }
}

/// The session of a sandbox that is removed ends.
pub(super) fn end(state: &mut State, sandbox: &SandboxId, events: &[NewEvent]) {
    let at = events.last().map_or_else(Timestamp::now, |event| event.at);
    let mut all = state.sandbox_sessions.values_mut();
    if let Some(session) = all.find(|session| session.sandbox == *sandbox) {
        session.ended_at = Some(at);
    }
}

fn sort_key(session: &SandboxSession) -> (i64, String) {
    (
        session.created_at.as_millis(),
        session.id.as_str().to_owned(),
    )
}

fn matches(state: &State, session: &SandboxSession, filter: &SandboxSessionFilter) -> bool {
    let SandboxSessionFilter {
        project,
        user,
        state: wanted,
    } = filter;
    let sandbox = state.sandboxes.get(&session.sandbox);
    let is = sandbox.map_or(SessionState::Killed, |sandbox| {
        SessionState::of(&sandbox.state)
    });
    project
        .as_ref()
        .is_none_or(|project| session.project == *project)
        && user.as_ref().is_none_or(|user| session.user == *user)
        && wanted.is_none_or(|wanted| is == wanted)
}
