//! Bringing what is missing: Debian's packages, programs apart from them, settings of the kernel.

use std::collections::BTreeSet;
use std::io;
use std::process::Command;

use woodfrog_cli::output;
use woodfrog_linux::packages::Note;
use woodfrog_linux::probe::{CRIU, GVISOR, Probe, Status, USERFAULTFD};
use woodfrog_linux::{criu, runsc};

/// What can be done about what is missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    packages: Vec<&'static str>,
    apart: Vec<Apart>,
    settings: Vec<Setting>,
}

impl Plan {
    pub(super) fn of(probes: &[Probe]) -> Self {
        let there_in_part = probes
            .iter()
            .any(|probe| probe.name == USERFAULTFD && probe.status == Status::Degraded);
        Self {
            packages: wanted(probes),
            apart: wanted_apart(probes),
            settings: there_in_part
                .then_some(Setting::Userfaultfd)
                .into_iter()
                .collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let Self {
            packages,
            apart,
            settings,
        } = self;
        packages.is_empty() && apart.is_empty() && settings.is_empty()
    }

    /// Does it. What fails is told and costs nothing else.
    ///
    /// # Errors
    /// There is no apt-get.
    pub(super) fn carry_out(self) -> io::Result<()> {
        self.settings.into_iter().for_each(set);
        if !self.packages.is_empty() {
            install(&self.packages)?;
        }
        self.apart.into_iter().for_each(install_apart);
        Ok(())
    }
}

/// Packages that would bring something that is missing, wholly or in part.
fn wanted(probes: &[Probe]) -> Vec<&'static str> {
    let lacking = probes.iter().filter(|probe| probe.status != Status::Ok);
    let packages: BTreeSet<&str> = lacking.flat_map(|probe| probe.packages).copied().collect();
    packages.into_iter().collect()
}

/// A setting of the kernel, which is as it was after the next boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    Userfaultfd,
}

/// Sets it, saying what that costs.
fn set(setting: Setting) {
    match setting {
        Setting::Userfaultfd => {
            output::note(
                "setting vm.unprivileged_userfaultfd=1 until the next boot: every process of this \
                 machine but sandboxes may use userfaultfd then, with which races in the kernel \
                 are easier to win",
            );
            if let Err(error) = criu::allow_lazy_pages() {
                output::error(&error);
            }
        }
    }
}

/// Installs the packages one by one, so that one that this release lacks does not cost the others;
/// its own output is the progress.
///
/// # Errors
/// There is no apt-get.
fn install(packages: &[&str]) -> io::Result<()> {
    output::note(&format!("installing {}", packages.join(", ")));
    if !apt(&["update"])? {
        output::note("the lists of packages could not be brought up to date; trying with the old");
    }
    for package in packages {
        if !apt(&["install", "--yes", "--no-install-recommends", package])? {
            output::note(&format!("{package} could not be installed"));
        }
    }
    Ok(())
}

/// What is installed apart from the system, whose release has none or one that is too old: it is not
/// among [`wanted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Apart {
    Criu,
    Runsc,
}

/// What of that is missing.
fn wanted_apart(probes: &[Probe]) -> Vec<Apart> {
    let missing = |name| {
        let mut probes = probes.iter();
        probes.any(|probe| probe.name == name && probe.status == Status::Missing)
    };
    let all = [(CRIU, Apart::Criu), (GVISOR, Apart::Runsc)];
    all.into_iter()
        .filter(|(name, _)| missing(*name))
        .map(|(_, apart)| apart)
        .collect()
}

/// Installs it. A failure is told and is no end: sandboxes run without.
fn install_apart(apart: Apart) {
    let mut tell = |note| match note {
        Note::Step(text) => output::note(&text),
        Note::Warning(text) => output::note(&format!("warning: {text}")),
    };
    let (prefix, name) = match apart {
        Apart::Criu => (criu::default_prefix(), CRIU),
        Apart::Runsc => (runsc::default_prefix(), GVISOR),
    };
    output::note(&format!("installing {name} into {}", prefix.display()));
    let installed = match apart {
        Apart::Criu => criu::install(&prefix, &mut tell).map(|criu| criu.version().to_string()),
        Apart::Runsc => runsc::install(&prefix, &mut tell).map(|runsc| runsc.version),
    };
    match installed {
        Ok(version) => output::note(&format!("{name} {version} is installed")),
        Err(error) => output::error(&error),
    }
}

fn apt(args: &[&str]) -> io::Result<bool> {
    // Standard output is for what the doctor found.
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(std::process::Stdio::null())
        .stdout(io::stderr())
        .status();
    match status {
        Ok(status) => Ok(status.success()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(io::Error::other(
            "there is no apt-get here; install what is missing with the system's own means",
        )),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use woodfrog_linux::probe::Need;

    use super::*;

    fn probe(status: Status, packages: &'static [&'static str]) -> Probe {
        Probe {
            name: "x",
            status,
            detail: String::new(),
            cost: "",
            remedy: "",
            need: Need::Optional,
            packages,
        }
    }

    #[test]
    fn only_what_is_missing_is_installed_and_once() {
        // The one that is there in part lacks what its package has.
        let probes = [
            probe(Status::Missing, &["b", "a"]),
            probe(Status::Missing, &["a"]),
            probe(Status::Ok, &["c"]),
            probe(Status::Degraded, &["d"]),
            probe(Status::Missing, &[]),
        ];
        assert_eq!(wanted(&probes), ["a", "b", "d"]);
    }

    #[test]
    fn what_is_there_in_part_is_set_where_that_helps() {
        let named = |name, status| Probe {
            name,
            ..probe(status, &[])
        };
        let of = |probe| Plan::of(&[probe]);
        let plan = of(named(USERFAULTFD, Status::Degraded));
        assert_eq!(plan.settings, [Setting::Userfaultfd]);
        assert!(!plan.is_empty());
        // There already; not in this kernel; about something else.
        assert!(of(named(USERFAULTFD, Status::Ok)).is_empty());
        assert!(of(named(USERFAULTFD, Status::Missing)).is_empty());
        assert!(of(named("x", Status::Degraded)).is_empty());
    }
}
