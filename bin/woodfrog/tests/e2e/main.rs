//! End-to-end tests: the built binary, real sandboxes, driven as a user would.
//!
//! The cases share one server; those that kill or restart it start their own.
#![forbid(unsafe_code)]

mod agents;
mod archive;
mod artifacts;
mod cases;
mod crash;
mod docs;
mod egress;
mod egress_world;
mod errors;
mod files;
mod full_disk;
mod handoff;
mod hostile;
mod isolation;
mod leaks;
mod limits;
mod runs;
mod sessions;
mod sleep;
mod sleep_crash;
mod sleep_said;
mod soak;
mod spares;
mod volumes;
mod websocket;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};

use libtest_mimic::{Arguments, Trial};
use woodfrog_testkit::Server;
use woodfrog_testkit::collector::{Collector, Manner};
use woodfrog_testkit::server::last_words;

/// Who is told of the runs of the server that the cases share.
pub(crate) static COLLECTOR: LazyLock<Collector> =
    LazyLock::new(|| Collector::start(Manner::Takes).expect("a port on this machine"));

/// What a case gets.
pub(crate) struct Context {
    pub(crate) server: Server,
}

/// A case: its name and its body.
pub(crate) type Case = (&'static str, fn(&Context) -> anyhow::Result<()>);

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_woodfrog"))
}

/// A data directory below the build directory: on a disk, unlike `/tmp` on some machines.
pub(crate) fn data_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The cases count what is on the machine and measure limits: one after the other.
    arguments.test_threads = Some(1);
    if arguments.list {
        return conclude(&arguments, None);
    }
    match start() {
        Ok(server) => conclude(&arguments, Some(server)),
        Err(error) => {
            eprintln!("the server under test did not start: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A failure with what the servers said last.
fn told(context: &Context, error: &anyhow::Error) -> String {
    let own = last_words();
    let said = match own.is_empty() {
        true => context.server.last_lines(),
        false => own.join("\n"),
    };
    format!("{error:#}\n{said}")
}

fn start() -> anyhow::Result<Server> {
    let dir = data_dir("e2e");
    let config = dir.with_extension("toml");
    let endpoint = COLLECTOR.url();
    std::fs::write(&config, format!("[traces]\nendpoint = \"{endpoint}\"\n"))?;
    let config = config.to_string_lossy();
    let server = Server::start(&binary(), &dir, &["--spares", "0", "--config", &config])?;
    server.run(&["template", "prepare", "base"])?;
    Ok(server)
}

fn conclude(arguments: &Arguments, server: Option<Server>) -> ExitCode {
    let context = server.map(|server| Arc::new(Context { server }));
    let trials = cases::all()
        .into_iter()
        .map(|(name, body)| {
            let context = context.clone();
            Trial::test(name, move || {
                let context = context.ok_or("no server")?;
                drop(last_words());
                body(&context).map_err(|error| told(&context, &error).into())
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(arguments, trials);
    let torn_down = match context.and_then(Arc::into_inner) {
        Some(context) => context.server.remove(),
        None => Ok(()),
    };
    if let Err(error) = torn_down {
        eprintln!("tear down: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
