//! Servers that share a store: which sandboxes are this one's. `docs/design/handoff.md`.

pub(crate) mod moving;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use woodfrog_store::{Claim, Taking};
use woodfrog_types::node::Lease;
use woodfrog_types::sandbox::SandboxState;
use woodfrog_types::snapshot::{Snapshot, SnapshotPlace};
use woodfrog_types::{Code, Fault, RunId, SandboxId, SnapshotId};

use crate::engine::Engine;
use crate::fault;
use crate::inner::Inner;
use crate::sandbox::live::{Command, Live};

pub use moving::Departures;

/// Leases are renewed this often within the time that they last.
const RENEWALS: u32 = 3;

/// Sees to it that a sandbox is this server's: what nobody has is taken. Refused if another server
/// has it.
pub(crate) async fn hold(inner: &Inner, id: &SandboxId) -> Result<(), Fault> {
    if inner.store.node().is_none() {
        return Ok(());
    }
    let taken = inner.store.lease_take(id, Claim::Released).await;
    match taken.map_err(fault::store)? {
        Taking::Mine(_) | Taking::Nothing => Ok(()),
        Taking::Held(lease) => Err(elsewhere(inner, &lease).await),
    }
}

/// Whether another server has, or had, what this one has of a sandbox: then nothing of it is this
/// one's to change, its snapshots least of all.
pub(crate) async fn is_anothers(inner: &Inner, id: &SandboxId) -> bool {
    if inner.store.node().is_none() {
        return false;
    }
    match inner.store.lease_fetch(id).await {
        Ok(lease) => lease.is_some_and(|lease| lease.node.as_ref() != inner.store.node()),
        // What follows cannot reach the store either.
        Err(_) => false,
    }
}

/// Who has it instead.
async fn elsewhere(inner: &Inner, lease: &Lease) -> Fault {
    let node = match &lease.node {
        Some(node) => inner.store.node_fetch(node).await.ok().flatten(),
        None => None,
    };
    let name = node.map_or_else(
        || "another server".to_owned(),
        |it| format!("`{}`", it.name),
    );
    let text = match lease.over {
        false => format!("the sandbox is on {name}; ask there"),
        true => format!("the sandbox is on {name}, which has not answered for a while"),
    };
    Fault::new(Code::Unavailable, text)
}

/// What a sandbox in the archive was held for is done: whoever is asked next may take it.
pub(crate) async fn release(inner: &Inner, id: &SandboxId) {
    if inner.store.node().is_none() {
        return;
    }
    if let Err(error) = inner.store.lease_release(id).await {
        tracing::warn!(sandbox = %id, %error, "it could not be let go; others wait until its lease is over");
    }
}

/// The snapshots that are this server's to look after.
pub(crate) async fn snapshots_here(
    inner: &Inner,
) -> Result<impl Fn(&SnapshotId) -> bool + Send + use<>, Fault> {
    let here = inner.store.snapshots_here().await.map_err(fault::store)?;
    let here: Option<HashSet<SnapshotId>> = here.map(|ids| ids.into_iter().collect());
    Ok(move |id: &SnapshotId| here.as_ref().is_none_or(|ids| ids.contains(id)))
}

/// Refuses a snapshot that is on another server's disk.
pub(crate) async fn check_here(inner: &Inner, snapshot: &Snapshot) -> Result<(), Fault> {
    let away = matches!(snapshot.place, SnapshotPlace::Archive { .. });
    if away || inner.store.node().is_none() || snapshots_here(inner).await?(&snapshot.id) {
        return Ok(());
    }
    Err(Fault::new(
        Code::SnapshotUnusable,
        format!(
            "the snapshot {} is on another server; ask there",
            snapshot.id
        ),
    ))
}

impl Engine {
    /// Whether several servers share the store.
    pub fn shares_store(&self) -> bool {
        self.inner.store.node().is_some()
    }

    /// The unfinished runs that are this server's to go on with; `None`: all.
    pub async fn runs_here(&self) -> Result<Option<HashSet<RunId>>, Fault> {
        let here = self.inner.store.runs_here().await.map_err(fault::store)?;
        Ok(here.map(|ids| ids.into_iter().collect()))
    }
}

/// Renews leases until the server stops, and ends what this server has of sandboxes that another
/// one took meanwhile.
pub(crate) async fn watch(inner: Arc<Inner>) {
    if inner.store.node().is_none() {
        return;
    }
    let pause = (inner.options.lease / RENEWALS).max(Duration::from_millis(10));
    loop {
        if let Err(error) = renew(&inner).await {
            tracing::error!(%error, "leases cannot be renewed; what runs goes on, but nothing of it can be written");
        }
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn renew(inner: &Arc<Inner>) -> woodfrog_store::Result<()> {
    // Looked at first: what is made meanwhile is not missed among the renewed.
    let live: Vec<Arc<Live>> = inner.registry.all();
    let renewed = inner.store.lease_renew().await?;
    let renewed: HashSet<SandboxId> = renewed.into_iter().collect();
    for live in live {
        if renewed.contains(&live.id) || !is_on_this_machine(&live.record().state) {
            continue;
        }
        // It may have ended in between: only what another server has is lost.
        let lease = inner.store.lease_fetch(&live.id).await?;
        if lease.is_some_and(|lease| lease.node.as_ref() != inner.store.node()) {
            tracing::error!(sandbox = %live.id, "LOST LEASE: another server has it now; what this one has of it ends");
            live.tell(Command::Lost);
        }
    }
    Ok(())
}

fn is_on_this_machine(state: &SandboxState) -> bool {
    match state {
        SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => true,
        SandboxState::Creating | SandboxState::Archived { .. } => false,
    }
}
