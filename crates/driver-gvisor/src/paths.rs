//! Where the driver keeps things.

use std::path::{Path, PathBuf};

use woodfrog_types::{SandboxId, SnapshotId};

/// Folders below a server's data directory.
#[derive(Debug, Clone)]
pub struct Paths {
    /// What is ours alone; the names on the machine derive from it.
    pub home: PathBuf,
    /// One folder (a subvolume) per sandbox.
    pub sandboxes: PathBuf,
    /// One subvolume per snapshot.
    pub snapshots: PathBuf,
    /// Skeleton layers, named by the guest's digest.
    pub skeletons: PathBuf,
    /// Notes about running sandboxes.
    pub notes: PathBuf,
    /// OCI bundles.
    pub bundles: PathBuf,
    /// What runsc knows.
    pub state: PathBuf,
}

impl Paths {
    /// Below `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        let (home, pool) = (data_dir.join("gvisor"), data_dir.join("pool/gvisor"));
        Self {
            sandboxes: pool.join("sandboxes"),
            snapshots: pool.join("snapshots"),
            skeletons: pool.join("skeletons"),
            notes: home.join("notes"),
            bundles: home.join("bundles"),
            state: home.join("state"),
            home,
        }
    }

    pub(crate) fn sandbox(&self, id: &SandboxId) -> PathBuf {
        self.sandboxes.join(id.as_str())
    }

    pub(crate) fn bundle(&self, id: &SandboxId) -> PathBuf {
        self.bundles.join(id.as_str())
    }

    pub(crate) fn snapshot(&self, id: &SnapshotId) -> PathBuf {
        self.snapshots.join(id.as_str())
    }

    /// Where an archived one is put together.
    pub(crate) fn import(&self, id: &SnapshotId) -> PathBuf {
        self.snapshots.join(format!("{id}.import"))
    }
}
