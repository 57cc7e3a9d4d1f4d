//! What idle sandboxes cost.

use anyhow::{Context, Result};
use woodfrog_testkit::Server;

use super::sample::Sample;
use woodfrog_testkit::http::Client;

/// How many idle sandboxes are made.
const MANY: &[usize] = &[200, 500];

/// Memory of the server and of the machine, per idle sandbox.
pub(super) fn all(server: &Server) -> Result<Vec<Sample>> {
    let mut client = Client::connect(server.url())?;
    let before = available()?;
    let mut ids = Vec::new();
    let mut rows = Vec::new();
    for many in MANY {
        while ids.len() < *many {
            ids.push(super::create(&mut client)?);
        }
        // Signed: what else runs on the machine is in it, and can outweigh it.
        let delta = i64::try_from(before)? - i64::try_from(available()?)?;
        rows.push(Sample::figure(
            format!("memory per idle sandbox, {many} running: change of MemAvailable"),
            format!("{} KiB", delta / i64::try_from(*many)?),
        ));
        rows.push(Sample::figure(
            format!("memory per idle sandbox, {many} running: charged to its cgroup"),
            format!("{} KiB", charged(&ids)? / *many as u64),
        ));
        rows.push(Sample::figure(
            format!("resident memory of the server, {many} running"),
            format!("{} MiB", resident(server.pid())? / 1024),
        ));
    }
    for id in &ids {
        super::delete(&mut client, id)?;
    }
    for row in &rows {
        println!("{row}");
    }
    Ok(rows)
}

/// KiB that the kernel counts for these sandboxes, whichever cgroups there are.
fn charged(ids: &[String]) -> Result<u64> {
    let bytes = charged_now(ids);
    anyhow::ensure!(bytes > 0, "no cgroup of a sandbox was found");
    Ok(bytes / 1024)
}

/// Bytes that the kernel counts for those of these sandboxes that are awake.
pub(super) fn charged_now(ids: &[String]) -> u64 {
    let mut bytes = 0;
    for (root, file) in [
        ("/sys/fs/cgroup/memory", "memory.usage_in_bytes"),
        ("/sys/fs/cgroup", "memory.current"),
    ] {
        for instance in std::fs::read_dir(root).into_iter().flatten() {
            let Ok(instance) = instance else { continue };
            let instance = instance.path();
            for id in ids {
                if let Ok(text) = std::fs::read_to_string(instance.join(id).join(file)) {
                    bytes += text.trim().parse::<u64>().unwrap_or(0);
                }
            }
        }
    }
    bytes
}

/// KiB that the machine could still give out.
fn available() -> Result<u64> {
    field("/proc/meminfo", "MemAvailable:")
}

/// KiB resident of a process.
pub(super) fn resident(pid: u32) -> Result<u64> {
    field(&format!("/proc/{pid}/status"), "VmRSS:")
}

fn field(file: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(file)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .context("field")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
