//! The real agents that tests drive, from npm.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::server::root;

/// Where `tests/agents/package.json` is installed.
pub(crate) fn dir(cache: &Path) -> PathBuf {
    cache.join("agents")
}

/// Installs them unless what is there was installed from the same list.
pub(crate) fn ensure(cache: &Path) -> Result<()> {
    let dir = dir(cache);
    let list = root().join("tests/agents/package.json");
    let wanted = std::fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let marker = dir.join(".installed");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    println!("npm: agents of tests/agents/package.json");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("package.json"), &wanted)?;
    let mut install = Command::new("npm");
    install.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]);
    crate::step::run_over_network(install.current_dir(&dir)).context("install the agents")?;
    std::fs::write(marker, wanted)?;
    Ok(())
}
