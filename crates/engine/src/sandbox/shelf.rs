//! Snapshots as the engine keeps them: their records, who uses them now, and their end.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use woodfrog_types::page::PageRequest;
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::snapshot::{
    Snapshot, SnapshotContent, SnapshotFilter, SnapshotPlace, SnapshotPurpose, SnapshotSize,
    SnapshotState,
};
use woodfrog_types::{Code, Fault, SandboxId, SnapshotId, Timestamp, WorkspaceId};

use crate::fault;
use crate::inner::Inner;
use crate::sandbox::attic;

/// Snapshots that something is being made from: they are not removed under it.
#[derive(Default)]
pub(crate) struct Pins {
    pins: Mutex<HashMap<SnapshotId, Arc<RwLock<()>>>>,
    /// One request at a time removes a snapshot that has a name.
    deleting: tokio::sync::Mutex<()>,
}

/// Keeps a snapshot until it is dropped.
pub(crate) type Pin = OwnedRwLockReadGuard<()>;

impl Pins {
    fn of(&self, id: &SnapshotId) -> Arc<RwLock<()>> {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        pins.retain(|_, pin| Arc::strong_count(pin) > 1);
        Arc::clone(pins.entry(id.clone()).or_default())
    }

    /// Until it is dropped nobody else removes snapshots on request.
    pub(crate) async fn deleting(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.deleting.lock().await
    }

    /// Until it is dropped nothing is made from this snapshot.
    pub(crate) async fn alone(&self, id: &SnapshotId) -> OwnedRwLockWriteGuard<()> {
        self.of(id).write_owned().await
    }

    pub(crate) async fn pin(&self, id: &SnapshotId) -> Pin {
        self.of(id).read_owned().await
    }
}

/// The record of a snapshot that is about to be taken of this sandbox.
pub(crate) fn draft(
    inner: &Inner,
    sandbox: &Sandbox,
    content: SnapshotContent,
    purpose: SnapshotPurpose,
) -> Snapshot {
    Snapshot {
        id: SnapshotId::generate(),
        workspace: sandbox.workspace.clone(),
        source: sandbox.id.clone(),
        parent: None,
        content,
        purpose,
        state: SnapshotState::Writing,
        place: SnapshotPlace::Local,
        generation: 1,
        name: None,
        labels: BTreeMap::new(),
        template: sandbox.template.clone(),
        template_alias: sandbox.template_alias.clone(),
        build: sandbox.build,
        resources: sandbox.resources,
        env: sandbox.env.clone(),
        volumes: sandbox.volumes.clone(),
        driver: inner.driver.name().to_owned(),
        size: SnapshotSize::default(),
        created_at: Timestamp::now(),
    }
}

/// The snapshot that the next one of this sandbox may share parts with, if it is still there,
/// with what keeps it meanwhile.
pub(crate) async fn parent(inner: &Inner, sandbox: &Sandbox) -> Option<(SnapshotId, Pin)> {
    let last = sandbox.last_snapshot.as_ref()?;
    let (known, pin) = take(inner, last).await.ok()?;
    match known.place {
        SnapshotPlace::Local | SnapshotPlace::Both { .. } => Some((known.id, pin)),
        SnapshotPlace::Archive { .. } => None,
    }
}

/// Whether this is the snapshot that the sandbox sleeps in, or is being saved into.
pub(crate) fn names(sandbox: &Sandbox, id: &SnapshotId) -> bool {
    match &sandbox.state {
        SandboxState::Hibernating { snapshot, .. }
        | SandboxState::Hibernated { snapshot, .. }
        | SandboxState::Waking { snapshot, .. }
        | SandboxState::Archiving { snapshot, .. }
        | SandboxState::Archived { snapshot, .. } => snapshot == id,
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Deleting { .. } => false,
    }
}

/// The snapshot once it is safe on disk.
pub(crate) fn ready(snapshot: &Snapshot, size: SnapshotSize) -> Snapshot {
    Snapshot {
        state: SnapshotState::Ready,
        size,
        generation: snapshot.generation + 1,
        ..snapshot.clone()
    }
}

/// Refuses a workspace that has used up its quota of disk.
pub(crate) async fn check_quota(inner: &Inner, workspace: &WorkspaceId) -> Result<(), Fault> {
    let Some(quota) = inner.options.snapshot_quota else {
        return Ok(());
    };
    let used = inner.store.snapshot_usage(workspace).await;
    let used = used.map_err(fault::store)?;
    if used < quota {
        return Ok(());
    }
    Err(Fault::new(
        Code::QuotaExceeded,
        format!(
            "the workspace's snapshots take {used} bytes of {quota}; delete snapshots or sandboxes first"
        ),
    ))
}

/// A snapshot that is ready, with what keeps it while something is made from it.
pub(crate) async fn take(inner: &Inner, id: &SnapshotId) -> Result<(Snapshot, Pin), Fault> {
    let pin = inner.pins.pin(id).await;
    let found = inner.store.snapshot_fetch(id).await;
    let snapshot = found
        .map_err(fault::store)?
        .ok_or_else(|| super::snapshots::not_found(id.as_str()))?;
    let unusable = |why: &str| {
        Err(Fault::new(
            Code::SnapshotUnusable,
            format!("the snapshot {id} cannot be used: {why}"),
        ))
    };
    match &snapshot.state {
        SnapshotState::Ready => Ok((snapshot, pin)),
        SnapshotState::Damaged { detail } => unusable(detail),
        SnapshotState::Writing => unusable("it is being written"),
        SnapshotState::Deleting => unusable("it is being removed"),
    }
}

/// Removes a snapshot, once nothing is being made from it any more: first the record says so,
/// then it goes from the disk, then the record goes.
pub(crate) async fn remove(inner: &Inner, id: &SnapshotId) -> Result<(), Fault> {
    let found = inner.store.snapshot_fetch(id).await;
    let mut archived = None;
    if let Some(snapshot) = found.map_err(fault::store)? {
        archived = snapshot.place.archive().cloned();
        mark_deleting(inner, snapshot).await?;
    }
    let _nobody = inner.pins.alone(id).await;
    let removed = inner.driver.snapshot_remove(id).await;
    removed.map_err(fault::driver)?;
    if let Some(archived) = archived {
        attic::forget(inner, &archived).await;
    }
    let removed = inner.store.snapshot_remove(id).await;
    removed.map_err(fault::store)
}

async fn mark_deleting(inner: &Inner, snapshot: Snapshot) -> Result<(), Fault> {
    if snapshot.state != SnapshotState::Deleting {
        let deleting = Snapshot {
            state: SnapshotState::Deleting,
            generation: snapshot.generation + 1,
            ..snapshot
        };
        let stored = inner.store.snapshot_update(&deleting).await;
        stored.map_err(fault::store)?;
    }
    Ok(())
}

/// As [`take`], and it is on this machine.
pub(crate) async fn take_local(inner: &Inner, id: &SnapshotId) -> Result<(Snapshot, Pin), Fault> {
    let (snapshot, pin) = take(inner, id).await?;
    let (snapshot, _) = attic::bring_back(inner, snapshot).await?;
    Ok((snapshot, pin))
}

/// As [`remove`], for one that nobody waits for: what fails is tried again at the next start.
pub(crate) async fn discard(inner: &Inner, id: &SnapshotId) {
    if let Err(fault) = remove(inner, id).await {
        tracing::warn!(snapshot = %id, error = &fault as &dyn std::error::Error, "a snapshot could not be removed; the next start tries again");
    }
}

/// Removes the snapshot that a sandbox slept in, unless somebody asked for it to be kept.
pub(crate) async fn discard_slept(inner: &Inner, sandbox: &SandboxId, id: &SnapshotId) {
    match inner.store.snapshot_fetch(id).await {
        Ok(Some(snapshot)) if is_slept(&snapshot, sandbox) => discard(inner, id).await,
        Ok(Some(_) | None) => {}
        Err(error) => tracing::warn!(snapshot = %id, %error, "a snapshot cannot be looked at"),
    }
}

fn is_slept(snapshot: &Snapshot, sandbox: &SandboxId) -> bool {
    match &snapshot.purpose {
        SnapshotPurpose::Sleep { sandbox: sleeper } => sleeper == sandbox,
        SnapshotPurpose::Checkpoint | SnapshotPurpose::Warm { .. } | SnapshotPurpose::Fork => false,
    }
}

/// Removes every snapshot that this sandbox slept in.
pub(crate) async fn remove_slept(inner: &Inner, sandbox: &Sandbox) -> Result<(), Fault> {
    let filter = SnapshotFilter {
        source: Some(sandbox.id.clone()),
        internal: true,
        ..SnapshotFilter::default()
    };
    let mut page = PageRequest {
        limit: woodfrog_types::limits::PAGE_ITEMS_MAX,
        cursor: None,
    };
    loop {
        let listed = inner
            .store
            .snapshot_list(&sandbox.workspace, &filter, &page)
            .await
            .map_err(fault::store)?;
        for snapshot in &listed.items {
            if is_slept(snapshot, &sandbox.id) {
                remove(inner, &snapshot.id).await?;
            }
        }
        match listed.next {
            Some(next) => page.cursor = Some(next),
            None => return Ok(()),
        }
    }
}

/// Records that a snapshot cannot be used.
pub(crate) async fn mark_damaged(inner: &Inner, id: &SnapshotId, detail: &str) {
    let marked = async {
        let found = inner.store.snapshot_fetch(id).await?;
        let Some(snapshot) = found.filter(|known| known.state == SnapshotState::Ready) else {
            return Ok(());
        };
        let damaged = Snapshot {
            state: SnapshotState::Damaged {
                detail: detail.to_owned(),
            },
            generation: snapshot.generation + 1,
            ..snapshot
        };
        inner.store.snapshot_update(&damaged).await
    };
    tracing::error!(snapshot = %id, detail, "a snapshot cannot be used");
    if let Err(error) = marked.await {
        tracing::warn!(snapshot = %id, %error, "its record could not be marked");
    }
}
