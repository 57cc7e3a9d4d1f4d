//! The `woodfrog` binary: the only place where adapters meet ports.
#![forbid(unsafe_code)]

mod agent;
mod agent_server;
mod archive;
mod doctor;
mod drivers;
mod images;
mod logging;
mod places;
mod purge;
mod serve;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use woodfrog_cli::args::ConfigCommand;
use woodfrog_cli::config::{Layers, Resolved};
use woodfrog_cli::{Cli, Command, Config};

/// `EX_USAGE` of `sysexits.h`: the configuration cannot be used.
const EXIT_CONFIG: u8 = 64;

fn main() -> ExitCode {
    // Roles of processes of their own with one thread: nothing else may have run before.
    match std::env::args_os()
        .nth(1)
        .as_deref()
        .and_then(OsStr::to_str)
    {
        Some("__launcher") => match woodfrog_linux::launcher::adopt_stdin() {
            Ok(socket) => woodfrog_linux::launcher::launcher_main(socket),
            Err(_) => return ExitCode::FAILURE,
        },
        Some(woodfrog_linux::stage::SUBCOMMAND) => {
            woodfrog_linux::stage::stage_main(std::env::args().nth(2).as_deref())
        }
        Some("__checkpoint-subject") => woodfrog_linux::criu::subject_main(),
        Some("__mock-agent") => return mock_agent(),
        _ => {}
    }
    let cli = Cli::parse();
    match cli.command {
        Command::Serve(args) => match configuration(args.layer(), cli.config) {
            Ok((config, _)) => report(serve::run(config)),
            Err(code) => code,
        },
        Command::AgentServer(args) => report(agent_server::run(&args)),
        Command::Config(command) => config_command(command, cli.config),
        Command::Agent(command) => report(agent::run(command)),
        Command::Doctor(args) => doctor::run(&args),
        Command::Purge { data_dir, yes } => report(purge::run(&data_dir, cli.config.as_ref(), yes)),
        client => woodfrog_cli::command::run(client),
    }
}

/// The scriptable agent, for sessions without a sandbox; in a sandbox the guest is it.
fn mock_agent() -> ExitCode {
    let process = woodfrog_mock_agent::Process {
        // SIGHUP, SIGINT and SIGTERM.
        ignore_signals: || woodfrog_linux::selfctl::ignore_signals(&[1, 2, 15]),
        close_stdout: || {
            let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
            Ok(rustix::stdio::dup2_stdout(null)?)
        },
    };
    woodfrog_mock_agent::program(std::env::args_os().skip(2), process)
}

/// Layers merged and parsed; what is wrong is printed.
fn configuration(
    flags: BTreeMap<String, String>,
    file: Option<PathBuf>,
) -> Result<(Config, Resolved), ExitCode> {
    let layers = Layers {
        flags,
        environment: std::env::vars().collect(),
        file,
    };
    let parsed = layers
        .resolve()
        .and_then(|resolved| Config::from_resolved(&resolved).map(|config| (config, resolved)));
    parsed.map_err(|error| {
        woodfrog_cli::output::error(&error);
        ExitCode::from(EXIT_CONFIG)
    })
}

fn config_command(command: ConfigCommand, file: Option<PathBuf>) -> ExitCode {
    match command {
        ConfigCommand::Check { serve } => match configuration(serve.layer(), file) {
            Ok(_) => {
                woodfrog_cli::output::note("the configuration can be used");
                ExitCode::SUCCESS
            }
            Err(code) => code,
        },
        ConfigCommand::Show { serve, json } => match configuration(serve.layer(), file) {
            Ok((_, resolved)) => {
                report(woodfrog_cli::config::show(&resolved, json).map_err(Into::into))
            }
            Err(code) => code,
        },
    }
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            woodfrog_cli::output::error(error.as_ref());
            ExitCode::FAILURE
        }
    }
}
