//! What a start of the server does about the sandboxes and snapshots of the one before.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt as _;
use woodfrog_core::lifecycle::{self, Event};
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::{Fault, SandboxId, SnapshotId, Timestamp};

use crate::fault;
use crate::inner::Inner;
use crate::sandbox::live::Live;
use crate::sandbox::{launch, owner, scrub, settle, shelf};

/// Sandboxes that are looked at concurrently.
const AT_ONCE: usize = 16;

/// Adopts what still runs, lets sleep what sleeps, finishes or undoes the rest, then has the
/// driver sweep what belongs to nobody. Faults of single sandboxes are logged; they do not keep
/// the server from starting.
///
/// A record that cannot be read still stands for a sandbox: that one is left as it is, without an
/// owner, until the record is repaired. Where not even the id can be read, nothing is swept.
pub(crate) async fn recover(inner: &Arc<Inner>) -> Result<(), Fault> {
    let stored = inner.store.sandbox_recover().await.map_err(fault::store)?;
    let snapshots = inner.store.snapshot_all().await.map_err(fault::store)?;
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
    let kept: Vec<Option<Sandbox>> = futures_util::stream::iter(stored.sandboxes)
        .map(|sandbox| recover_one(inner, sandbox, &complete))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let kept = scrub::by_id(kept.into_iter().flatten().collect());
    let mut live: Vec<SandboxId> = kept.keys().cloned().collect();
    tracing::info!(sandboxes = live.len(), "recovered");
    let there = snapshots
        .iter()
        .filter(|snapshot| complete.contains(&snapshot.id));
    inner.warm.remember(there);
    if stored.damaged.is_empty() {
        for snapshot in &snapshots {
            settle::check_present(inner, snapshot, |id| complete.contains(id)).await;
        }
        scrub::sweep(inner, &kept, &snapshots, &complete).await;
    }
    for damaged in stored.damaged {
        match damaged.id {
            Some(id) => live.push(id),
            None => {
                tracing::error!(
                    "leftovers are not swept: one may be what a damaged record is about"
                );
                return Ok(());
            }
        }
    }
    match inner.driver.reconcile(&live).await {
        Ok(removed) if removed.is_empty() => {}
        Ok(removed) => tracing::info!(?removed, "swept leftovers"),
        Err(error) => tracing::error!(%error, "leftovers could not be swept"),
    }
    Ok(())
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
            woodfrog_core::admission::Caps {
                server: usize::MAX,
                workspace: usize::MAX,
            },
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
