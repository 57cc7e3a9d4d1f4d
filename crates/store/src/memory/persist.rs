//! What clients persist, in memory.

use async_trait::async_trait;
use woodfrog_types::WorkspaceId;
use woodfrog_types::page::{Page, PageRequest};

use super::{MemoryStore, cut_page};
use crate::cursor::{self, List};
use crate::{PersistStore, PersistedEvent, PersistedSession, Result, StoreError};

const EVENT: &str = "persisted event";

#[async_trait]
impl PersistStore for MemoryStore {
    async fn persist_session_put(
        &self,
        workspace: &WorkspaceId,
        session: &PersistedSession,
    ) -> Result<()> {
        let mut state = self.lock();
        let key = (workspace.clone(), session.id.clone());
        match state.persisted_sessions.get_mut(&key) {
            Some(stored) => stored.record.clone_from(&session.record),
            None => drop(state.persisted_sessions.insert(key, session.clone())),
        }
        Ok(())
    }

    async fn persist_session_fetch(
        &self,
        workspace: &WorkspaceId,
        id: &str,
    ) -> Result<Option<PersistedSession>> {
        let key = (workspace.clone(), id.to_owned());
        Ok(self.lock().persisted_sessions.get(&key).cloned())
    }

    async fn persist_session_remove(&self, workspace: &WorkspaceId, id: &str) -> Result<bool> {
        let mut state = self.lock();
        state
            .persisted_events
            .retain(|(owner, _), event| owner != workspace || event.session != id);
        let key = (workspace.clone(), id.to_owned());
        Ok(state.persisted_sessions.remove(&key).is_some())
    }

    async fn persist_session_list(
        &self,
        workspace: &WorkspaceId,
        page: &PageRequest,
    ) -> Result<Page<PersistedSession>> {
        let after = page.cursor.as_deref();
        let after = after.map(|cursor| cursor::decode_time(List::PersistedSessions, cursor));
        let after = after.transpose()?;
        let state = self.lock();
        let own = state.persisted_sessions.iter();
        let own = own.filter(|((owner, _), _)| owner == workspace);
        let mut found: Vec<PersistedSession> = own
            .map(|(_, session)| session.clone())
            .filter(|session| {
                let after = after.as_ref();
                after.is_none_or(|after| (session.created_at, &session.id) > (after.0, &after.1))
            })
            .collect();
        found.sort_by(|one, two| (one.created_at, &one.id).cmp(&(two.created_at, &two.id)));
        let limit = cursor::page_items(page);
        Ok(cut_page(found.into_iter(), limit, |last| {
            let at = last.created_at.to_string();
            cursor::encode(List::PersistedSessions, &at, &last.id)
        }))
    }

    async fn persist_event_insert(
        &self,
        workspace: &WorkspaceId,
        event: &PersistedEvent,
    ) -> Result<()> {
        let mut state = self.lock();
        let mut own = state.persisted_events.iter();
        let known = own.find(|((owner, id), stored)| {
            let place = (&stored.session, stored.index) == (&event.session, event.index);
            owner == workspace && (*id == event.id || place)
        });
        match known {
            _ if i64::try_from(event.index).is_err() => Err(StoreError::Constraint { what: EVENT }),
            None => {
                let key = (workspace.clone(), event.id.clone());
                state.persisted_events.insert(key, event.clone());
                Ok(())
            }
            Some((_, stored))
                if (&stored.id, &stored.session, stored.index)
                    == (&event.id, &event.session, event.index) =>
            {
                Ok(())
            }
            Some(_) => Err(StoreError::Constraint { what: EVENT }),
        }
    }

    async fn persist_event_list(
        &self,
        workspace: &WorkspaceId,
        session: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PersistedEvent>> {
        let state = self.lock();
        let all = state.persisted_events.iter();
        let mut found: Vec<PersistedEvent> = all
            .filter(|((owner, _), event)| owner == workspace && event.session == session)
            .map(|(_, event)| event.clone())
            .filter(|event| after.is_none_or(|after| event.index > after))
            .collect();
        found.sort_by_key(|event| event.index);
        found.truncate(limit);
        Ok(found)
    }

    async fn persist_event_last(
        &self,
        workspace: &WorkspaceId,
        session: &str,
        limit: usize,
    ) -> Result<Vec<PersistedEvent>> {
        let all = self.persist_event_list(workspace, session, None, usize::MAX);
        Ok(all.await?.into_iter().rev().take(limit).collect())
    }

    async fn persist_event_count(&self, workspace: &WorkspaceId, session: &str) -> Result<u64> {
        let state = self.lock();
        let own = state.persisted_events.iter();
        let own = own.filter(|((owner, _), event)| owner == workspace && event.session == session);
        Ok(u64::try_from(own.count()).unwrap_or(u64::MAX))
    }
}
