//! Checkpoints of memory.

use std::error::Error;
use std::path::Path;

use super::{Probe, Status, Subject};
use crate::criu::{Found, Owner, Program, default_prefix, find, selftest};

/// The name of the probe whose lack [`crate::criu::install`] mends.
pub const CRIU: &str = "CRIU";

pub(super) fn criu(found: &Found) -> Probe {
    let subject = Subject::new(
        CRIU,
        "no checkpoints of memory: pausing keeps it resident",
        "`woodfrog doctor --fix` brings a new enough one from Debian, apart from the system",
    );
    match found {
        Found::None => subject.found(Status::Missing, "not installed"),
        Found::TooOld { criu, needed } => {
            let kernel = rustix::system::uname();
            let detail = format!(
                "{} ({}) is too old for kernel {}, which needs {needed}",
                criu.version(),
                criu.program().display(),
                kernel.release().to_string_lossy()
            );
            subject.found(Status::Missing, detail)
        }
        Found::Suitable(criu) => {
            let detail = format!("{} ({})", criu.version(), criu.program().display());
            match criu.run(&["check"]) {
                Ok(_) => subject.found(Status::Ok, detail),
                Err(error) => subject.found(Status::Degraded, format!("{detail}: {error}")),
            }
        }
    }
}

/// Checkpoints a small sandbox below `state_dir` and restores it. `program` is this program, in
/// the other roles that takes.
pub(super) fn tried(found: &Found, state_dir: &Path, program: &Program) -> Probe {
    let subject = Subject::new(
        "CRIU self-test",
        "no checkpoints of memory: pausing keeps it resident",
        "see the reason; the kernel must have CONFIG_CHECKPOINT_RESTORE, and CRIU must suit it",
    );
    let Found::Suitable(criu) = found else {
        return subject.found(
            Status::Missing,
            "not run without a CRIU that suits the kernel",
        );
    };
    match selftest(criu, program, state_dir, Owner::Sandbox) {
        Ok(done) => {
            let detail = format!(
                "dump {} ms, restore {} ms, with a listener, an open connection, a terminal and a \
                 watch",
                done.dump.as_millis(),
                done.restore.as_millis()
            );
            subject.found(Status::Ok, detail)
        }
        Err(error) => subject.found(Status::Missing, told(&error)),
    }
}

/// An error with its causes, on one line.
fn told(error: &dyn Error) -> String {
    let mut all = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        all = format!("{all}: {error}");
        cause = error.source();
    }
    all.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All about CRIU.
pub(super) fn all() -> Vec<Probe> {
    vec![criu(&find(&default_prefix()))]
}

/// All about CRIU, the self-test too.
pub(super) fn all_and_selftest(state_dir: &Path, program: &Program) -> Vec<Probe> {
    let found = find(&default_prefix());
    vec![criu(&found), tried(&found, state_dir, program)]
}
