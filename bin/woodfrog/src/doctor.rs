//! `woodfrog doctor`: what this machine can do.

mod fix;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use woodfrog_cli::args::DoctorArgs;
use woodfrog_cli::output;
use woodfrog_linux::criu::Program;
use woodfrog_linux::probe::{self, Need, Probe, Status};

use fix::Plan;

/// Probes, prints, and with `--fix` brings what is missing, wholly or in part, and probes again.
/// Fails if something is missing that no sandbox can do without.
pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    match examine(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whether sandboxes can be made here.
fn examine(args: &DoctorArgs) -> io::Result<bool> {
    let place = existing(&args.data_dir);
    let program = Program {
        path: std::env::current_exe()?,
        launcher: vec!["__launcher".to_owned()],
        subject: vec!["__checkpoint-subject".to_owned()],
    };
    let mut probes = probe::all_and_selftest(&place, &program);
    if args.fix {
        let plan = Plan::of(&probes);
        if plan.is_empty() {
            output::note("nothing is missing that could be installed or set");
        } else {
            plan.carry_out()?;
            probes = probe::all_and_selftest(&place, &program);
        }
    }
    if args.json {
        output::json(&probes)?;
    } else {
        print(&probes)?;
    }
    Ok(!probes.iter().any(stops_everything))
}

fn stops_everything(probe: &Probe) -> bool {
    probe.need == Need::Required && probe.status == Status::Missing
}

/// The data directory, or what it would be made in.
fn existing(data_dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let found = absolute.ancestors().find(|path| path.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}

fn print(probes: &[Probe]) -> io::Result<()> {
    let rows: Vec<Vec<String>> = probes.iter().map(row).collect();
    output::table(&["", "CAPABILITY", "FOUND"], &rows)?;
    for probe in probes.iter().filter(|probe| probe.status != Status::Ok) {
        output::line("")?;
        output::line(&format!("{} {}", mark(probe), probe.name))?;
        let lack = match probe.status {
            Status::Degraded => "without all of it",
            Status::Missing | Status::Ok => "without it",
        };
        output::line(&format!("    {lack}: {}", probe.cost))?;
        output::line(&format!("    to get it: {}", probe.remedy))?;
    }
    output::line("")?;
    let stopping = probes
        .iter()
        .filter(|probe| stops_everything(probe))
        .count();
    let verdict = match stopping {
        0 => "sandboxes can run on this machine".to_owned(),
        1 => "sandboxes cannot run on this machine: 1 thing is missing".to_owned(),
        many => format!("sandboxes cannot run on this machine: {many} things are missing"),
    };
    output::line(&verdict)?;
    if !Plan::of(probes).is_empty() {
        output::line("`woodfrog doctor --fix` installs and sets what can be")?;
    }
    Ok(())
}

fn row(probe: &Probe) -> Vec<String> {
    // A program's message may have many lines.
    let detail = probe.detail.lines().next().unwrap_or_default();
    vec![
        mark(probe).to_owned(),
        probe.name.to_owned(),
        detail.to_owned(),
    ]
}

fn mark(probe: &Probe) -> &'static str {
    match (probe.status, probe.need) {
        (Status::Ok, _) => "ok",
        (Status::Degraded, _) => "part",
        (Status::Missing, Need::Optional) => "no",
        (Status::Missing, Need::Required) => "NO",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_its_parent() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert_eq!(existing(&dir.path().join("a/b")), dir.path());
        assert_eq!(existing(dir.path()), dir.path());
    }
}
