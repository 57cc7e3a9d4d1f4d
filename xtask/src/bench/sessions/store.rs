//! The store alone, and the limits beside it: an example of `store-sqlite` measures them in one
//! process, in the directory that the build is in.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::rate;
use crate::bench::sample::Sample;
use crate::server::root;
use crate::step::output;

pub(super) fn all() -> Result<Vec<Sample>> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--release", "--quiet"]);
    command.args(["--package", "woodfrog-store-sqlite"]);
    command.args(["--example", "session_bench", "--"]);
    command.arg(root().join("target"));
    let text = output(command.current_dir(root()))?;
    text.lines().map(row).collect()
}

fn row(line: &str) -> Result<Sample> {
    let row: Value = serde_json::from_str(line).context("a row of the store")?;
    let figure = |key: &str| row[key].as_f64().with_context(|| key.to_owned());
    Ok(rate(
        row["name"].as_str().context("its name")?,
        figure("per_second")?,
        figure("p50_ms")?,
        figure("p99_ms")?,
    ))
}
