//! Sandboxes in memory.

use std::time::Duration;

use async_trait::async_trait;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox::{Order, Sandbox, SandboxFilter, SandboxState};
use woodfrog_types::{SandboxId, Timestamp, WorkspaceId};

use super::events::append;
use super::{MemoryStore, cut_page};
use crate::cursor::{self, List};
use crate::{NewEvent, Recovery, Result, SandboxStore, StoreError};

const WHAT: &str = "sandbox";

#[async_trait]
impl SandboxStore for MemoryStore {
    async fn sandbox_insert(&self, sandbox: &Sandbox, events: Vec<NewEvent>) -> Result<()> {
        let mut state = self.lock();
        if sandbox.generation != 1 {
            return Err(StoreError::Conflict { what: WHAT });
        }
        if state.sandboxes.contains_key(&sandbox.id) {
            return Err(StoreError::Constraint { what: WHAT });
        }
        state
            .sandboxes
            .insert(sandbox.id.clone(), to_millis(sandbox));
        append(&mut state, &sandbox.id, events);
        Ok(())
    }

    async fn sandbox_update(&self, sandbox: &Sandbox, events: Vec<NewEvent>) -> Result<()> {
        let mut state = self.lock();
        let Some(stored) = state.sandboxes.get_mut(&sandbox.id) else {
            return Err(StoreError::NotFound { what: WHAT });
        };
        if sandbox.generation.checked_sub(1) != Some(stored.generation) {
            return Err(StoreError::Conflict { what: WHAT });
        }
        *stored = to_millis(sandbox);
        append(&mut state, &sandbox.id, events);
        Ok(())
    }

    async fn sandbox_remove(&self, id: &SandboxId, events: Vec<NewEvent>) -> Result<()> {
        let mut state = self.lock();
        if state.sandboxes.remove(id).is_some() {
            append(&mut state, id, events);
        }
        Ok(())
    }

    async fn sandbox_fetch(&self, id: &SandboxId) -> Result<Option<Sandbox>> {
        Ok(self.lock().sandboxes.get(id).cloned())
    }

    async fn sandbox_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SandboxFilter,
        page: &PageRequest,
    ) -> Result<Page<Sandbox>> {
        let after = page
            .cursor
            .as_deref()
            .map(|cursor| cursor::decode_time(List::Sandboxes, cursor))
            .transpose()?;
        let state = self.lock();
        let mut found: Vec<&Sandbox> = state
            .sandboxes
            .values()
            .filter(|sandbox| sandbox.workspace == *workspace && matches(sandbox, filter))
            .collect();
        found.sort_by_key(|sandbox| sort_key(sandbox));
        if filter.order == Order::NewestFirst {
            found.reverse();
        }
        let rest = found
            .into_iter()
            .filter(|sandbox| match (&after, filter.order) {
                (None, _) => true,
                (Some(after), Order::OldestFirst) => sort_key(sandbox) > *after,
                (Some(after), Order::NewestFirst) => sort_key(sandbox) < *after,
            })
            .cloned();
        Ok(cut_page(rest, cursor::page_items(page), |last| {
            let (at, id) = sort_key(last);
            cursor::encode(List::Sandboxes, &at.to_string(), &id)
        }))
    }

    async fn sandbox_all(&self) -> Result<Vec<Sandbox>> {
        Ok(self.lock().sandboxes.values().cloned().collect())
    }

    async fn sandbox_recover(&self) -> Result<Recovery> {
        let state = self.lock();
        let damaged = &state.damaged;
        let readable = |sandbox: &&Sandbox| {
            damaged
                .iter()
                .all(|one| one.id.as_ref() != Some(&sandbox.id))
        };
        Ok(Recovery {
            sandboxes: state.sandboxes.values().filter(readable).cloned().collect(),
            damaged: damaged.clone(),
        })
    }

    async fn sandbox_due(&self, now: Timestamp, limit: usize) -> Result<Vec<SandboxId>> {
        let state = self.lock();
        let mut due: Vec<_> = state
            .sandboxes
            .values()
            .filter_map(|sandbox| Some((running_deadline(sandbox)?, &sandbox.id)))
            .filter(|(deadline, _)| *deadline <= now)
            .collect();
        due.sort();
        Ok(due
            .into_iter()
            .take(limit)
            .map(|(_, id)| id.clone())
            .collect())
    }

    async fn sandbox_next_deadline(&self) -> Result<Option<Timestamp>> {
        let state = self.lock();
        Ok(state.sandboxes.values().filter_map(running_deadline).min())
    }

    async fn sandbox_count(&self, workspace: &WorkspaceId) -> Result<u64> {
        let state = self.lock();
        let count = state
            .sandboxes
            .values()
            .filter(|sandbox| sandbox.workspace == *workspace && !is_deleting(sandbox))
            .count();
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }
}

/// The record as a store keeps it: durations in whole milliseconds.
fn to_millis(sandbox: &Sandbox) -> Sandbox {
    let timeout = sandbox
        .timeout
        .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
        .map(Duration::from_millis);
    Sandbox {
        timeout,
        ..sandbox.clone()
    }
}

fn sort_key(sandbox: &Sandbox) -> (i64, String) {
    (
        sandbox.started_at.as_millis(),
        sandbox.id.as_str().to_owned(),
    )
}

fn is_deleting(sandbox: &Sandbox) -> bool {
    matches!(sandbox.state, SandboxState::Deleting { .. })
}

fn running_deadline(sandbox: &Sandbox) -> Option<Timestamp> {
    match sandbox.state {
        SandboxState::Running { .. } => sandbox.deadline,
        SandboxState::Creating | SandboxState::Deleting { .. } => None,
    }
}

fn matches(sandbox: &Sandbox, filter: &SandboxFilter) -> bool {
    !is_deleting(sandbox)
        && filter
            .template
            .as_ref()
            .is_none_or(|template| sandbox.template == *template)
        && filter
            .started_after
            .is_none_or(|after| sandbox.started_at > after)
        && filter
            .metadata
            .iter()
            .all(|(key, value)| sandbox.metadata.get(key) == Some(value))
}
