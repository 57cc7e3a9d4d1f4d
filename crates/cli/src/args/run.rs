//! Commands about runs.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Target, duration};

#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Start a run and watch it: `-- command…`, or a prompt to an agent.
    Start(Box<StartArgs>),
    /// Watch a run: what it says and does, and what it cost.
    Watch {
        id: String,
        /// Begin after this place of its log.
        #[arg(long, default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        target: Target,
    },
    /// List runs, newest first.
    List {
        /// Only those of this thread.
        #[arg(long)]
        thread: Option<String>,
        /// Only those that are so: booting, running, succeeded, failed or canceled.
        #[arg(long)]
        status: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        target: Target,
    },
    /// Show one run.
    Show {
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Delete runs that are over, with their logs and artifacts.
    Delete {
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
    /// End runs.
    Cancel {
        #[arg(required = true)]
        ids: Vec<String>,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        target: Target,
    },
}

/// What a run is to be.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Which agent is prompted: mock, claude, opencode, …
    #[arg(long, requires = "prompt")]
    pub agent: Option<String>,
    /// What it is told.
    #[arg(long, requires = "agent", conflicts_with = "command")]
    pub prompt: Option<String>,
    /// Which model it is to use.
    #[arg(long, requires = "agent")]
    pub model: Option<String>,
    /// Runs of one thread share a session.
    #[arg(long, value_name = "NAME")]
    pub thread: Option<String>,
    /// What the sandbox is made from [default: base].
    #[arg(long, value_name = "NAME", conflicts_with = "sandbox")]
    pub template: Option<String>,
    /// A sandbox to run in; one is made for the run if absent.
    #[arg(long, value_name = "ID")]
    pub sandbox: Option<String>,
    /// Share one sandbox among the runs of the thread.
    #[arg(long)]
    pub share_sandbox: bool,
    /// What becomes of the sandbox that was made for the run.
    #[arg(long, value_name = "WHAT", default_value = "remove",
          value_parser = ["remove", "pause", "keep"])]
    pub at_end: String,
    /// A variable of the environment.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// A variable whose value is that of a secret of the workspace.
    #[arg(long = "secret", value_name = "NAME=SECRET")]
    pub secrets: Vec<String>,
    /// Where it works.
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// How long it may work [default: 2m].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Higher goes first, −100 to 100.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i32,
    /// Keep the files that it creates or changes in its working directory.
    #[arg(long, conflicts_with = "no_track")]
    pub artifacts: bool,
    /// Keep those in this folder instead; may be repeated.
    #[arg(long = "artifact-path", value_name = "DIR", requires = "artifacts")]
    pub artifact_paths: Vec<String>,
    /// Leave out what is called so (`*.o`), or what has such a path in the folder (`build/**`), beside
    /// what is left out anyway: .git, node_modules, caches, and hidden files at the top.
    #[arg(
        long = "artifact-exclude",
        value_name = "PATTERN",
        requires = "artifacts"
    )]
    pub artifact_excludes: Vec<String>,
    /// Leave out larger files [default: 10MiB].
    #[arg(long, value_name = "SIZE", requires = "artifacts", value_parser = super::size)]
    pub artifact_max_size: Option<u64>,
    /// Keep at most this many files [default: 50].
    #[arg(long, value_name = "N", requires = "artifacts")]
    pub artifact_max_files: Option<u32>,
    /// Do not record it.
    #[arg(long)]
    pub no_track: bool,
    /// Print its id and do not wait.
    #[arg(long)]
    pub detach: bool,
    /// The command.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    #[command(flatten)]
    pub target: Target,
}
