//! `woodfrog doctor`: what this machine can do.

use std::process::ExitCode;

use woodfrog_cli::args::DoctorArgs;

/// Probes, prints, and with `--fix` installs.
pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    let _ = args;
    ExitCode::FAILURE
}
