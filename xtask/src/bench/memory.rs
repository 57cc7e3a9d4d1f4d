//! What idle sandboxes cost.

use anyhow::{Context, Result};
use woodfrog_testkit::Server;

use super::http::Client;
use super::sample::Sample;

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
        let each = before.saturating_sub(available()?) / *many as u64;
        rows.push(Sample::figure(
            format!("memory per idle sandbox, {many} running"),
            format!("{each} KiB"),
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
