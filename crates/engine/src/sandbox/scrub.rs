//! Looking after snapshots: reading back what sandboxes sleep in, and removing what nothing
//! refers to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use woodfrog_sandbox::{DriverError, SnapshotHealth};
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::snapshot::{Snapshot, SnapshotPlace, SnapshotPurpose, SnapshotState};
use woodfrog_types::{Fault, SandboxId, SnapshotId, Timestamp};

use crate::fault;
use crate::inner::Inner;
use crate::lease;
use crate::sandbox::{attic, shelf};
use crate::view::GcReport;

/// Reads a snapshot back; its record says what was found.
pub(crate) async fn verify(inner: &Inner, snapshot: &Snapshot) -> Result<Snapshot, Fault> {
    let _pin = inner.pins.pin(&snapshot.id).await;
    lease::check_here(inner, snapshot).await?;
    if let SnapshotPlace::Archive { archive } = &snapshot.place {
        let state = attic::verify(inner, archive).await?;
        return found(inner, snapshot, state).await;
    }
    let state = match inner.driver.snapshot_verify(&snapshot.id).await {
        Ok(SnapshotHealth::Good) => SnapshotState::Ready,
        Ok(SnapshotHealth::Damaged { detail }) => SnapshotState::Damaged { detail },
        Err(DriverError::NotFound { .. }) => SnapshotState::Damaged {
            detail: "it is not on this machine".to_owned(),
        },
        Err(error) => return Err(fault::driver(error)),
    };
    found(inner, snapshot, state).await
}

/// Records what was found of a snapshot.
async fn found(
    inner: &Inner,
    snapshot: &Snapshot,
    state: SnapshotState,
) -> Result<Snapshot, Fault> {
    if state == snapshot.state {
        return Ok(snapshot.clone());
    }
    if let SnapshotState::Damaged { detail } = &state {
        tracing::error!(snapshot = %snapshot.id, detail, "DAMAGED SNAPSHOT: what was made from it or sleeps in it cannot come back from it");
    }
    let found = Snapshot {
        state,
        generation: snapshot.generation + 1,
        ..snapshot.clone()
    };
    let stored = inner.store.snapshot_update(&found).await;
    stored.map_err(fault::store)?;
    Ok(found)
}

/// Reads back one snapshot after the other, slowly, until the server stops.
pub(crate) async fn watch(inner: Arc<Inner>) {
    let interval = inner.options.scrub_interval;
    if interval.is_zero() {
        return;
    }
    let mut last: Option<SnapshotId> = None;
    loop {
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let next = match inner.store.snapshot_all().await {
            Ok(all) => match lease::snapshots_here(&inner).await {
                Ok(here) => {
                    let all: Vec<Snapshot> = all.into_iter().filter(|it| here(&it.id)).collect();
                    after(&all, last.as_ref())
                }
                Err(_) => continue,
            },
            Err(error) => {
                tracing::warn!(%error, "snapshots cannot be listed");
                continue;
            }
        };
        let Some(next) = next else {
            continue;
        };
        last = Some(next.id.clone());
        if let Err(fault) = verify(&inner, &next).await {
            tracing::debug!(snapshot = %next.id, error = &fault as &dyn std::error::Error, "not read back");
        }
    }
}

/// The next ready snapshot in the order of ids; after the last one the first.
fn after(all: &[Snapshot], last: Option<&SnapshotId>) -> Option<Snapshot> {
    let ready = || {
        all.iter()
            .filter(|snapshot| snapshot.state == SnapshotState::Ready)
            // What is in the archive is read back on request only: that may cost money.
            .filter(|snapshot| !matches!(snapshot.place, SnapshotPlace::Archive { .. }))
    };
    ready()
        .find(|snapshot| last.is_none_or(|last| snapshot.id > *last))
        .or_else(|| ready().next())
        .cloned()
}

/// Whether something refers to a snapshot; `sandboxes` has all that are recorded.
fn is_wanted(snapshot: &Snapshot, sandboxes: &HashMap<SandboxId, Sandbox>) -> bool {
    let sleeper = |id: &SandboxId| {
        sandboxes.get(id).is_some_and(|sandbox| {
            shelf::names(sandbox, &snapshot.id)
                || sandbox.last_snapshot.as_ref() == Some(&snapshot.id)
        })
    };
    match (&snapshot.state, &snapshot.purpose) {
        (SnapshotState::Deleting, _) => false,
        (_, SnapshotPurpose::Sleep { sandbox }) => sleeper(sandbox),
        (SnapshotState::Writing, _) | (_, SnapshotPurpose::Fork) => false,
        (
            SnapshotState::Ready | SnapshotState::Damaged { .. },
            SnapshotPurpose::Checkpoint | SnapshotPurpose::Warm { .. },
        ) => true,
    }
}

/// Removes what a crash left: nothing may be under way. Returns those that are complete and known.
pub(crate) async fn sweep(
    inner: &Inner,
    sandboxes: &HashMap<SandboxId, Sandbox>,
    all: &[Snapshot],
    complete: &HashSet<SnapshotId>,
) {
    for snapshot in all {
        if !is_wanted(snapshot, sandboxes) {
            shelf::discard(inner, &snapshot.id).await;
        }
    }
    let known: HashSet<&SnapshotId> = all.iter().map(|snapshot| &snapshot.id).collect();
    for stray in complete.iter().filter(|id| !known.contains(id)) {
        match inner.driver.snapshot_remove(stray).await {
            Ok(()) => tracing::info!(snapshot = %stray, "removed: it belongs to nobody"),
            Err(error) => tracing::error!(snapshot = %stray, %error, "cannot be removed"),
        }
    }
}

/// Removes what nothing refers to, while the server runs: what is being written or made from is
/// left alone.
pub(crate) async fn collect(inner: &Inner) -> Result<GcReport, Fault> {
    let all = inner.store.snapshot_all().await.map_err(fault::store)?;
    let here = lease::snapshots_here(inner).await?;
    let stored = inner.store.sandbox_all().await.map_err(fault::store)?;
    let sandboxes = by_id(stored);
    let mut report = GcReport::default();
    for snapshot in all {
        // A fork's is removed by the fork.
        let busy = snapshot.state == SnapshotState::Writing
            || (snapshot.purpose == SnapshotPurpose::Fork
                && snapshot.state == SnapshotState::Ready);
        if busy || !here(&snapshot.id) || is_wanted(&snapshot, &sandboxes) {
            continue;
        }
        // Read again: its sandbox may have gone to sleep in it meanwhile.
        if let SnapshotPurpose::Sleep { sandbox } = &snapshot.purpose {
            let now = inner.store.sandbox_fetch(sandbox).await;
            let now = now.map_err(fault::store)?;
            if is_wanted(&snapshot, &by_id(now.into_iter().collect())) {
                continue;
            }
        }
        shelf::remove(inner, &snapshot.id).await?;
        report.bytes += snapshot.size.written_bytes + snapshot.size.disk_bytes;
        report.removed.push(snapshot.id);
    }
    report.archive_bytes = attic::collect(inner, Timestamp::now()).await?;
    Ok(report)
}

pub(crate) fn by_id(sandboxes: Vec<Sandbox>) -> HashMap<SandboxId, Sandbox> {
    let keyed = |sandbox: Sandbox| (sandbox.id.clone(), sandbox);
    sandboxes.into_iter().map(keyed).collect()
}
