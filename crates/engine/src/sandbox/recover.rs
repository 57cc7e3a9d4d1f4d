//! What a start of the server does about the sandboxes and snapshots of the one before.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use woodfrog_core::lifecycle::{self, Event};
use woodfrog_core::sleep::Waker;
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::{Fault, SandboxId, SnapshotId, Timestamp};

use crate::fault;
use crate::inner::Inner;
use crate::lease;
use crate::sandbox::live::{Command, Live, WakeOrder};
use crate::sandbox::{launch, owner, scrub, settle, shelf};

/// Sandboxes that are looked at concurrently.
const AT_ONCE: usize = 16;
/// Lost sandboxes that come back at once.
const WAKES_AT_ONCE: usize = 2;

/// Returns those that were lost while they ran, for [`bring_back`]. Adopts what still runs, lets sleep what sleeps, finishes or undoes the rest, then has the
/// driver sweep what belongs to nobody. Faults of single sandboxes are logged; they do not keep
/// the server from starting.
///
/// A record that cannot be read still stands for a sandbox: that one is left as it is, without an
/// owner, until the record is repaired. Where not even the id can be read, nothing is swept.
pub(crate) async fn recover(inner: &Arc<Inner>) -> Result<Vec<SandboxId>, Fault> {
    let stored = inner.store.sandbox_recover().await.map_err(fault::store)?;
    let mut snapshots = inner.store.snapshot_all().await.map_err(fault::store)?;
    let here = lease::snapshots_here(inner).await?;
    snapshots.retain(|snapshot| here(&snapshot.id));
    for damaged in &stored.damaged {
        let id = damaged
            .id
            .as_ref()
            .map_or("(unreadable)", SandboxId::as_str);
        tracing::error!(
            sandbox = id,
            detail = damaged.detail,
            "DAMAGED RECORD: whatever runs under it is left alone and cannot be reached; restore the database from a copy"
        );
    }
    let known: Vec<SnapshotId> = snapshots.iter().map(|known| known.id.clone()).collect();
    let complete: HashSet<SnapshotId> = match inner.driver.snapshot_reconcile(&known).await {
        Ok(complete) => complete.into_iter().collect(),
        Err(error) => {
            tracing::error!(%error, "snapshots cannot be looked at; those that are recorded are taken to be there");
            known.into_iter().collect()
        }
    };
    let ran: HashSet<SandboxId> = stored
        .sandboxes
        .iter()
        .filter(|sandbox| matches!(sandbox.state, SandboxState::Running { .. }))
        .map(|sandbox| sandbox.id.clone())
        .collect();
    let kept: Vec<Option<Sandbox>> = futures_util::stream::iter(stored.sandboxes)
        .map(|sandbox| recover_one(inner, sandbox, &complete))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let kept = scrub::by_id(kept.into_iter().flatten().collect());
    let fell_back = |sandbox: &&Sandbox| {
        ran.contains(&sandbox.id) && matches!(sandbox.state, SandboxState::Hibernated { .. })
    };
    let back: Vec<SandboxId> = kept
        .values()
        .filter(fell_back)
        .map(|sandbox| sandbox.id.clone())
        .collect();
    let mut live: Vec<SandboxId> = kept.keys().cloned().collect();
    tracing::info!(sandboxes = live.len(), "recovered");
    let there = snapshots
        .iter()
        .filter(|snapshot| complete.contains(&snapshot.id));
    inner.warm.remember(there);
    if stored.damaged.is_empty() {
        let all = with_others(inner, &kept).await?;
        for snapshot in &snapshots {
            settle::check_present(inner, snapshot, |id| complete.contains(id)).await;
        }
        scrub::sweep(inner, &all, &snapshots, &complete).await;
    }
    for damaged in stored.damaged {
        match damaged.id {
            Some(id) => live.push(id),
            None => {
                tracing::error!(
                    "leftovers are not swept: one may be what a damaged record is about"
                );
                return Ok(back);
            }
        }
    }
    match inner.driver.reconcile(&live).await {
        Ok(removed) if removed.is_empty() => {}
        Ok(removed) => tracing::info!(?removed, "swept leftovers"),
        Err(error) => tracing::error!(%error, "leftovers could not be swept"),
    }
    Ok(back)
}

/// These and the sandboxes of other servers, which may need a snapshot that is here.
async fn with_others(
    inner: &Inner,
    ours: &HashMap<SandboxId, Sandbox>,
) -> Result<HashMap<SandboxId, Sandbox>, Fault> {
    if inner.store.node().is_none() {
        return Ok(ours.clone());
    }
    let all = inner.store.sandbox_all().await.map_err(fault::store)?;
    let mut all = scrub::by_id(all);
    all.extend(ours.clone());
    Ok(all)
}

/// Wakes sandboxes that were lost while they ran and have something to come back from.
pub(crate) async fn bring_back(inner: Arc<Inner>, back: Vec<SandboxId>) {
    let woken = futures_util::stream::iter(back).for_each_concurrent(WAKES_AT_ONCE, |id| {
        let inner = &inner;
        async move {
            let record = match inner.store.sandbox_fetch(&id).await {
                Ok(Some(record)) => record,
                Ok(None) | Err(_) => return,
            };
            let live = owner::spawn(inner, Live::new(&inner.registry.gates, record, None), None);
            let order = WakeOrder {
                waker: Waker::Resume,
                ..WakeOrder::access()
            };
            match live.ask(|reply| Command::Wake { order, reply }).await {
                Some(Ok(_)) | None => {}
                Some(Err(fault)) => {
                    tracing::error!(sandbox = %id, error = &fault as &dyn std::error::Error, "a lost sandbox did not come back; whoever uses it tries again");
                }
            }
        }
    });
    tokio::select! {
        () = inner.stopping.cancelled() => {}
        () = woken => {}
    }
}

/// Returns the record if the driver must keep what it has of it.
async fn recover_one(
    inner: &Arc<Inner>,
    sandbox: Sandbox,
    complete: &HashSet<SnapshotId>,
) -> Option<Sandbox> {
    let id = sandbox.id.clone();
    let settled = settle::settle(inner, sandbox.clone(), |id| complete.contains(id)).await;
    let settled = match settled {
        Ok(settled) => settled,
        Err(fault) => {
            tracing::error!(sandbox = %id, error = &fault as &dyn std::error::Error, "cannot be settled; its owner goes on trying");
            adopt(inner, sandbox.clone());
            return Some(sandbox);
        }
    };
    match &settled.state {
        SandboxState::Running { .. } | SandboxState::Paused { .. } => {
            adopt(inner, settled.clone());
            Some(settled)
        }
        SandboxState::Hibernated { .. } | SandboxState::Archived { .. } => Some(settled),
        SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. } => {
            adopt(inner, settled.clone());
            Some(settled)
        }
        SandboxState::Creating | SandboxState::Deleting { .. } => {
            match remove(inner, &settled).await {
                Ok(()) => None,
                Err(fault) => {
                    tracing::error!(sandbox = %id, error = &fault as &dyn std::error::Error, "cannot be removed; its owner goes on trying");
                    adopt(inner, settled.clone());
                    Some(settled)
                }
            }
        }
    }
}

/// Gives the sandbox an owner, which goes on from the stored state.
fn adopt(inner: &Arc<Inner>, sandbox: Sandbox) {
    // Caps hold for new sandboxes; what runs is kept even if the caps have shrunk.
    let place = inner
        .registry
        .reserve(
            &sandbox.workspace,
            woodfrog_core::admission::Used::one(&sandbox.resources),
            woodfrog_core::admission::Caps {
                server: usize::MAX,
                workspace: usize::MAX,
            },
            woodfrog_core::admission::Quota::default(),
        )
        .ok();
    owner::spawn(
        inner,
        Live::new(&inner.registry.gates, sandbox, place),
        None,
    );
}

async fn remove(inner: &Inner, sandbox: &Sandbox) -> Result<(), Fault> {
    let now = Timestamp::now();
    launch::destroy(inner, &sandbox.id).await?;
    shelf::remove_slept(inner, sandbox).await?;
    let step = lifecycle::step(sandbox, Event::Destroyed, now)?;
    let log = owner::events(step.log, now);
    let removed = inner.store.sandbox_remove(&sandbox.id, log).await;
    removed.map_err(fault::store)
}
