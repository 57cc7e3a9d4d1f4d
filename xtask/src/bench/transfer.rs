//! Commands and bulk data: through the JavaScript SDK and through the native API.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;
use woodfrog_testkit::Server;

use super::sample::Sample;
use crate::server::root;
use crate::setup::{JS_SDKS, javascript_dir, node_program};
use crate::step::output;
use woodfrog_testkit::http::Client;

/// Bytes of the bulk transfers.
const BULK: u64 = 2 << 30;

/// All of them.
pub(super) fn all(server: &Server) -> Result<Vec<Sample>> {
    let mut rows = vec![sdk_commands(server)?];
    let mut client = Client::connect(server.url())?;
    let id = roomy(&mut client)?;
    rows.extend(bulk(server, &id)?);
    super::delete(&mut client, &id)?;
    Ok(rows)
}

/// A sandbox that the transfers fit in.
fn roomy(client: &mut Client) -> Result<String> {
    let body = json!({
        "template": "base",
        "timeout_seconds": 900,
        "resources": {
            "cpu_count": 2, "memory_bytes": 2u64 << 30, "disk_bytes": 8u64 << 30, "pids": 512
        },
    });
    let (status, answer) = client.request("POST", "/api/v1/sandboxes", Some(&body))?;
    let id = answer["id"].as_str().map(str::to_owned);
    id.with_context(|| format!("create: {status} {answer}"))
}

/// `commands.run("true")` on a kept connection.
fn sdk_commands(server: &Server) -> Result<Sample> {
    let version = JS_SDKS.last().copied().unwrap_or_default();
    let program = javascript_dir(version).join("bench-commands.mjs");
    std::fs::copy(root().join("tests/bench/commands.mjs"), &program)?;
    let text = output(
        Command::new(node_program())
            .arg(program)
            .env("E2B_API_KEY", format!("e2b_{}", "0".repeat(40)))
            .env("E2B_API_URL", server.url())
            .env("E2B_SANDBOX_URL", server.url()),
    )?;
    let millis = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    Ok(Sample::new(
        "commands.run(\"true\") through the JavaScript SDK",
        millis,
    ))
}

fn bulk(server: &Server, id: &str) -> Result<Vec<Sample>> {
    // Uploads come from memory, so that reading them costs nothing.
    let file = Path::new("/dev/shm").join(format!("wf-bench-{}", std::process::id()));
    let memory = Removed(file.clone());
    let disk = Removed(server.data_dir().join("pool/bulk"));
    let zeros = |to: &Path| format!("dd if=/dev/zero of={} bs=1M count=2048 2>&1", to.display());
    let limits = vec![
        timed("limit: dd to memory", &zeros(&file))?,
        timed("limit: dd to the same pool", &zeros(&disk.0))?,
        timed(
            "limit: dd to the same pool, synced",
            &format!("{} && sync -f {}", zeros(&disk.0), disk.0.display()),
        )?,
        timed(
            "limit: dd from the same pool",
            &format!("dd if={} of=/dev/null bs=1M 2>&1", disk.0.display()),
        )?,
    ];
    drop(disk);
    let key = "X-API-Key: e2b_bench";
    let base = format!(
        "{}/api/v1/sandboxes/{id}/files/content?path=/home/user/bulk",
        server.url()
    );
    let up = format!("curl -sSf -H '{key}' -T {} '{base}'", file.display());
    let down = format!("curl -sSf -H '{key}' -o /dev/null '{base}'");
    let exec = format!("{}/api/v1/sandboxes/{id}/exec?output=raw", server.url());
    let command = format!(
        "curl -sSf -H '{key}' -H 'Content-Type: application/json' -o /dev/null \
         -d '{{\"command\":[\"head\",\"-c\",\"{BULK}\",\"/dev/zero\"]}}' '{exec}'"
    );
    let mut rows = limits;
    let resident = super::memory::resident(server.pid())?;
    rows.extend([
        timed("upload of a file", &up)?,
        timed("download of a file", &down)?,
        timed(
            "limit: the same output through a shell's pipe",
            &format!("head -c {BULK} /dev/zero | cat > /dev/null"),
        )?,
        timed("output of a process", &command)?,
    ]);
    drop(memory);
    let after = super::memory::resident(server.pid())?;
    rows.push(Sample::figure(
        "resident memory of the server before and after these",
        format!("{} MiB, {} MiB", resident / 1024, after / 1024),
    ));
    Ok(rows)
}

/// A file that goes when this does.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn timed(name: &str, script: &str) -> Result<Sample> {
    let start = std::time::Instant::now();
    output(Command::new("sh").args(["-c", script]))?;
    let rate = BULK / (1 << 20) * 1000 / u64::try_from(start.elapsed().as_millis().max(1))?;
    let sample = Sample::figure(format!("{name}, 2 GiB"), format!("{rate} MiB/s"));
    println!("{sample}");
    Ok(sample)
}
