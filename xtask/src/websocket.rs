//! Programs written against the WebSocket sandbox in JavaScript and Python, run against the built
//! binary. Their clients are no packages: the programs bring one each.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use woodfrog_testkit::Server;

use crate::sdk::{PROGRAM, copy_helpers, run_bounded, sources};
use crate::server::root;
use crate::setup::node_program;
use crate::suite::Tally;

/// The libraries that the clients in the field use.
const NODE_LIBRARY: &str = "ws@8.23.0";
const PYTHON_LIBRARY: &str = "websockets==17.4";

/// Runs every program whose name contains `filter`. The server asks for keys.
pub(crate) fn run(server: &Server, filter: &str, tally: &mut Tally) -> Result<()> {
    let javascript = sources("tests/websocket/js", "mjs", filter)?;
    let python = sources("tests/websocket/python", "py", filter)?;
    if !javascript.is_empty() {
        let dir = node()?;
        for program in javascript {
            // Modules are resolved from where the file is: it runs as a copy beside them.
            let copy = dir.join(program.file_name().context("file name")?);
            std::fs::copy(&program, &copy)?;
            copy_helpers(&program, &dir)?;
            let mut command = Command::new(node_program());
            ask(server, command.arg(&copy), &program, "JavaScript", tally)?;
        }
    }
    if !python.is_empty() {
        let interpreter = interpreter()?;
        for program in python {
            let mut command = Command::new(&interpreter);
            command.env("PYTHONDONTWRITEBYTECODE", "1").arg(&program);
            ask(server, &mut command, &program, "Python", tally)?;
        }
    }
    Ok(())
}

fn ask(
    server: &Server,
    command: &mut Command,
    program: &std::path::Path,
    language: &str,
    tally: &mut Tally,
) -> Result<()> {
    let key = std::fs::read_to_string(server.data_dir().join("admin.key"))?;
    let url = server.url().replacen("http", "ws", 1);
    command
        .env("WOODFROG_WS_URL", format!("{url}/ws"))
        .env("WOODFROG_API_KEY", key.trim());
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let title = format!("{name} · WebSocket · {language}");
    run_bounded(&title, command, PROGRAM, tally);
    Ok(())
}

fn node() -> Result<PathBuf> {
    let dir = root().join("target/sdk/websocket");
    if dir.join("node_modules/ws/package.json").is_file() {
        return Ok(dir);
    }
    println!("npm: {NODE_LIBRARY}");
    std::fs::create_dir_all(&dir)?;
    let package = "{\"private\":true,\"type\":\"module\"}\n";
    std::fs::write(dir.join("package.json"), package)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error"])
        .args(["--ignore-scripts", NODE_LIBRARY]);
    crate::step::run_over_network(npm.current_dir(&dir))
        .context("install the WebSocket library")?;
    Ok(dir)
}

fn interpreter() -> Result<PathBuf> {
    let dir = root().join("target/sdk/websocket-py");
    let (program, marker) = (dir.join("bin/python"), dir.join(".installed"));
    if marker.is_file() {
        return Ok(program);
    }
    println!("pip: {PYTHON_LIBRARY}");
    crate::step::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&dir),
    )?;
    let mut pip = Command::new(&program);
    pip.args(["-m", "pip", "install", "-q", PYTHON_LIBRARY]);
    crate::step::run_over_network(&mut pip).context("install the WebSocket library")?;
    std::fs::write(marker, "")?;
    Ok(program)
}
