//! The client commands: each a thin use of the native API.

use std::process::ExitCode;

use crate::Command;

/// Runs a client command.
pub fn run(command: Command) -> ExitCode {
    let _ = command;
    ExitCode::FAILURE
}
