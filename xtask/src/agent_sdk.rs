//! Programs written against the unmodified `sandbox-agent` package, run against a sandbox of the
//! built server and against `woodfrog agent-server`; and the TypeScript packages' own tests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use woodfrog_testkit::Server;

use crate::sdk::{PROGRAM, copy_helpers, free_port, run_bounded, sources};
use crate::server::root;
use crate::setup::node_program;
use crate::step::run_over_network;
use crate::suite::Tally;

/// What the programs load, with their releases.
const PACKAGES: [&str; 2] = ["sandbox-agent@0.4.2", "ws@8.23.0"];
const PROGRAMS: &str = "tests/sandbox-agent/js";
/// How long `agent-server` may take to listen.
const START: Duration = Duration::from_secs(20);
/// How long the TypeScript packages' tests may take: they start databases and a browser, and write
/// thousands of events to disk one by one.
const PACKAGE_TESTS: Duration = Duration::from_secs(1200);
const TOKEN: &str = "token-of-the-tests";

/// Runs every program whose name contains `filter`, in both ways. The server asks for keys.
pub(crate) fn run(server: &Server, filter: &str, tally: &mut Tally) -> Result<()> {
    let programs = sources(PROGRAMS, "mjs", filter)?;
    if !programs.is_empty() {
        let dir = install()?;
        in_a_sandbox(server, &programs, &dir, tally)?;
        without_one(server, &programs, &dir, tally)?;
    }
    if "typescript".contains(filter) {
        let mut packages = Command::new(node_program());
        packages.arg(root().join("sdks/typescript/run-tests.mjs"));
        let mut install = Command::new(node_program());
        install.args(packages.get_args()).arg("--install");
        run_over_network(&mut install).context("install what the TypeScript packages need")?;
        run_bounded("TypeScript packages", &packages, PACKAGE_TESTS, tally);
    }
    Ok(())
}

fn in_a_sandbox(
    server: &Server,
    programs: &[PathBuf],
    dir: &Path,
    tally: &mut Tally,
) -> Result<()> {
    let key = std::fs::read_to_string(server.data_dir().join("admin.key"))?;
    for program in programs {
        // Some of them kill every agent there is: each has a sandbox of its own.
        let sandbox = server.create(&["base"])?;
        let mut command = Command::new(node_program());
        command
            .env(
                "WOODFROG_AGENT_URL",
                format!("{}/agent/{sandbox}", server.url()),
            )
            .env("WOODFROG_AGENT_TOKEN", key.trim())
            .env("WOODFROG_AGENT_DIR", "/home/user")
            .env("WOODFROG_URL", server.url())
            .env("WOODFROG_API_KEY", key.trim());
        run_copy(command, program, dir, "in a sandbox", tally)?;
        server.run(&["sandbox", "delete", &sandbox])?;
    }
    Ok(())
}

/// `agent-server` on a port and with a home of its own.
struct Standalone<'a> {
    binary: &'a Path,
    port: u16,
    home: PathBuf,
}

impl<'a> Standalone<'a> {
    fn new(binary: &'a Path, name: &str) -> Result<Self> {
        let home = root().join("target/sdk-run").join(name);
        // What an earlier run stored under this port would be taken up.
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
        std::fs::create_dir_all(&home)?;
        let port = free_port()?;
        Ok(Self { binary, port, home })
    }

    fn start(&self, env: &[(&str, &str)]) -> Result<Ended> {
        let child = Command::new(self.binary)
            .args(["agent-server", "--host", "127.0.0.1", "--token", TOKEN])
            .arg("--port")
            .arg(self.port.to_string())
            .env("HOME", &self.home)
            .env("XDG_DATA_HOME", self.home.join("data"))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .spawn()
            .context("start agent-server")?;
        let mut child = Ended(child);
        wait_for_port(self.port, &mut child.0)?;
        Ok(child)
    }

    fn run(
        &self,
        program: &Path,
        dir: &Path,
        env: &[(&str, &str)],
        tally: &mut Tally,
    ) -> Result<()> {
        let mut command = Command::new(node_program());
        command
            .env(
                "WOODFROG_AGENT_URL",
                format!("http://127.0.0.1:{}", self.port),
            )
            .env("WOODFROG_AGENT_TOKEN", TOKEN)
            .env("WOODFROG_AGENT_DIR", &self.home)
            .envs(env.iter().copied());
        run_copy(command, program, dir, "agent-server", tally)
    }
}

fn without_one(server: &Server, programs: &[PathBuf], dir: &Path, tally: &mut Tally) -> Result<()> {
    let standalone = Standalone::new(server.binary(), "agent-server")?;
    let running = standalone.start(&[])?;
    for program in programs {
        standalone.run(program, dir, &[], tally)?;
    }
    drop(running);
    let own = |program: &&PathBuf| program.ends_with("limits.mjs");
    match programs.iter().find(own) {
        Some(program) => limits(server.binary(), program, dir, tally),
        None => Ok(()),
    }
}

/// Against a server that was told to install nothing and to wait for a few seconds only.
fn limits(binary: &Path, program: &Path, dir: &Path, tally: &mut Tally) -> Result<()> {
    let standalone = Standalone::new(binary, "agent-server-limits")?;
    let _running = standalone.start(&[
        ("SANDBOX_AGENT_REQUIRE_PREINSTALL", "1"),
        ("SANDBOX_AGENT_ACP_REQUEST_TIMEOUT_MS", "6000"),
    ])?;
    standalone.run(program, dir, &[("WOODFROG_AGENT_LIMITS", "1")], tally)
}

fn run_copy(
    mut command: Command,
    program: &Path,
    dir: &Path,
    way: &str,
    tally: &mut Tally,
) -> Result<()> {
    // Modules are resolved from where the file is: it runs as a copy beside them.
    let copy = dir.join(program.file_name().context("file name")?);
    std::fs::copy(program, &copy)?;
    copy_helpers(program, dir)?;
    command.arg(&copy);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let title = format!("{name} · sandbox-agent · {way}");
    run_bounded(&title, &command, PROGRAM, tally);
    Ok(())
}

fn install() -> Result<PathBuf> {
    let dir = root().join("target/sdk/sandbox-agent");
    if dir.join("node_modules/ws/package.json").is_file() {
        return Ok(dir);
    }
    println!("npm: {}", PACKAGES.join(" "));
    std::fs::create_dir_all(&dir)?;
    let package = "{\"private\":true,\"type\":\"module\"}\n";
    std::fs::write(dir.join("package.json"), package)?;
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
        "--ignore-scripts",
    ])
    // The reference server's binary, which only its own check needs.
    .arg("--omit=optional")
    .args(PACKAGES);
    run_over_network(npm.current_dir(&dir)).context("install the sandbox-agent package")?;
    Ok(dir)
}

fn wait_for_port(port: u16, child: &mut Child) -> Result<()> {
    let start = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("agent-server ended at once ({status})");
        }
        if start.elapsed() > START {
            bail!("agent-server does not listen");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

/// Ended when it is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
