//! The client commands: each a thin use of the native API.

mod artifact;
mod audit;
mod billing;
mod cp;
mod exec;
mod follow;
mod key;
mod member;
mod network;
mod run;
mod sandbox;
mod session;
mod shell;
mod sleep;
mod snapshot;
mod stdin;
mod template;
mod volume;
mod workspace;

use std::io;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::client::ClientError;
use crate::{Cli, Command, output};

/// The server said no, or something went wrong here.
const EXIT_FAILURE: u8 = 1;
/// What was asked for makes no sense.
const EXIT_USAGE: u8 = 2;
/// What a shell reports of a program that wrote to a closed pipe.
const EXIT_PIPE: u8 = 128 + 13;

/// What was asked for makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// How a command ended that went well: its exit code.
type Outcome = anyhow::Result<u8>;

/// Runs a client command.
pub fn run(command: Command) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let code = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(dispatch(command));
            // A thread that waits for standard input must not hold the exit.
            runtime.shutdown_background();
            outcome.unwrap_or_else(|error| report(&error))
        }
        Err(error) => report(&error.into()),
    };
    ExitCode::from(code)
}

async fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Sandbox(command) => sandbox::run(command).await,
        Command::Session(command) => session::run(command).await,
        Command::Run(command) => run::run(command).await,
        Command::Artifact(command) => artifact::run(command).await,
        Command::Snapshot(command) => snapshot::run(command).await,
        Command::Volume(command) => volume::run(command).await,
        Command::Template(command) => template::run(command).await,
        Command::Key(command) => key::run(command).await,
        Command::Workspace(command) => workspace::run(command).await,
        Command::Member(command) => member::run(command).await,
        Command::Audit(command) => audit::run(command).await,
        Command::Usage(command) => billing::usage(command).await,
        Command::Budget(command) => billing::budget(command).await,
        Command::Price(command) => billing::price(command).await,
        Command::Webhook(command) => billing::webhook(command).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "woodfrog", &mut script);
            io::Write::write_all(&mut io::stdout().lock(), &script)?;
            Ok(0)
        }
        Command::Serve(_)
        | Command::AgentServer(_)
        | Command::Agent(_)
        | Command::Doctor(_)
        | Command::Config(_)
        | Command::Purge { .. } => {
            anyhow::bail!("this command is not a client's")
        }
    }
}

/// Says what went wrong and gives the exit code for it.
fn report(error: &anyhow::Error) -> u8 {
    if let Some(io) = error.downcast_ref::<io::Error>()
        && io.kind() == io::ErrorKind::BrokenPipe
    {
        // Who read our output has seen enough.
        return EXIT_PIPE;
    }
    output::error(error.as_ref());
    let client = error.downcast_ref::<ClientError>();
    if let Some(ClientError::Refused(problem)) = client {
        output::note(&format!("  code: {}", problem.code));
        for field in &problem.errors {
            if field.detail != problem.detail {
                output::note(&format!("  {}: {}", field.pointer, field.detail));
            }
        }
    }
    if let Some(hint) = client.and_then(ClientError::hint) {
        output::note(&format!("  hint: {hint}"));
    }
    if error.is::<Usage>() {
        return EXIT_USAGE;
    }
    EXIT_FAILURE
}
