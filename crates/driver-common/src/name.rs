//! What a data directory's things are called on the machine.

use std::path::Path;

use sha2::{Digest, Sha256};

/// Six hexadecimal digits that tell this directory from others on the machine.
pub fn instance_id(data_dir: &Path) -> String {
    let path = data_dir
        .canonicalize()
        .unwrap_or_else(|_| data_dir.to_path_buf());
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    hex::encode(&digest[..3])
}
