//! The kernel's floor and the peers: bubblewrap, runc, runsc.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use super::sample::{Sample, measure};
use crate::server::root;
use crate::step::output;

const RUNS: usize = 60;

/// What the OCI runtimes run.
const PROGRAM: &str = "/usr/bin/true";

/// All of them, in the order of the table.
pub(super) fn all() -> Result<Vec<Sample>> {
    let mut rows = bare_floor()?;
    rows.extend([bubblewrap()?, runc()?, runsc()?]);
    Ok(rows)
}

/// The bare `clone3` + overlay + `pivot_root` + `exec` round trip.
fn bare_floor() -> Result<Vec<Sample>> {
    let mut command = crate::step::cargo();
    command.args(["run", "--release", "--quiet", "--package", "woodfrog-linux"]);
    command.args(["--example", "floor", "--", "200", "--rows"]);
    let text = output(command.current_dir(root()))?;
    text.lines().map(bare_row).collect()
}

fn bare_row(line: &str) -> Result<Sample> {
    let row: Value = serde_json::from_str(line).context("a row of the floor")?;
    let millis = row["millis"].as_array().context("its times")?;
    let millis = millis.iter().filter_map(Value::as_f64).collect();
    let sample = Sample::new(row["name"].as_str().context("its name")?, millis);
    println!("{sample}");
    Ok(sample)
}

fn quiet(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("start a peer")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        said.trim()
    );
    Ok(())
}

fn bubblewrap() -> Result<Sample> {
    let name = "peer: bwrap, all namespaces, `true`";
    let Some(program) = super::peer("bwrap") else {
        return Ok(Sample::missing(name, "apt-get install bubblewrap"));
    };
    measure(name, RUNS, || {
        quiet(Command::new(&program).args([
            "--unshare-all",
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "true",
        ]))
    })
}

fn runc() -> Result<Sample> {
    let name = "peer: runc run, `true`";
    let Some(program) = super::peer("runc") else {
        return Ok(Sample::missing(name, "apt-get install runc"));
    };
    let bundle = bundle(&program, &[PROGRAM])?;
    let mut number = 0;
    let sample = measure(name, RUNS.min(30), || {
        number += 1;
        let id = format!("wf-bench-{}-{number}", std::process::id());
        quiet(
            Command::new(&program)
                .args(["run", "--bundle"])
                .arg(&bundle)
                .arg(id),
        )
    });
    Ok(sample.unwrap_or_else(|error| Sample::missing(name, error.to_string())))
}

fn runsc() -> Result<Sample> {
    let name = "peer: runsc run, `true`";
    let Some(program) = super::peer("runsc") else {
        let how = "runsc is not installed: `woodfrog doctor --fix`, or gVisor's package `runsc`";
        return Ok(Sample::missing(name, how));
    };
    let bundle = bundle(&program, &[PROGRAM])?;
    let mut number = 0;
    let sample = measure(name, 10, || {
        number += 1;
        let id = format!("wf-bench-{}-{number}", std::process::id());
        quiet(
            Command::new(&program)
                .args([
                    "--platform=systrap",
                    "--ignore-cgroups",
                    "--network=none",
                    "run",
                    "--bundle",
                ])
                .arg(&bundle)
                .arg(id),
        )
    });
    Ok(sample.unwrap_or_else(|error| Sample::missing(name, error.to_string())))
}

/// An OCI bundle with one program in a root of its own, as this runtime writes it.
pub(super) fn bundle(runtime: &Path, command: &[&str]) -> Result<PathBuf> {
    let name = runtime.file_name().context("a runtime's name")?;
    let program = command.first().context("a command")?;
    let dir = root().join("target/bench-bundle").join(name);
    std::fs::create_dir_all(&dir)?;
    small_root(&dir.join("root"), program)?;
    let config = dir.join("config.json");
    if !config.exists() {
        quiet(Command::new(runtime).arg("spec").current_dir(&dir))?;
    }
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&config)?)?;
    spec["process"]["terminal"] = Value::Bool(false);
    spec["process"]["args"] = serde_json::json!(command);
    // Mounting it fails where the machine's version 1 hierarchies are not laid out as runc expects.
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["type"] != "cgroup");
    }
    spec["root"] = serde_json::json!({ "path": "root", "readonly": false });
    std::fs::write(&config, spec.to_string())?;
    Ok(dir)
}

/// The program and the libraries it is linked with.
fn small_root(root: &Path, program: &str) -> Result<()> {
    let libraries = output(Command::new("ldd").arg(program))?;
    let files = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in files.chain([program]) {
        let to = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().context("a file in a directory")?)?;
        std::fs::copy(file, to).with_context(|| format!("copy {file}"))?;
    }
    Ok(())
}
