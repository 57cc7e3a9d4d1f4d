//! Removing what belongs to nobody.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use woodfrog_sandbox::{Driver, Result};
use woodfrog_types::SandboxId;

use crate::driver::{GvisorDriver, Shared, blocking};
use crate::error::step;

const NETWORK_CHECK_EVERY: Duration = Duration::from_secs(5);

/// Compares notes, folders, cgroups and interfaces with `live`.
pub(crate) async fn reconcile(driver: &GvisorDriver, live: &[SandboxId]) -> Result<Vec<String>> {
    let live: HashSet<SandboxId> = live.iter().cloned().collect();
    let shared = Arc::clone(&driver.shared);
    let found = blocking(move || found(&shared).map_err(|e| step("look for leftovers", e))).await?;
    let mut removed = Vec::new();
    for id in found.difference(&live) {
        match driver.destroy(id).await {
            Ok(()) => removed.push(id.to_string()),
            // The rest is not left lying about for its sake.
            Err(error) => tracing::error!(%id, %error, "a leftover cannot be removed"),
        }
    }
    let slots: Vec<u32> = live
        .iter()
        .filter_map(|id| Some(driver.shared.instance(id).ok()?.note.slot))
        .collect();
    let interfaces = driver
        .shared
        .network
        .reconcile(&slots)
        .await
        .map_err(|e| step("reconcile the network", e))?;
    if interfaces > 0 {
        removed.push(format!("{interfaces} interfaces"));
    }
    Ok(removed)
}

/// Looks after the network's rules until the driver is gone.
pub(crate) async fn watch_network(shared: Weak<Shared>) {
    let mut every = tokio::time::interval(NETWORK_CHECK_EVERY);
    loop {
        every.tick().await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if let Err(error) = shared.network.refresh().await {
            tracing::warn!(%error, "the network rules could not be checked");
        }
    }
}

/// Every sandbox of which there is anything on the machine.
fn found(shared: &Shared) -> io::Result<HashSet<SandboxId>> {
    let mut all = shared.cgroups.list(&shared.group)?;
    for dir in [
        &shared.paths.notes,
        &shared.paths.sandboxes,
        &shared.paths.bundles,
    ] {
        all.extend(names(dir)?);
    }
    Ok(all
        .into_iter()
        .filter_map(|name| {
            let id = name.split_once('.').map_or(&*name, |(id, _)| id);
            id.parse().ok()
        })
        .collect())
}

pub(crate) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    let names: Vec<Option<String>> = names.collect::<io::Result<_>>()?;
    Ok(names.into_iter().flatten().collect())
}
