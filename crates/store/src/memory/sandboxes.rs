//! Sandboxes in memory.

use std::time::Duration;

use async_trait::async_trait;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::run::RUN_LABEL;
use woodfrog_types::sandbox::{Order, Sandbox, SandboxFilter, SandboxState};
use woodfrog_types::sleep::SleepPolicy;
use woodfrog_types::{SandboxId, Timestamp, WorkspaceId};

use super::events::append;
use super::{MemoryStore, State, cut_page};
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
        self.lease_new(&mut state, &sandbox.id);
        Ok(())
    }

    async fn sandbox_update(&self, sandbox: &Sandbox, events: Vec<NewEvent>) -> Result<()> {
        let mut state = self.lock();
        check_update(&state, sandbox)?;
        self.fence(&state, &sandbox.id, WHAT)?;
        replace(&mut state, sandbox, events);
        Ok(())
    }

    async fn sandbox_remove(&self, id: &SandboxId, events: Vec<NewEvent>) -> Result<()> {
        let mut state = self.lock();
        self.fence(&state, id, WHAT)?;
        if state.sandboxes.remove(id).is_some() {
            state.holds.remove(id);
            super::sandbox_sessions::end(&mut state, id, &events);
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

    async fn sandbox_of_runs(
        &self,
        after: Option<&SandboxId>,
        limit: usize,
    ) -> Result<Vec<Sandbox>> {
        let state = self.lock();
        let found = state.sandboxes.values().filter(|sandbox| {
            sandbox.metadata.contains_key(RUN_LABEL)
                && after.is_none_or(|after| sandbox.id > *after)
        });
        Ok(found.take(limit).cloned().collect())
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
            sandboxes: state
                .sandboxes
                .values()
                .filter(readable)
                .filter(|sandbox| self.has(&state, &sandbox.id))
                .cloned()
                .collect(),
            damaged: damaged.clone(),
        })
    }

    async fn sandbox_due(&self, now: Timestamp, limit: usize) -> Result<Vec<SandboxId>> {
        let state = self.lock();
        let mut due: Vec<_> = state
            .sandboxes
            .values()
            .filter_map(|sandbox| Some((sandbox.due()?, &sandbox.id)))
            .filter(|(deadline, _)| *deadline <= now)
            .filter(|(_, id)| !self.is_elsewhere(&state, id))
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
        let all = state.sandboxes.values();
        let ours = all.filter(|sandbox| !self.is_elsewhere(&state, &sandbox.id));
        Ok(ours.filter_map(Sandbox::due).min())
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

    async fn sandbox_count_running(&self, workspace: &WorkspaceId) -> Result<u64> {
        let state = self.lock();
        let ours = state.sandboxes.values();
        let ours = ours.filter(|one| one.workspace == *workspace && !is_deleting(one));
        let count = ours.filter(|one| !one.state.is_kept_asleep()).count();
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }
}

/// Whether the sandbox may replace what is stored.
pub(super) fn check_update(state: &State, sandbox: &Sandbox) -> Result<()> {
    let Some(stored) = state.sandboxes.get(&sandbox.id) else {
        return Err(StoreError::NotFound { what: WHAT });
    };
    if sandbox.generation.checked_sub(1) != Some(stored.generation) {
        return Err(StoreError::Conflict { what: WHAT });
    }
    Ok(())
}

/// Replaces what is stored.
pub(super) fn replace(state: &mut State, sandbox: &Sandbox, events: Vec<NewEvent>) {
    state
        .sandboxes
        .insert(sandbox.id.clone(), to_millis(sandbox));
    append(state, &sandbox.id, events);
}

/// The record as a store keeps it: durations in whole milliseconds.
fn to_millis(sandbox: &Sandbox) -> Sandbox {
    let whole = |duration: Option<Duration>| {
        let millis = duration.map(|duration| u64::try_from(duration.as_millis()));
        millis.map(|millis| Duration::from_millis(millis.unwrap_or(u64::MAX)))
    };
    Sandbox {
        timeout: whole(sandbox.timeout),
        sleep: SleepPolicy {
            pause_after: whole(sandbox.sleep.pause_after),
            hibernate_after: whole(sandbox.sleep.hibernate_after),
            archive_after: whole(sandbox.sleep.archive_after),
            delete_after: whole(sandbox.sleep.delete_after),
            fallback: sandbox.sleep.fallback,
            checkpoint_every: whole(sandbox.sleep.checkpoint_every),
        },
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

fn matches(sandbox: &Sandbox, filter: &SandboxFilter) -> bool {
    let state = match filter.states.as_slice() {
        [] => !is_deleting(sandbox),
        states => states.contains(&sandbox.state.as_str()),
    };
    state
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
