//! Snapshots in memory.

use async_trait::async_trait;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::snapshot::{Snapshot, SnapshotFilter, SnapshotPurpose, SnapshotState};
use woodfrog_types::{SnapshotId, WorkspaceId};

use super::{MemoryStore, State, cut_page};
use crate::cursor::{self, List};
use crate::{NewEvent, Result, SnapshotStore, StoreError};

const WHAT: &str = "snapshot";

#[async_trait]
impl SnapshotStore for MemoryStore {
    async fn snapshot_insert(&self, snapshot: &Snapshot) -> Result<()> {
        let mut state = self.lock();
        insert(&mut state, snapshot)?;
        self.wrote_snapshot(&mut state, &snapshot.id);
        Ok(())
    }

    async fn snapshot_update(&self, snapshot: &Snapshot) -> Result<()> {
        let mut state = self.lock();
        update(&mut state, snapshot)?;
        self.wrote_snapshot(&mut state, &snapshot.id);
        Ok(())
    }

    async fn sandbox_update_with_snapshot(
        &self,
        sandbox: &Sandbox,
        events: Vec<NewEvent>,
        snapshot: &Snapshot,
    ) -> Result<()> {
        let mut state = self.lock();
        super::sandboxes::check_update(&state, sandbox)?;
        self.fence(&state, &sandbox.id, "sandbox")?;
        match snapshot.generation {
            1 => insert(&mut state, snapshot)?,
            _ => update(&mut state, snapshot)?,
        }
        super::sandboxes::replace(&mut state, sandbox, events);
        self.wrote_snapshot(&mut state, &snapshot.id);
        Ok(())
    }

    async fn snapshot_remove(&self, id: &SnapshotId) -> Result<()> {
        self.lock().snapshots.remove(id);
        Ok(())
    }

    async fn snapshot_fetch(&self, id: &SnapshotId) -> Result<Option<Snapshot>> {
        Ok(self.lock().snapshots.get(id).cloned())
    }

    async fn snapshot_by_name(
        &self,
        workspace: &WorkspaceId,
        name: &str,
    ) -> Result<Option<Snapshot>> {
        Ok(named(&self.lock(), workspace, name).cloned())
    }

    async fn snapshot_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SnapshotFilter,
        page: &PageRequest,
    ) -> Result<Page<Snapshot>> {
        let after = page
            .cursor
            .as_deref()
            .map(|cursor| cursor::decode_time(List::Snapshots, cursor))
            .transpose()?;
        let state = self.lock();
        let mut found: Vec<&Snapshot> = state
            .snapshots
            .values()
            .filter(|snapshot| snapshot.workspace == *workspace && matches(snapshot, filter))
            .filter(|snapshot| {
                after
                    .as_ref()
                    .is_none_or(|after| sort_key(snapshot) < *after)
            })
            .collect();
        found.sort_by_key(|snapshot| std::cmp::Reverse(sort_key(snapshot)));
        Ok(cut_page(
            found.into_iter().cloned(),
            cursor::page_items(page),
            |last| {
                let (at, id) = sort_key(last);
                cursor::encode(List::Snapshots, &at.to_string(), &id)
            },
        ))
    }

    async fn snapshot_all(&self) -> Result<Vec<Snapshot>> {
        Ok(self.lock().snapshots.values().cloned().collect())
    }

    async fn snapshot_usage(&self, workspace: &WorkspaceId) -> Result<u64> {
        let state = self.lock();
        let own = state.snapshots.values().filter(|snapshot| {
            snapshot.workspace == *workspace && snapshot.state != SnapshotState::Deleting
        });
        Ok(own
            .map(|snapshot| snapshot.size.written_bytes + snapshot.size.disk_bytes)
            .sum())
    }
}

fn sort_key(snapshot: &Snapshot) -> (i64, String) {
    (
        snapshot.created_at.as_millis(),
        snapshot.id.as_str().to_owned(),
    )
}

fn named<'a>(state: &'a State, workspace: &WorkspaceId, name: &str) -> Option<&'a Snapshot> {
    state.snapshots.values().find(|snapshot| {
        snapshot.workspace == *workspace
            && snapshot.name.as_deref() == Some(name)
            && snapshot.state != SnapshotState::Deleting
    })
}

fn check_name(state: &State, snapshot: &Snapshot) -> Result<()> {
    let Some(name) = &snapshot.name else {
        return Ok(());
    };
    match named(state, &snapshot.workspace, name) {
        Some(other) if other.id != snapshot.id && snapshot.state != SnapshotState::Deleting => {
            Err(StoreError::Constraint { what: WHAT })
        }
        _ => Ok(()),
    }
}

fn insert(state: &mut State, snapshot: &Snapshot) -> Result<()> {
    if snapshot.generation != 1 {
        return Err(StoreError::Conflict { what: WHAT });
    }
    if state.snapshots.contains_key(&snapshot.id) {
        return Err(StoreError::Constraint { what: WHAT });
    }
    check_name(state, snapshot)?;
    state
        .snapshots
        .insert(snapshot.id.clone(), snapshot.clone());
    Ok(())
}

fn update(state: &mut State, snapshot: &Snapshot) -> Result<()> {
    let stored = state
        .snapshots
        .get(&snapshot.id)
        .ok_or(StoreError::NotFound { what: WHAT })?;
    if stored.generation + 1 != snapshot.generation {
        return Err(StoreError::Conflict { what: WHAT });
    }
    check_name(state, snapshot)?;
    state
        .snapshots
        .insert(snapshot.id.clone(), snapshot.clone());
    Ok(())
}

fn matches(snapshot: &Snapshot, filter: &SnapshotFilter) -> bool {
    let SnapshotFilter {
        source,
        name,
        labels,
        internal,
    } = filter;
    snapshot.state != SnapshotState::Deleting
        && (*internal || snapshot.purpose == SnapshotPurpose::Checkpoint)
        && source
            .as_ref()
            .is_none_or(|source| snapshot.source == *source)
        && (name.is_none() || snapshot.name == *name)
        && labels
            .iter()
            .all(|(key, value)| snapshot.labels.get(key) == Some(value))
}
