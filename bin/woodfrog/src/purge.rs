//! `woodfrog purge`: takes a server away from the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use woodfrog_cli::Config;
use woodfrog_cli::config::Layers;

/// Ends every sandbox of the data directory and removes all of it.
pub(crate) fn run(data_dir: &Path, file: Option<&PathBuf>, yes: bool) -> Result<()> {
    if !data_dir.exists() {
        return Ok(());
    }
    if !yes {
        bail!(
            "this deletes {} with every sandbox in it; say --yes",
            data_dir.display()
        );
    }
    // Guards against deleting a folder that never was a data directory.
    if !data_dir.join("lock").exists() {
        bail!("{} is no data directory of a server", data_dir.display());
    }
    let lock = std::fs::File::open(data_dir.join("lock"))?;
    lock.try_lock()
        .map_err(|_| anyhow::anyhow!("the server is running; end it first"))?;
    let text = data_dir
        .to_str()
        .context("the data directory's path is not UTF-8")?;
    let flags = BTreeMap::from([("data_dir".to_owned(), text.to_owned())]);
    let config = Config::from_resolved(
        &Layers {
            flags,
            environment: std::env::vars().collect(),
            file: file.cloned(),
        }
        .resolve()?,
    )?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let drivers = crate::serve::drivers(&config).await?;
        drivers.purge().await
    })?;
    std::fs::remove_dir_all(data_dir).with_context(|| format!("remove {}", data_dir.display()))
}
