//! The stores alone, and the limits beside them: an example of each adapter measures it in one
//! process, in the directory that the build is in.

use anyhow::{Context, Result};
use serde_json::Value;

use super::rate;
use crate::bench::sample::Sample;
use crate::server::root;
use crate::step::output;

pub(super) fn sqlite() -> Result<Vec<Sample>> {
    all("woodfrog-store-sqlite", "session_bench")
}

/// On a server of the Debian package that the example starts, in the same directory.
pub(super) fn postgres() -> Result<Vec<Sample>> {
    all("woodfrog-store-postgres", "postgres_bench")
}

pub(super) fn all(package: &str, example: &str) -> Result<Vec<Sample>> {
    let dir = root().join("target");
    let mut command = crate::step::cargo();
    command.args(["run", "--release", "--quiet", "--package", package]);
    command.args(["--example", example, "--"]);
    command.arg(&dir).env("TMPDIR", &dir);
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
