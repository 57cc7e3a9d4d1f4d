//! Where the driver keeps things, and what they are called on the machine.

use std::path::{Path, PathBuf};

pub use woodfrog_driver_common::instance_id;
use woodfrog_types::{SandboxId, SnapshotId};

/// Folders below a data directory.
#[derive(Debug, Clone)]
pub struct Paths {
    /// One folder (a subvolume) per sandbox.
    pub sandboxes: PathBuf,
    /// Skeleton layers, named by the guest's digest.
    pub skeletons: PathBuf,
    /// One read-only subvolume per snapshot.
    pub snapshots: PathBuf,
    /// What is being written and belongs to no snapshot yet.
    pub staging: PathBuf,
    /// Where root file systems are mounted while something is restored on them.
    pub mounts: PathBuf,
    /// Notes about running sandboxes.
    pub notes: PathBuf,
}

impl Paths {
    /// Below `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        let pool = data_dir.join("pool");
        Self {
            sandboxes: pool.join("sandboxes"),
            skeletons: pool.join("skeletons"),
            snapshots: pool.join("snapshots"),
            staging: pool.join("staging"),
            mounts: data_dir.join("mounts"),
            notes: data_dir.join("notes"),
        }
    }

    /// The folder of one sandbox.
    pub(crate) fn sandbox(&self, id: &SandboxId) -> PathBuf {
        self.sandboxes.join(id.as_str())
    }

    /// The folder of one snapshot.
    pub(crate) fn snapshot(&self, id: &SnapshotId) -> PathBuf {
        self.snapshots.join(id.as_str())
    }

    /// The folder of a sandbox that sleeps and holds just what a snapshot holds. Only this boot
    /// can vouch for that, so the name has the boot in it.
    pub(crate) fn asleep(&self, id: &SandboxId, snapshot: &SnapshotId) -> PathBuf {
        let boot: String = boot_id().chars().filter(|c| *c != '-').take(12).collect();
        self.sandboxes.join(format!("{id}.{snapshot}.{boot}"))
    }
}

/// Changes at every boot of the host.
pub(crate) fn boot_id() -> &'static str {
    static BOOT_ID: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_owned()
    });
    &BOOT_ID
}
