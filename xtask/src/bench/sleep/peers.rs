//! The same without us: CRIU on a bare process, runsc, a plain copy.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use woodfrog_testkit::Server;
use woodfrog_testkit::soak::Random;

use super::Kind;
use crate::bench::floor::bundle;
use crate::bench::peer;
use crate::bench::sample::{Sample, measure};
use crate::server::root;
use crate::step::output;

const RUNS: usize = 10;

/// Dump and restore of one process with as much memory, through our RPC client.
pub(super) fn criu(kind: Kind) -> Result<Vec<Sample>> {
    let mut command = crate::step::cargo();
    command.args(["run", "--release", "--quiet", "--package", "woodfrog-linux"]);
    command.args(["--example", "criu_floor", "--"]);
    command.args([kind.held_mib.to_string(), RUNS.to_string()]);
    let text = output(command.current_dir(root()))?;
    text.lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).context("a row")?;
            let millis = row["millis"].as_array().context("its times")?;
            let millis = millis.iter().filter_map(Value::as_f64).collect();
            let what = row["name"].as_str().context("its name")?;
            let name = format!("{}: CRIU alone, a bare process, {what}", kind.name);
            let sample = Sample::new(&name, millis);
            println!("{sample}");
            Ok(sample)
        })
        .collect()
}

/// A file that goes when this does.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writing as many bytes that do not compress to the same pool, synced.
pub(super) fn plain_copy(server: &Server, kind: Kind) -> Result<Vec<Sample>> {
    let file = Removed(server.data_dir().join("pool/bench-copy"));
    let mut random = Random::new(1);
    let block: Vec<u8> = (0..1 << 17)
        .flat_map(|_| random.draw().to_le_bytes())
        .collect();
    let name = format!("{}: limit: plain copy of the same bytes, synced", kind.name);
    let sample = measure(&name, kind.rounds.min(RUNS), || {
        copy(&file.0, &block, kind.held_mib)
    })?;
    Ok(vec![sample])
}

fn copy(path: &Path, block: &[u8], times: usize) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    for _ in 0..times {
        file.write_all(block)?;
    }
    file.sync_all()?;
    Ok(())
}

/// A container with one sleeping process.
pub(super) fn runsc() -> Result<Vec<Sample>> {
    let name = |what: &str| format!("peer: runsc, one process, {what}");
    let Some(program) = peer("runsc") else {
        let why = "runsc is not installed: `woodfrog doctor --fix`";
        return Ok(vec![Sample::missing(&name("checkpoint"), why)]);
    };
    let bundle = bundle(&program, &["/usr/bin/sleep", "1000"])?;
    let images = bundle.join("images");
    let run = |args: &[&str]| -> Result<()> {
        let flags = ["--platform=systrap", "--ignore-cgroups", "--network=none"];
        // Not pipes: the sandbox keeps them.
        let status = Command::new(&program)
            .args(flags)
            .arg("--overlay2=none")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.success(), "runsc {}: {status}", args.join(" "));
        Ok(())
    };
    let bundle = bundle.to_string_lossy().into_owned();
    let images = images.to_string_lossy().into_owned();
    let (mut down, mut up) = (Vec::new(), Vec::new());
    for number in 0..RUNS {
        let id = format!("wf-sleep-{}-{number}", std::process::id());
        let copy = format!("{id}-again");
        let _ = std::fs::remove_dir_all(&images);
        std::fs::create_dir_all(&images)?;
        run(&["run", "--detach", "--bundle", &bundle, &id])?;
        let start = std::time::Instant::now();
        let saved = run(&["checkpoint", "--image-path", &images, &id]);
        down.push(start.elapsed().as_secs_f64() * 1000.0);
        let _ = run(&["delete", "--force", &id]);
        saved?;
        let start = std::time::Instant::now();
        let image = ["--image-path", images.as_str()];
        let woken = run(&[
            "restore", "--detach", "--bundle", &bundle, image[0], image[1], &copy,
        ]);
        up.push(start.elapsed().as_secs_f64() * 1000.0);
        let _ = run(&["delete", "--force", &copy]);
        woken?;
    }
    std::fs::remove_dir_all(&images)?;
    let rows = vec![
        Sample::new(&name("checkpoint"), down),
        Sample::new(&name("restore"), up),
    ];
    rows.iter().for_each(|row| println!("{row}"));
    Ok(rows)
}
