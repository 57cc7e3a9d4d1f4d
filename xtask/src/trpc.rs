//! Programs written against the unmodified tRPC client, run against the built binary.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use woodfrog_testkit::Server;

use crate::sdk::{PROGRAM, copy_helpers, run_bounded, sources};
use crate::server::root;
use crate::setup::node_program;
use crate::suite::Tally;

/// The client's releases that must work: the last of version 10 and the newest.
const CLIENTS: &[&str] = &["10.45.4", "11.25.2"];
const SUPERJSON: &str = "2.2.6";

/// Runs every program whose name contains `filter` with every release. The server asks for keys.
pub(crate) fn run(server: &Server, filter: &str, tally: &mut Tally) -> Result<()> {
    let programs = sources("tests/trpc", "mjs", filter)?;
    if programs.is_empty() {
        return Ok(());
    }
    let key = std::fs::read_to_string(server.data_dir().join("admin.key"))?;
    for version in CLIENTS {
        let dir = install(version)?;
        for program in &programs {
            // Modules are resolved from where the file is: it runs as a copy beside them.
            let copy = dir.join(program.file_name().context("file name")?);
            std::fs::copy(program, &copy)?;
            copy_helpers(program, &dir)?;
            let mut command = Command::new(node_program());
            command
                .arg(&copy)
                .env("WOODFROG_URL", server.url())
                .env("WOODFROG_API_KEY", key.trim())
                .env("TRPC_VERSION", version);
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            let title = format!("{name} · @trpc/client {version}");
            run_bounded(&title, &command, PROGRAM, tally);
        }
    }
    Ok(())
}

fn install(version: &str) -> Result<PathBuf> {
    let dir = root().join(format!("target/sdk/trpc-{version}"));
    if dir.join("node_modules/@trpc/client/package.json").is_file() {
        return Ok(dir);
    }
    println!("npm: @trpc/client {version}");
    std::fs::create_dir_all(&dir)?;
    let package = "{\"private\":true,\"type\":\"module\"}\n";
    std::fs::write(dir.join("package.json"), package)?;
    let mut command = Command::new("npm");
    command
        .args(["install", "--no-audit", "--no-fund", "--loglevel=error"])
        // Of the peers only the server's package is loaded; the TypeScript compiler is not.
        .arg("--legacy-peer-deps")
        .args([
            format!("@trpc/client@{version}"),
            format!("@trpc/server@{version}"),
            format!("superjson@{SUPERJSON}"),
        ])
        .current_dir(&dir);
    crate::step::run_over_network(&mut command).context("install the tRPC client")?;
    Ok(dir)
}
