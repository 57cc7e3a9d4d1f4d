//! Programs written against the unmodified E2B SDKs, run against the built binary in both
//! connection modes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::dns::WildcardDns;
use woodfrog_testkit::Server;

use crate::server::{build, root};
use crate::setup::{
    self, JS_SDKS, Level, PYTHON_SDKS, javascript_dir, node_program, python_program,
};
use crate::step::{run as run_command, step};
use crate::suite::Tally;

/// The wildcard domain of the TLS mode; a name server on loopback answers for it.
const DOMAIN: &str = "wf.test";
/// Where that name server listens; `resolv.conf` knows no ports.
const DNS_ADDRESS: &str = "127.0.0.153";

/// How long a program may take.
pub(crate) const PROGRAM: Duration = Duration::from_secs(600);

/// How a program reaches the server.
enum Mode {
    /// One plain-HTTP port, sandboxes by header.
    Plain { url: String },
    /// TLS on a wildcard domain.
    Domain {
        domain: String,
        ca: PathBuf,
        resolv_conf: PathBuf,
    },
}

impl Mode {
    const fn name(&self) -> &'static str {
        match self {
            Self::Plain { .. } => "one port",
            Self::Domain { .. } => "TLS domain",
        }
    }

    /// The command that runs `program` with the environment of this mode.
    fn command(&self, program: &Path, args: &[&Path]) -> Command {
        match self {
            Self::Plain { url } => {
                let mut command = Command::new(program);
                command
                    .args(args)
                    .env("E2B_API_URL", url)
                    .env("E2B_SANDBOX_URL", url)
                    .env("E2B_VOLUME_API_URL", url);
                command
            }
            Self::Domain {
                domain,
                ca,
                resolv_conf,
            } => {
                // A mount namespace of its own gives the program the test's resolv.conf.
                let script = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
                let mut command = Command::new("unshare");
                command
                    .args([
                        "--mount",
                        "--propagation",
                        "private",
                        "sh",
                        "-c",
                        script,
                        "sh",
                    ])
                    .args([resolv_conf, program])
                    .args(args)
                    .env("E2B_DOMAIN", domain)
                    .env("NODE_EXTRA_CA_CERTS", ca)
                    .env("SSL_CERT_FILE", ca);
                command
            }
        }
    }
}

/// Runs every program whose name contains `filter`, with every release, in both modes.
pub(crate) fn run(filter: &str) -> Result<Tally> {
    setup::run(Level::Tests)?;
    let binary = build(false)?;
    let work = root().join("target/sdk-run");
    let mut tally = Tally::default();
    let mut plain = Server::start(&binary, &work.join("plain"), &["--dev"])?;
    let mode = Mode::Plain {
        url: plain.url().to_owned(),
    };
    prepare(&plain, &mode)?;
    programs(&mode, filter, &mut tally)?;
    // The same machine, but now it asks for keys.
    plain.restart_with(&[])?;
    crate::trpc::run(&plain, filter, &mut tally)?;
    crate::agent_sdk::run(&plain, filter, &mut tally)?;
    crate::websocket::run(&plain, filter, &mut tally)?;
    plain.remove()?;

    let port = free_port()?;
    let listen = format!("127.0.0.1:{port}");
    let domain = format!("{DOMAIN}:{port}");
    let dir = work.join("tls");
    let flags = [
        "--dev",
        "--listen",
        &listen,
        "--domain",
        &domain,
        "--tls-self-signed",
    ];
    let tls = Server::start(&binary, &dir, &flags)?;
    let _dns = WildcardDns::start(&format!("{DNS_ADDRESS}:53"))?;
    let resolv_conf = work.join("resolv.conf");
    std::fs::write(&resolv_conf, format!("nameserver {DNS_ADDRESS}\n"))?;
    let ca = dir.join("tls/ca.pem");
    let mode = Mode::Domain {
        domain,
        ca,
        resolv_conf,
    };
    prepare(&tls, &mode)?;
    programs(&mode, filter, &mut tally)?;
    tls.remove()?;
    println!(
        "SDK programs: {} passed, {} failed",
        tally.passed, tally.failed
    );
    if tally.failed > 0 {
        bail!("{} SDK programs failed", tally.failed);
    }
    Ok(tally)
}

/// Where the programs run is where the command line runs: there the domain has an address.
fn prepare(server: &Server, mode: &Mode) -> Result<()> {
    step("prepare the template `base`", || {
        let args = ["template", "prepare", "base"].map(Path::new);
        let mut command = mode.command(server.binary(), &args);
        command
            .env("WOODFROG_URL", server.url())
            .env("WOODFROG_DATA_DIR", server.data_dir());
        run_command(&mut command)
    })
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

fn programs(mode: &Mode, filter: &str, tally: &mut Tally) -> Result<()> {
    let node = node_program();
    for version in JS_SDKS {
        for program in sources("tests/e2b/js", "mjs", filter)? {
            // Modules are resolved from where the file is: it runs as a copy beside them.
            let copy = javascript_dir(version).join(program.file_name().context("file name")?);
            std::fs::copy(&program, &copy)?;
            copy_helpers(&program, &javascript_dir(version))?;
            run_program(mode, &format!("JavaScript {version}"), &node, &copy, tally);
        }
    }
    for version in PYTHON_SDKS {
        for program in sources("tests/e2b/python", "py", filter)? {
            let python = python_program(version);
            run_program(mode, &format!("Python {version}"), &python, &program, tally);
        }
    }
    Ok(())
}

/// Files that begin with `_` are helpers of the programs beside them.
pub(crate) fn copy_helpers(program: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(program.parent().context("folder of the program")?)? {
        let path = entry?.path();
        let name = path.file_name().context("file name")?;
        if name.to_string_lossy().starts_with('_') {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

pub(crate) fn sources(dir: &str, extension: &str, filter: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join(dir)).with_context(|| format!("read {dir}"))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .context("file name")?
            .to_string_lossy()
            .into_owned();
        if path.extension().is_some_and(|e| e == extension)
            && !name.starts_with('_')
            && name.contains(filter)
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn run_program(mode: &Mode, sdk: &str, program: &Path, source: &Path, tally: &mut Tally) {
    let name = source
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut command = mode.command(program, &[source]);
    command.env("E2B_API_KEY", format!("e2b_{}", "0".repeat(40)));
    run_bounded(
        &format!("{name} · {sdk} · {}", mode.name()),
        &command,
        PROGRAM,
        tally,
    );
}

/// Runs a program for a limited time and counts how it went.
pub(crate) fn run_bounded(title: &str, command: &Command, limit: Duration, tally: &mut Tally) {
    println!("\n--- {title}");
    let mut bounded = Command::new("timeout");
    bounded
        .args(["--kill-after=5", &limit.as_secs().to_string()])
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            bounded.env(key, value);
        }
    }
    match run_command(&mut bounded) {
        Ok(()) => tally.passed += 1,
        Err(error) => {
            tally.failed += 1;
            println!("FAILED: {title}: {error:#}");
        }
    }
}
