//! Building the server.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Builds the server and returns its path.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
    let mut command = crate::step::cargo();
    command
        .args(["build", "--locked", "--package", "woodfrog"])
        .current_dir(root());
    if release {
        command.arg("--release");
    }
    crate::step::run(&mut command)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    Ok(target
        .join(if release { "release" } else { "debug" })
        .join("woodfrog"))
}

/// Has the server bring what it needs beyond the system's packages: CRIU and gVisor, each in a
/// folder of its own. Quick once they are there.
pub(crate) fn complete(binary: &Path) -> Result<()> {
    crate::step::run(Command::new(binary).args(["doctor", "--fix"]))
}
