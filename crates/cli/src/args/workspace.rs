//! Commands about workspaces.

use clap::{Args, Subcommand};

use super::{SleepArgs, Target, bytes_limit, limit};

#[derive(Debug, Subcommand)]
pub enum WorkspaceCommand {
    /// Make a workspace; whoever asks owns it.
    Create {
        name: String,
        /// Who owns it; only with an admin key.
        #[arg(long, value_name = "USER")]
        owner: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// The workspaces that the key can be used in.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// One workspace.
    Show {
        #[command(flatten)]
        target: Target,
    },
    /// Give it another name.
    Rename {
        name: String,
        #[command(flatten)]
        target: Target,
    },
    /// Remove a workspace and everything in it.
    Remove {
        /// Its id or name.
        #[arg(value_name = "WORKSPACE")]
        which: String,
        /// Return when it is gone.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        target: Target,
    },
    /// What it may use.
    #[command(subcommand)]
    Limits(LimitsCommand),
    /// When its sandboxes go to sleep that do not say.
    #[command(subcommand)]
    Sleep(WorkspaceSleepCommand),
}

#[derive(Debug, Subcommand)]
pub enum WorkspaceSleepCommand {
    /// Print what a sandbox gets that does not say, and who says so.
    Show {
        #[command(flatten)]
        target: Target,
    },
    /// Change some of it, for sandboxes that are made from now on; the rest stays.
    Set {
        #[command(flatten)]
        sleep: SleepArgs,
        #[command(flatten)]
        target: Target,
    },
    /// Take everything back: the server's settings hold again.
    Reset {
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Subcommand)]
pub enum LimitsCommand {
    /// Print the limits.
    Show {
        #[command(flatten)]
        target: Target,
    },
    /// Change some of the limits; the others stay.
    Set {
        #[command(flatten)]
        limits: LimitArgs,
        #[command(flatten)]
        target: Target,
    },
}

/// A number, or no limit. Under a name of its own: the parser takes two options in each other for a
/// flag that may go without its value.
type Limit<T> = Option<T>;

/// Limits: a whole number, or `none`.
#[derive(Debug, Clone, Default, Args)]
pub struct LimitArgs {
    /// Runs of one user in any minute.
    #[arg(long, value_name = "N", value_parser = limit::<u32>)]
    pub user_runs_per_minute: Option<Limit<u32>>,
    /// Runs of the workspace in any minute.
    #[arg(long, value_name = "N", value_parser = limit::<u32>)]
    pub runs_per_minute: Option<Limit<u32>>,
    /// Runs above either rate that may be started at once.
    #[arg(long, value_name = "N")]
    pub run_burst: Option<u32>,
    /// Runs that may go on at once.
    #[arg(long, value_name = "N", value_parser = limit::<u32>)]
    pub runs_at_once: Option<Limit<u32>>,
    /// Runs that may wait.
    #[arg(long, value_name = "N")]
    pub run_queue: Option<u32>,
    /// Requests of one user in any minute.
    #[arg(long, value_name = "N", value_parser = limit::<u32>)]
    pub user_requests_per_minute: Option<Limit<u32>>,
    /// Requests to the workspace in any minute.
    #[arg(long, value_name = "N", value_parser = limit::<u32>)]
    pub requests_per_minute: Option<Limit<u32>>,
    /// Requests above either rate that are let in at once.
    #[arg(long, value_name = "N")]
    pub request_burst: Option<u32>,
    /// Sandboxes in memory at once.
    #[arg(long, value_name = "N", value_parser = limit::<u32>)]
    pub sandboxes: Option<Limit<u32>>,
    /// vCPUs of all sandboxes in memory.
    #[arg(long, value_name = "N", value_parser = limit::<u32>)]
    pub cpus: Option<Limit<u32>>,
    /// Memory of all sandboxes in memory: `16GiB`.
    #[arg(long, value_name = "SIZE", value_parser = bytes_limit)]
    pub memory: Option<Limit<u64>>,
    /// Disk of all sandboxes in memory: `100GiB`.
    #[arg(long, value_name = "SIZE", value_parser = bytes_limit)]
    pub disk: Option<Limit<u64>>,
    /// Days after which the text of a prompt is removed.
    #[arg(long, value_name = "DAYS", value_parser = limit::<u32>)]
    pub prompt_retention_days: Option<Limit<u32>>,
    /// Days after which a run that is over is removed, with its log and artifacts.
    #[arg(long, value_name = "DAYS", value_parser = limit::<u32>)]
    pub run_retention_days: Option<Limit<u32>>,
    /// Days after which artifacts are removed.
    #[arg(long, value_name = "DAYS", value_parser = limit::<u32>)]
    pub artifact_retention_days: Option<Limit<u32>>,
    /// Days after which entries of the audit log are removed.
    #[arg(long, value_name = "DAYS", value_parser = limit::<u32>)]
    pub audit_retention_days: Option<Limit<u32>>,
}
