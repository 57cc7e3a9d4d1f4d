//! The tree of commands.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod agent;
mod agent_server;
mod key;
mod sandbox;
mod sleep;
mod snapshot;
mod target;
mod template;

pub use agent::{AgentCommand, AgentStore};
pub use agent_server::AgentServerArgs;
pub use key::KeyCommand;
pub use sandbox::{CreateArgs, ExecArgs, SandboxCommand};
pub use sleep::{After, SleepArgs, SleepCommand};
pub use snapshot::SnapshotCommand;
pub use target::Target;
pub use template::{Allowed, BuildArgs, On, TemplateCommand};

/// Runs AI agents in sandboxes that sleep when nobody needs them and lose nothing.
#[derive(Debug, Parser)]
#[command(name = "woodfrog", version, propagate_version = true)]
pub struct Cli {
    /// Configuration file (TOML).
    #[arg(long, global = true, env = "WOODFROG_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    Serve(ServeArgs),
    /// Serve the agent API for this machine itself, in place of `sandbox-agent server`. There is no
    /// isolation.
    AgentServer(AgentServerArgs),
    /// Create and use sandboxes.
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Snapshots: what sandboxes were at one moment, to start others from.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Templates: what sandboxes start from.
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Agents for sandboxes: which there are, and which are in store.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Say what this machine can do, what is missing, what that costs and how to get it.
    Doctor(DoctorArgs),
    /// The server's configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Remove everything a server has on this machine: sandboxes, networks, mounts, and its data
    /// directory. The server must not be running.
    Purge {
        #[arg(
            long,
            env = "WOODFROG_DATA_DIR",
            default_value = "/var/lib/woodfrog",
            value_name = "DIR"
        )]
        data_dir: PathBuf,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Print a completion script.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
}

/// Flags of `serve`. Unset ones fall back to the environment, the file and the default.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// Address and port of every face [default: 127.0.0.1:7070].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where everything is kept [default: /var/lib/woodfrog].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Wildcard domain, with `:port` if it is not 443.
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,
    /// PEM file with the certificate chain.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<String>,
    /// PEM file with the private key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<String>,
    /// Serve TLS with a certificate from a private authority made in the data directory.
    #[arg(long, conflicts_with = "tls_cert")]
    pub tls_self_signed: bool,
    /// Accept any API key as one local workspace. For development only.
    #[arg(long)]
    pub dev: bool,
    /// Log filter [default: info].
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

impl ServeArgs {
    /// The flags that were given, as the highest layer of the configuration.
    pub fn layer(&self) -> BTreeMap<String, String> {
        let texts = [
            ("listen", &self.listen),
            ("data_dir", &self.data_dir),
            ("domain", &self.domain),
            ("tls_cert", &self.tls_cert),
            ("tls_key", &self.tls_key),
            ("log", &self.log),
        ];
        let flags = [("tls_self_signed", self.tls_self_signed), ("dev", self.dev)];
        texts
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)))
            .chain(
                flags
                    .into_iter()
                    .filter(|(_, on)| *on)
                    .map(|(k, _)| (k.into(), "true".into())),
            )
            .collect()
    }
}

#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Install what is missing and can be installed.
    #[arg(long)]
    pub fix: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Data directory whose file system is probed.
    #[arg(
        long,
        env = "WOODFROG_DATA_DIR",
        default_value = "/var/lib/woodfrog",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration; exits 64 if it cannot be used.
    Check {
        #[command(flatten)]
        serve: ServeArgs,
    },
    /// Print every setting with its value and where it comes from.
    Show {
        #[command(flatten)]
        serve: ServeArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("want KEY=VALUE".into()),
    }
}

fn size(text: &str) -> Result<u64, String> {
    crate::config::parse_bytes(text).ok_or_else(|| "want a size: 512MiB, 20GiB".into())
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    crate::config::parse_duration(text).ok_or_else(|| "want a duration: 30d, 12h, 10m".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_may_have_flags_of_its_own() {
        let cli =
            Cli::try_parse_from(["woodfrog", "sandbox", "exec", "sb1", "ls", "-la", "--color"])
                .expect("parses");
        let Command::Sandbox(SandboxCommand::Exec(exec)) = cli.command else {
            panic!("not exec")
        };
        assert_eq!(exec.command, ["ls", "-la", "--color"]);
    }
}
