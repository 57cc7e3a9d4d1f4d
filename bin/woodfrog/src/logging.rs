//! Logs to standard error.

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;
use woodfrog_cli::Config;

/// Starts logging for people.
pub(crate) fn plain(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter).context("the flag `--log`")?;
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .try_init();
    started.map_err(|error| anyhow::anyhow!("start logging: {error}"))
}

/// Starts logging as configured.
pub(crate) fn start(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log).context("the setting `log`")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr);
    let started = if config.log_json {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
    started.map_err(|error| anyhow::anyhow!("start logging: {error}"))
}
