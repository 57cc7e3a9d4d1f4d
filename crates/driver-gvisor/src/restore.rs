//! Sandboxes from snapshots.

use std::sync::Arc;

use woodfrog_sandbox::{Capability, Launched, RestoreSpec, Result};
use woodfrog_types::snapshot::SnapshotContent;

use crate::driver::{Shared, blocking};
use crate::launch::{Origin, launch};
use crate::manifest::Here;
use crate::snapshot;

/// Makes a sandbox from a snapshot; see the port. The caller holds its lock.
pub(crate) async fn restore(shared: &Arc<Shared>, spec: RestoreSpec) -> Result<Launched> {
    let (capability, what) = match spec.content {
        SnapshotContent::Memory => (Capability::Checkpoint, "a restore of memory"),
        SnapshotContent::Filesystem => (Capability::FilesystemSnapshot, "a restore of files"),
    };
    shared.require(capability, what)?;
    let (owned, id) = (Arc::clone(shared), spec.snapshot.clone());
    let manifest = blocking(move || snapshot::read(&owned, &id)).await?;
    let here = Here {
        runsc: &shared.runsc.runsc.version,
        skeleton: &shared.skeleton,
        layers: &spec.launch.layers,
    };
    let usable = manifest.check(spec.content, &here);
    usable.map_err(|error| snapshot::unusable(&spec.snapshot, &error))?;
    let origin = match spec.content {
        SnapshotContent::Memory => Origin::Processes {
            snapshot: spec.snapshot,
            renamed: manifest.source != spec.launch.id.as_str(),
            secret: manifest.secret,
        },
        SnapshotContent::Filesystem => Origin::Files(spec.snapshot),
    };
    launch(shared, spec.launch, origin, spec.timeout).await
}
