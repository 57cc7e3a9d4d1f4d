//! What a start of the server does about the sandboxes of the one before.

use std::sync::Arc;

use futures_util::StreamExt as _;
use woodfrog_core::lifecycle::{self, Event, Next};
use woodfrog_types::sandbox::{EndReason, InstanceState, Sandbox, SandboxState};
use woodfrog_types::{Fault, SandboxId, Timestamp};

use crate::fault;
use crate::inner::Inner;
use crate::sandbox::live::Live;
use crate::sandbox::{launch, owner};

/// Sandboxes that are looked at concurrently.
const AT_ONCE: usize = 16;

/// Adopts what still runs, finishes or undoes the rest, then has the driver sweep what belongs to
/// nobody. Faults of single sandboxes are logged; they do not keep the server from starting.
///
/// A record that cannot be read still stands for a sandbox: that one is left running, without an
/// owner, until the record is repaired. Where not even the id can be read, nothing is swept.
pub(crate) async fn recover(inner: &Arc<Inner>) -> Result<(), Fault> {
    let stored = inner.store.sandbox_recover().await.map_err(fault::store)?;
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
    let live: Vec<Option<SandboxId>> = futures_util::stream::iter(stored.sandboxes)
        .map(|sandbox| recover_one(inner, sandbox))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut live: Vec<SandboxId> = live.into_iter().flatten().collect();
    tracing::info!(adopted = live.len(), "recovered");
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

/// Returns the id if the driver must keep what it has of it.
async fn recover_one(inner: &Arc<Inner>, sandbox: Sandbox) -> Option<SandboxId> {
    let id = sandbox.id.clone();
    if let SandboxState::Running { instance } = &sandbox.state {
        match inner.driver.adopt(&id, instance).await {
            Ok(adopted) => {
                let sandbox = renewed(inner, sandbox, adopted.instance).await;
                adopt(inner, sandbox);
                return Some(id);
            }
            Err(error) => tracing::warn!(sandbox = %id, %error, "lost"),
        }
    }
    match remove(inner, sandbox.clone()).await {
        Ok(()) => None,
        Err(fault) => {
            tracing::error!(sandbox = %id, error = &fault as &dyn std::error::Error, "cannot be removed; its owner goes on trying");
            adopt(inner, sandbox);
            Some(id)
        }
    }
}

/// Stores what the driver knows better than the record. If that fails the old one is kept: the
/// driver will say the same again.
async fn renewed(inner: &Inner, sandbox: Sandbox, instance: InstanceState) -> Sandbox {
    let state = SandboxState::Running { instance };
    if sandbox.state == state {
        return sandbox;
    }
    let mut next = sandbox.clone();
    next.state = state;
    next.generation += 1;
    match inner.store.sandbox_update(&next, Vec::new()).await {
        Ok(()) => next,
        Err(error) => {
            tracing::warn!(sandbox = %sandbox.id, %error, "the driver's state was not stored");
            sandbox
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
    owner::spawn(inner, Live::new(sandbox, place), None);
}

async fn remove(inner: &Inner, mut sandbox: Sandbox) -> Result<(), Fault> {
    let now = Timestamp::now();
    if matches!(sandbox.state, SandboxState::Running { .. }) {
        let reason = EndReason::Lost;
        let step = lifecycle::step(&sandbox, Event::Delete { reason }, now)?;
        if let Next::Store(next) = step.next {
            let log = owner::events(step.log, now);
            let stored = inner.store.sandbox_update(&next, log).await;
            stored.map_err(fault::store)?;
            sandbox = *next;
        }
    }
    launch::destroy(inner, &sandbox.id).await?;
    let step = lifecycle::step(&sandbox, Event::Destroyed, now)?;
    let log = owner::events(step.log, now);
    let removed = inner.store.sandbox_remove(&sandbox.id, log).await;
    removed.map_err(fault::store)
}
