//! Installing what is missing, from Debian's packages.

use std::collections::BTreeSet;
use std::io;
use std::process::Command;

use woodfrog_cli::output;
use woodfrog_linux::packages::Note;
use woodfrog_linux::probe::{CRIU, GVISOR, Probe, Status};
use woodfrog_linux::{criu, runsc};

/// Packages that would bring something that is missing.
pub(super) fn wanted(probes: &[Probe]) -> Vec<&'static str> {
    let missing = probes
        .iter()
        .filter(|probe| probe.status == Status::Missing);
    let packages: BTreeSet<&str> = missing.flat_map(|probe| probe.packages).copied().collect();
    packages.into_iter().collect()
}

/// Installs the packages one by one, so that one that this release lacks does not cost the others;
/// its own output is the progress.
///
/// # Errors
/// There is no apt-get.
pub(super) fn install(packages: &[&str]) -> io::Result<()> {
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
pub(super) enum Apart {
    Criu,
    Runsc,
}

/// What of that is missing.
pub(super) fn wanted_apart(probes: &[Probe]) -> Vec<Apart> {
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
pub(super) fn install_apart(apart: Apart) {
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
        let probes = [
            probe(Status::Missing, &["b", "a"]),
            probe(Status::Missing, &["a"]),
            probe(Status::Ok, &["c"]),
            probe(Status::Degraded, &["d"]),
            probe(Status::Missing, &[]),
        ];
        assert_eq!(wanted(&probes), ["a", "b"]);
    }
}
