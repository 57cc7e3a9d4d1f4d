//! The agent as the subcommand of a program.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::mock::{Mock, Options};
use crate::run::{Host, Process, run};

/// The directory for histories; without it `session/load` is not offered.
const STORE: &str = "MOCK_AGENT_STORE";
/// What session ids begin with; without it something that differs from process to process.
const PREFIX: &str = "MOCK_AGENT_PREFIX";

const USAGE: &str = "usage: mock-agent [--store DIRECTORY] [--prefix TEXT]";

/// Runs the agent on the process's own streams; `args` are those after the subcommand.
pub fn program(args: impl IntoIterator<Item = OsString>, process: Process) -> ExitCode {
    let result = settings(args).and_then(|(store, prefix)| {
        let options = Options {
            prefix,
            store: store.is_some(),
        };
        let host = Host { store, process };
        let mock = Mock::new(options);
        run(mock, &host, io::stdin(), io::stdout(), io::stderr()).map_err(|e| e.to_string())
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("mock-agent: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Arguments first, then the environment.
fn settings(args: impl IntoIterator<Item = OsString>) -> Result<(Option<PathBuf>, String), String> {
    let mut store = std::env::var_os(STORE).map(PathBuf::from);
    let mut prefix = std::env::var(PREFIX).ok();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        match arg.to_str() {
            Some("--store") => store = Some(value.into()),
            Some("--prefix") => prefix = Some(value.into_string().map_err(|_| USAGE)?),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let prefix = prefix.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = since.map(|d| d.as_nanos()).unwrap_or_default();
        format!("mock-{:x}-{nanos:x}-", std::process::id())
    });
    Ok((store.filter(|dir| !dir.as_os_str().is_empty()), prefix))
}
