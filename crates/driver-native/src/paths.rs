//! Where the driver keeps things, and what they are called on the machine.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use woodfrog_types::SandboxId;

/// Folders below a data directory.
#[derive(Debug, Clone)]
pub struct Paths {
    /// One folder (a subvolume) per sandbox.
    pub sandboxes: PathBuf,
    /// Skeleton layers, named by the guest's digest.
    pub skeletons: PathBuf,
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
            notes: data_dir.join("notes"),
        }
    }

    /// The folder of one sandbox.
    pub(crate) fn sandbox(&self, id: &SandboxId) -> PathBuf {
        self.sandboxes.join(id.as_str())
    }
}

/// Six hexadecimal digits that tell this data directory from others on the machine.
pub fn instance_id(data_dir: &Path) -> String {
    let path = data_dir
        .canonicalize()
        .unwrap_or_else(|_| data_dir.to_path_buf());
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    hex::encode(&digest[..3])
}
