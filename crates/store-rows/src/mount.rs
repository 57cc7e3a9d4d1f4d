//! The stored form of volumes in sandboxes and snapshots.

use serde::{Deserialize, Serialize};
use woodfrog_store::Result;
use woodfrog_types::secret::VolumeMount;

use crate::parse;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredMount {
    volume: String,
    name: String,
    path: String,
}

pub(crate) fn mounts_to_stored(mounts: &[VolumeMount]) -> Vec<StoredMount> {
    let stored = |mount: &VolumeMount| StoredMount {
        volume: mount.volume.to_string(),
        name: mount.name.clone(),
        path: mount.path.clone(),
    };
    mounts.iter().map(stored).collect()
}

/// `what` is the kind of record that they are in.
pub(crate) fn mounts_from_stored(
    what: &'static str,
    stored: Vec<StoredMount>,
) -> Result<Vec<VolumeMount>> {
    let mount = |stored: StoredMount| {
        Ok(VolumeMount {
            volume: parse(what, &stored.volume)?,
            name: stored.name,
            path: stored.path,
        })
    };
    stored.into_iter().map(mount).collect()
}
