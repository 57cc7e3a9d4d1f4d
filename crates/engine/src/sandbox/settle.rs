//! Sandboxes that a crash left in the middle of a change: what is on the machine decides how
//! they go on. `core::sleep::after_crash` has the table.

use std::collections::BTreeMap;

use woodfrog_core::lifecycle::{self, Effect, Event, Next};
use woodfrog_core::sleep::{self as decide, Found, Rearm, Verdict};
use woodfrog_sandbox::DriverError;
use woodfrog_types::sandbox::{EndReason, InstanceState, Sandbox, SandboxState};
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::{
    Snapshot, SnapshotContent, SnapshotPlace, SnapshotSize, SnapshotState,
};
use woodfrog_types::{Fault, SnapshotId, Timestamp};

use crate::fault;
use crate::inner::Inner;
use crate::sandbox::owner::events;
use crate::sandbox::{attic, launch, shelf};

/// Commits what an event makes of a record; returns the new one, `None` if it was removed.
async fn commit(inner: &Inner, sandbox: &Sandbox, event: Event) -> Result<Option<Sandbox>, Fault> {
    let now = Timestamp::now();
    let step = lifecycle::step(sandbox, event, now)?;
    let log = events(step.log, now);
    match step.next {
        Next::Unchanged => Ok(Some(sandbox.clone())),
        Next::Store(next) => {
            let stored = inner.store.sandbox_update(&next, log).await;
            stored.map_err(fault::store)?;
            Ok(Some(*next))
        }
        Next::Remove => {
            let removed = inner.store.sandbox_remove(&sandbox.id, log).await;
            removed.map_err(fault::store)?;
            Ok(None)
        }
    }
}

/// Commits that a sandbox sleeps in a snapshot that is complete, both in one transaction.
pub(crate) async fn asleep(
    inner: &Inner,
    sandbox: &Sandbox,
    draft: &Snapshot,
    size: SnapshotSize,
    fields: &BTreeMap<String, String>,
) -> Result<(Sandbox, Vec<Effect>), Fault> {
    let now = Timestamp::now();
    let mut step = lifecycle::step(sandbox, Event::Hibernated, now)?;
    for entry in &mut step.log {
        entry.fields.extend(fields.clone());
    }
    let Next::Store(next) = step.next else {
        return Err(Fault::internal("a sleep was not stored"));
    };
    let log = events(step.log, now);
    let ready = shelf::ready(draft, size);
    let stored = inner.store.sandbox_update_with_snapshot(&next, log, &ready);
    stored.await.map_err(fault::store)?;
    Ok((*next, step.effects))
}

/// The snapshots that a record speaks of: the one of its state, the one before.
fn named(sandbox: &Sandbox) -> (Option<&SnapshotId>, Option<&SnapshotId>) {
    let present = match &sandbox.state {
        SandboxState::Hibernating { snapshot, .. }
        | SandboxState::Hibernated { snapshot, .. }
        | SandboxState::Waking { snapshot, .. }
        | SandboxState::Archiving { snapshot, .. }
        | SandboxState::Archived { snapshot, .. } => Some(snapshot),
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Deleting { .. } => None,
    };
    (present, sandbox.last_snapshot.as_ref())
}

/// Looks for the sandbox's processes; gives what the driver knows of them.
async fn adopt(inner: &Inner, sandbox: &Sandbox) -> Option<InstanceState> {
    let nothing = InstanceState("{}".to_owned());
    let known = match &sandbox.state {
        SandboxState::Running { instance }
        | SandboxState::Paused { instance, .. }
        | SandboxState::Hibernating { instance, .. } => instance,
        // The driver's own note tells what it needs.
        SandboxState::Waking { .. } => &nothing,
        SandboxState::Creating
        | SandboxState::Hibernated { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => return None,
    };
    match inner.driver.adopt(&sandbox.id, known).await {
        Ok(adopted) => Some(adopted.instance),
        Err(error) => {
            tracing::warn!(sandbox = %sandbox.id, %error, "not running any more");
            None
        }
    }
}

/// Brings a record and the machine together again; `complete` says which snapshots are there.
/// Returns the record as it is now: one that is running or asleep, or one that must be removed
/// (`creating`, `deleting`).
pub(crate) async fn settle(
    inner: &Inner,
    sandbox: Sandbox,
    complete: impl Fn(&SnapshotId) -> bool,
) -> Result<Sandbox, Fault> {
    let instance = adopt(inner, &sandbox).await;
    let (present, last) = named(&sandbox);
    let found = Found {
        runs: instance.is_some(),
        snapshot: present.is_some_and(&complete),
        last_snapshot: last.is_some_and(&complete),
    };
    let next = match decide::after_crash(
        &sandbox.state,
        sandbox.sleep.checkpoint_every.is_some(),
        found,
    ) {
        Verdict::Adopt => adopted(inner, sandbox, instance).await?,
        Verdict::Undo => undone(inner, sandbox).await?,
        Verdict::Asleep => slept(inner, sandbox).await?,
        Verdict::FallBack => fallen_back(inner, sandbox).await?,
        Verdict::Broken => broken(inner, sandbox).await?,
        Verdict::Remove => {
            if matches!(sandbox.state, SandboxState::Creating) {
                return Ok(sandbox);
            }
            let reason = EndReason::Lost;
            let ending = commit(inner, &sandbox, Event::Delete { reason }).await?;
            ending.unwrap_or(sandbox)
        }
    };
    Ok(next)
}

async fn adopted(
    inner: &Inner,
    sandbox: Sandbox,
    instance: Option<InstanceState>,
) -> Result<Sandbox, Fault> {
    let Some(instance) = instance else {
        return Ok(sandbox);
    };
    if matches!(sandbox.state, SandboxState::Waking { .. }) {
        // It stood still if the server died while it was being restored.
        let resumed = inner.driver.resume(&sandbox.id).await;
        resumed.map_err(fault::driver)?;
        let content = SnapshotContent::Memory;
        let rearm = Rearm::Own;
        let woken = Event::Woken {
            instance,
            content,
            rearm,
        };
        return Ok(commit(inner, &sandbox, woken).await?.unwrap_or(sandbox));
    }
    Ok(renewed(inner, sandbox, instance).await)
}

/// Stores what the driver knows better than the record. If that fails the old one is kept: the
/// driver will say the same again.
async fn renewed(inner: &Inner, sandbox: Sandbox, newer: InstanceState) -> Sandbox {
    let mut next = sandbox.clone();
    match &mut next.state {
        SandboxState::Running { instance } | SandboxState::Paused { instance, .. } => {
            *instance = newer;
        }
        SandboxState::Creating
        | SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => {}
    }
    if next.state == sandbox.state {
        return sandbox;
    }
    next.generation += 1;
    match inner.store.sandbox_update(&next, Vec::new()).await {
        Ok(()) => next,
        Err(error) => {
            tracing::warn!(sandbox = %sandbox.id, %error, "the driver's state was not stored");
            sandbox
        }
    }
}

/// It runs: what was begun to be saved does not count.
async fn undone(inner: &Inner, sandbox: Sandbox) -> Result<Sandbox, Fault> {
    let SandboxState::Hibernating {
        snapshot, sleep, ..
    } = &sandbox.state
    else {
        return Ok(sandbox);
    };
    // What falls asleep by itself stood still before; what was asked to ran.
    let paused = (sleep.cause == SleepCause::Idle).then_some(*sleep);
    if paused.is_none() {
        let resumed = inner.driver.resume(&sandbox.id).await;
        resumed.map_err(fault::driver)?;
    }
    let reason = "the server was stopped while it was being saved".to_owned();
    let failed = Event::HibernateFailed { paused, reason };
    let next = commit(inner, &sandbox, failed).await?;
    shelf::discard(inner, snapshot).await;
    Ok(next.unwrap_or(sandbox))
}

/// Its snapshot is there, and nothing of it runs.
async fn slept(inner: &Inner, sandbox: Sandbox) -> Result<Sandbox, Fault> {
    match &sandbox.state {
        SandboxState::Hibernating { snapshot, .. } => {
            let draft = inner.store.snapshot_fetch(snapshot).await;
            let Some(draft) = draft.map_err(fault::store)? else {
                return Err(Fault::internal("the record of a snapshot is gone"));
            };
            let fields = BTreeMap::from([("after".to_owned(), "crash".to_owned())]);
            let size = draft.size;
            let (next, _) = asleep(inner, &sandbox, &draft, size, &fields).await?;
            Ok(next)
        }
        SandboxState::Waking { .. } => undo_wake(inner, sandbox).await,
        SandboxState::Archiving { .. } => {
            let reason = "the server was stopped while it was being archived".to_owned();
            let back = commit(inner, &sandbox, Event::ArchiveFailed { reason }).await?;
            Ok(back.unwrap_or(sandbox))
        }
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => Ok(sandbox),
    }
}

async fn undo_wake(inner: &Inner, sandbox: Sandbox) -> Result<Sandbox, Fault> {
    // Whatever half of it was made.
    launch::destroy(inner, &sandbox.id).await?;
    let reason = "the server was stopped while it was being brought back".to_owned();
    let failed = commit(inner, &sandbox, Event::WakeFailed { reason }).await?;
    Ok(failed.unwrap_or(sandbox))
}

/// It and what was being saved of it are gone; the snapshot before is there.
async fn fallen_back(inner: &Inner, sandbox: Sandbox) -> Result<Sandbox, Fault> {
    let (unfinished, Some(last)) = named(&sandbox) else {
        return Ok(sandbox);
    };
    let known = inner.store.snapshot_fetch(last).await;
    let Some(known) = known.map_err(fault::store)? else {
        return Err(Fault::internal("the record of a snapshot is gone"));
    };
    // What is left of it is in the way of the one that comes back.
    launch::destroy(inner, &sandbox.id).await?;
    let back = Event::FellBack {
        snapshot: last.clone(),
        content: known.content,
        taken_at: known.created_at,
    };
    let next = commit(inner, &sandbox, back).await?;
    if let Some(unfinished) = unfinished {
        shelf::discard(inner, unfinished).await;
    }
    Ok(next.unwrap_or(sandbox))
}

/// Its snapshot is not where it should be. It stays recorded, so that the loss is seen, and a
/// snapshot that is put back is found.
async fn broken(inner: &Inner, sandbox: Sandbox) -> Result<Sandbox, Fault> {
    if let (Some(snapshot), _) = named(&sandbox) {
        shelf::mark_damaged(inner, snapshot, "it is not on this machine").await;
    }
    match sandbox.state {
        SandboxState::Waking { .. } => undo_wake(inner, sandbox).await,
        SandboxState::Archiving { .. } => {
            let reason = "the server was stopped while it was being archived".to_owned();
            let back = commit(inner, &sandbox, Event::ArchiveFailed { reason }).await?;
            Ok(back.unwrap_or(sandbox))
        }
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => Ok(sandbox),
    }
}

/// Whether a snapshot is complete on this machine.
pub(crate) async fn is_complete(inner: &Inner, snapshot: &SnapshotId) -> bool {
    match inner.driver.snapshot_export(snapshot).await {
        Ok(_) => true,
        Err(DriverError::NotFound { .. } | DriverError::Snapshot { .. }) => false,
        Err(error) => {
            tracing::warn!(%snapshot, %error, "a snapshot cannot be looked at");
            false
        }
    }
}

/// As [`settle`], for one sandbox while the server runs.
pub(crate) async fn settle_now(inner: &Inner, sandbox: Sandbox) -> Result<Sandbox, Fault> {
    let mut complete = Vec::new();
    let (present, last) = named(&sandbox);
    for snapshot in present.into_iter().chain(last) {
        if is_complete(inner, snapshot).await {
            complete.push(snapshot.clone());
        }
    }
    settle(inner, sandbox, |id| complete.contains(id)).await
}

/// Marks a snapshot that is recorded as ready and is not there; removes what is there of one that
/// is recorded as archived.
pub(crate) async fn check_present(
    inner: &Inner,
    snapshot: &Snapshot,
    complete: impl Fn(&SnapshotId) -> bool,
) {
    if snapshot.state != SnapshotState::Ready {
        return;
    }
    match (&snapshot.place, complete(&snapshot.id)) {
        (SnapshotPlace::Local | SnapshotPlace::Both { .. }, true) => {}
        (SnapshotPlace::Local | SnapshotPlace::Both { .. }, false) => {
            shelf::mark_damaged(inner, &snapshot.id, "it is not on this machine").await;
        }
        // The server before recorded that it is in the archive, and came no further.
        (SnapshotPlace::Archive { .. }, true) => attic::clear_local(inner, &snapshot.id).await,
        (SnapshotPlace::Archive { .. }, false) => {}
    }
}
