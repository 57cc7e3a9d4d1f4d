#![forbid(unsafe_code)]

use std::{ffi::OsStr, path::PathBuf, process::ExitCode};

use woodfrog_guest::{Acting, Options, Role, Socket, Until, run};

const USAGE: &str = "usage: woodfrog-guest \
    [--socket PATH | --listen-fd NUMBER | --listen-tcp PORT SECRET-FILE] [--etc DIR] [--no-init]\n\
    \x20      [--as-itself] [--until-eof]\n\
    \x20      woodfrog-guest mock-agent [--store DIRECTORY] [--prefix TEXT]";

fn main() -> ExitCode {
    // What it is besides PID 1, when somebody in the sandbox starts it.
    let role = std::env::args_os().nth(1);
    match role.as_deref().and_then(OsStr::to_str) {
        // For a runtime that keeps what is written in memory of its own.
        Some("--sync") => {
            rustix::fs::sync();
            return ExitCode::SUCCESS;
        }
        Some("mock-agent") => {
            let process = woodfrog_mock_agent::Process {
                ignore_signals: || woodfrog_linux::selfctl::ignore_signals(&TERMINATING),
                close_stdout,
            };
            return woodfrog_mock_agent::program(std::env::args_os().skip(2), process);
        }
        _ => {}
    }
    let result = options().and_then(|o| run(&o).map_err(|e| e.to_string()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("woodfrog-guest: {message}");
            ExitCode::FAILURE
        }
    }
}

/// SIGHUP, SIGINT and SIGTERM.
const TERMINATING: [i32; 3] = [1, 2, 15];

/// For whoever reads at the other end; the number stays taken.
fn close_stdout() -> std::io::Result<()> {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(null)?)
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        socket: Socket::Path(PathBuf::from("/run/woodfrog/guest.sock")),
        etc: PathBuf::from("/etc"),
        role: Role::Init,
        acting: Acting::AsUsers,
        until: Until::Told,
    };
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        let mut path = || args.next().map(PathBuf::from).ok_or(USAGE.to_owned());
        match arg.to_str() {
            Some("--socket") => options.socket = Socket::Path(path()?),
            Some("--listen-fd") => {
                let number = path()?.to_str().and_then(|text| text.parse().ok());
                options.socket = Socket::Inherited(number.ok_or(USAGE)?);
            }
            Some("--listen-tcp") => {
                let port = path()?.to_str().and_then(|text| text.parse().ok());
                options.socket = Socket::Tcp {
                    port: port.ok_or(USAGE)?,
                    secret: path()?,
                };
            }
            Some("--etc") => options.etc = path()?,
            Some("--no-init") => options.role = Role::Plain,
            Some("--as-itself") => options.acting = Acting::AsItself,
            Some("--until-eof") => options.until = Until::InputEnds,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(options)
}
