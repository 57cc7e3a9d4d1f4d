//! Commands and bulk data: through the JavaScript SDK and through the native API.

use std::process::Command;

use anyhow::Result;
use woodfrog_testkit::Server;

use super::sample::Sample;
use crate::server::root;
use crate::setup::{JS_SDKS, javascript_dir};
use crate::step::output;

/// Bytes of the bulk transfers.
const BULK: u64 = 2 << 30;

/// All of them.
pub(super) fn all(server: &Server) -> Result<Vec<Sample>> {
    let mut rows = vec![sdk_commands(server)?];
    let id = server.create(&[
        "base",
        "--timeout",
        "900",
        "--disk",
        "8GiB",
        "--memory",
        "2GiB",
    ])?;
    rows.extend(bulk(server, &id)?);
    server.run(&["sandbox", "delete", &id])?;
    Ok(rows)
}

/// `commands.run("true")` on a kept connection.
fn sdk_commands(server: &Server) -> Result<Sample> {
    let version = JS_SDKS.last().copied().unwrap_or_default();
    let program = javascript_dir(version).join("bench-commands.mjs");
    std::fs::copy(root().join("tests/bench/commands.mjs"), &program)?;
    let text = output(
        Command::new("node")
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
    let dir = server.data_dir();
    let file = dir.join("bulk");
    let script = format!("head -c {BULK} /dev/zero > {}", file.display());
    let limit = timed("limit: the disk under this, written by the shell", &script)?;
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
    Ok(vec![
        limit,
        timed("upload of a file", &up)?,
        timed("download of a file", &down)?,
        timed(
            "limit: the same output through a shell's pipe",
            &format!("head -c {BULK} /dev/zero | cat > /dev/null"),
        )?,
        timed("output of a process", &command)?,
    ])
}

fn timed(name: &str, script: &str) -> Result<Sample> {
    let start = std::time::Instant::now();
    output(Command::new("sh").args(["-c", script]))?;
    let rate = BULK / (1 << 20) * 1000 / u64::try_from(start.elapsed().as_millis().max(1))?;
    let sample = Sample::figure(format!("{name}, 2 GiB"), format!("{rate} MiB/s"));
    println!("{sample}");
    Ok(sample)
}
