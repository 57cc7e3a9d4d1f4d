//! What this machine can do, found out by doing it.

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::criu::Program;

mod checkpoint;
mod kernel;
mod machine;
mod programs;

pub use checkpoint::CRIU;
pub use kernel::USERFAULTFD;
pub use programs::GVISOR;

/// How it stands with one capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There.
    Ok,
    /// There in part.
    Degraded,
    /// Not there.
    Missing,
}

/// Whether the server can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// No sandbox without it.
    Required,
    /// Something is lost without it.
    Optional,
}

/// One capability.
#[derive(Debug, Clone, Serialize)]
pub struct Probe {
    /// What it is.
    pub name: &'static str,
    /// How it stands.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What is lost without it.
    pub cost: &'static str,
    /// How to get it.
    pub remedy: &'static str,
    /// Whether the server can do without.
    pub need: Need,
    /// Debian packages that bring it, as far as packages can.
    pub packages: &'static [&'static str],
}

/// What a probe is about, before it has run.
struct Subject {
    name: &'static str,
    cost: &'static str,
    remedy: &'static str,
    need: Need,
    packages: &'static [&'static str],
}

impl Subject {
    const fn new(name: &'static str, cost: &'static str, remedy: &'static str) -> Self {
        Self {
            name,
            cost,
            remedy,
            need: Need::Optional,
            packages: &[],
        }
    }

    const fn required(mut self) -> Self {
        self.need = Need::Required;
        self
    }

    const fn packages(mut self, packages: &'static [&'static str]) -> Self {
        self.packages = packages;
        self
    }

    fn found(&self, status: Status, detail: impl Into<String>) -> Probe {
        let Self {
            name,
            cost,
            remedy,
            need,
            packages,
        } = *self;
        Probe {
            name,
            status,
            detail: detail.into(),
            cost,
            remedy,
            need,
            packages,
        }
    }

    /// Ok with this detail, or missing with the error.
    fn from(&self, result: io::Result<String>) -> Probe {
        match result {
            Ok(detail) => self.found(Status::Ok, detail),
            Err(error) => self.found(Status::Missing, error.to_string()),
        }
    }
}

/// Tries everything that this process can try alone. `state_dir` is where sandboxes would be kept;
/// it must exist, and is left as it was. Takes some tens of milliseconds; makes short-lived
/// processes, cgroups and mounts.
pub fn all(state_dir: &Path) -> Vec<Probe> {
    let mut probes = without_checkpoints(state_dir);
    probes.extend(checkpoint::all());
    probes
}

/// As [`all`], and checkpoints a small sandbox made by `program`, where there is a CRIU; some
/// tenths of a second more.
pub fn all_and_selftest(state_dir: &Path, program: &Program) -> Vec<Probe> {
    let mut probes = without_checkpoints(state_dir);
    probes.extend(checkpoint::all_and_selftest(state_dir, program));
    probes
}

fn without_checkpoints(state_dir: &Path) -> Vec<Probe> {
    let mut probes = vec![machine::privileges(), machine::user_namespaces()];
    probes.extend(machine::overlay(state_dir));
    probes.extend(machine::cgroups());
    probes.extend([
        machine::seccomp(),
        machine::network_namespaces(),
        machine::run_tmpfs(),
        machine::pool(state_dir),
        machine::kvm(),
        kernel::userfaultfd(),
        kernel::soft_dirty(),
        kernel::pidfd_info(),
        programs::nft(),
        programs::veth(),
        programs::bootstrap(),
        programs::runsc(),
        programs::archivers(),
    ]);
    probes
}
