//! Checkpoints of memory.

use super::{Probe, Status, Subject};
use crate::criu::{Found, find};

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

/// All about CRIU.
pub(super) fn all() -> Vec<Probe> {
    let found = find(&crate::criu::default_prefix());
    vec![criu(&found)]
}
