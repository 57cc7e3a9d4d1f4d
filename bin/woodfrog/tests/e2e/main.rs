//! End-to-end tests: the built binary, real sandboxes, driven as a user would.
//!
//! The cases share one server; those that kill or restart it start their own.
#![forbid(unsafe_code)]

mod agents;
mod cases;
mod crash;
mod docs;
mod errors;
mod hostile;
mod isolation;
mod leaks;
mod limits;
mod sleep;
mod sleep_crash;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use woodfrog_testkit::Server;

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
    let started = Server::start(&binary(), &data_dir("e2e"), &[]).and_then(|server| {
        server.run(&["template", "prepare", "base"])?;
        Ok(server)
    });
    match started {
        Ok(server) => conclude(&arguments, Some(server)),
        Err(error) => {
            eprintln!("the server under test did not start: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn conclude(arguments: &Arguments, server: Option<Server>) -> ExitCode {
    let context = server.map(|server| Arc::new(Context { server }));
    let trials = cases::all()
        .into_iter()
        .map(|(name, body)| {
            let context = context.clone();
            Trial::test(name, move || {
                let context = context.ok_or("no server")?;
                body(&context).map_err(|error| format!("{error:?}").into())
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
