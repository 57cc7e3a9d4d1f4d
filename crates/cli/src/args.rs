//! The tree of commands.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod agent;
mod agent_server;
mod artifact;
mod audit;
mod billing;
mod key;
mod member;
mod network;
mod run;
mod sandbox;
mod session;
mod sleep;
mod snapshot;
mod target;
mod template;
mod volume;
mod workspace;

pub use agent::{AgentCommand, AgentStore};
pub use agent_server::AgentServerArgs;
pub use artifact::{ArtifactCommand, Review};
pub use audit::{AuditCommand, AuditFilterArgs, AuditPeriodArgs};
pub use billing::{
    BudgetCommand, By, Format, Policy, PriceCommand, Span, UsageCommand, WebhookCommand, WhichRuns,
};
pub use key::KeyCommand;
pub use member::MemberCommand;
pub use network::NetworkArgs;
pub use run::{RunCommand, StartArgs};
pub use sandbox::{CreateArgs, ExecArgs, SandboxCommand};
pub use session::{Kept, KeptEntries, SessionCommand};
pub use sleep::{After, SleepArgs, SleepCommand};
pub use snapshot::SnapshotCommand;
pub use target::Target;
pub use template::{Allowed, BuildArgs, On, TemplateCommand};
pub use volume::VolumeCommand;
pub use workspace::{LimitArgs, LimitsCommand, WorkspaceCommand, WorkspaceSleepCommand};

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
    /// Sessions: conversations with agents that run in sandboxes.
    #[command(subcommand)]
    Session(SessionCommand),
    /// Runs: prompts and commands, each in a sandbox, watched and recorded.
    #[command(subcommand)]
    Run(RunCommand),
    /// Files that runs created or changed, kept when their sandboxes are gone.
    #[command(subcommand)]
    Artifact(ArtifactCommand),
    /// Snapshots: what sandboxes were at one moment, to start others from.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Volumes: files that sandboxes share, and that outlive them.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Templates: what sandboxes start from.
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Agents for sandboxes: which there are, and which are in store.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Workspaces: who shares sandboxes, sessions and runs, and what they may use.
    #[command(subcommand)]
    Workspace(WorkspaceCommand),
    /// The people in a workspace.
    #[command(subcommand)]
    Member(MemberCommand),
    /// The audit log of a workspace: who did what, when, and how it ended.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// What was used, what it cost, and what runs came to.
    #[command(subcommand)]
    Usage(UsageCommand),
    /// What a workspace may spend in a month.
    #[command(subcommand)]
    Budget(BudgetCommand),
    /// What tokens and sandboxes cost.
    #[command(subcommand)]
    Price(PriceCommand),
    /// Addresses that are told what happens.
    #[command(subcommand)]
    Webhook(WebhookCommand),
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
    /// Sandboxes of each kind that are made ahead [default: 3].
    #[arg(long, value_name = "COUNT")]
    pub spares: Option<String>,
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
            ("spares", &self.spares),
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
    /// Install what is missing and can be installed, and allow userfaultfd until the next boot.
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

fn mount(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, path)) if !name.is_empty() && path.starts_with('/') => {
            Ok((name.to_owned(), path.to_owned()))
        }
        _ => Err("want NAME:/PATH".into()),
    }
}

fn size(text: &str) -> Result<u64, String> {
    crate::config::parse_bytes(text).ok_or_else(|| "want a size: 512MiB, 20GiB".into())
}

fn role(text: &str) -> Result<woodfrog_wire::native::workspace::Role, String> {
    let role = woodfrog_types::workspace::Role::parse(text);
    role.map(Into::into)
        .ok_or_else(|| "want viewer, member, admin or owner".into())
}

/// A number, or `none`.
fn limit<T: std::str::FromStr>(text: &str) -> Result<Option<T>, String> {
    if text == "none" {
        return Ok(None);
    }
    let number = text.parse().map(Some);
    number.map_err(|_| "want a whole number, or none".into())
}

fn bytes_limit(text: &str) -> Result<Option<u64>, String> {
    match text {
        "none" => Ok(None),
        text => size(text).map(Some),
    }
}

/// RFC 3339, or how long ago.
fn moment(text: &str) -> Result<i64, String> {
    if let Some(ago) = crate::config::parse_duration(text) {
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(woodfrog_types::Timestamp::now()
            .as_millis()
            .saturating_sub(ago));
    }
    let at = text.parse::<jiff::Timestamp>();
    at.map(|at| at.as_millisecond())
        .map_err(|_| "want a time such as 2026-11-21T00:00:00Z, or how long ago: 30d, 12h".into())
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
