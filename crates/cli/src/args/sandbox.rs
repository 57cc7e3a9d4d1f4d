//! Commands about sandboxes.

use clap::{Args, Subcommand};

use super::{NetworkArgs, SleepArgs, SleepCommand, Target, mount, pair, size};

#[derive(Debug, Subcommand)]
pub enum SandboxCommand {
    /// Create a sandbox and print its id.
    Create(CreateArgs),
    /// List sandboxes, newest first.
    List {
        /// KEY=VALUE that must match, repeatable.
        #[arg(long = "metadata", short = 'm', value_name = "KEY=VALUE", value_parser = pair)]
        metadata: Vec<(String, String)>,
        /// Only those in one of these states: `running`, `paused`, `hibernated`, …
        #[arg(long, value_delimiter = ',', value_name = "STATE")]
        state: Vec<String>,
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        target: Target,
    },
    /// Show one sandbox.
    Show {
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Run a command in a sandbox; its output and exit code become this command's.
    ///
    /// Exits with 125 if the command could not be run, and with 128 + N if signal N ended it.
    Exec(ExecArgs),
    /// Open a terminal in a sandbox.
    Shell {
        id: String,
        /// User inside.
        #[arg(long, short = 'u')]
        user: Option<String>,
        /// Working directory.
        #[arg(long, short = 'w')]
        cwd: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Copy a file into or out of a sandbox: one side is `ID:PATH`, `-` is standard input or output.
    Cp {
        from: String,
        to: String,
        /// User inside: whose home relative paths begin in, and who owns a new file.
        #[arg(long, short = 'u')]
        user: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Replace the rules about what a sandbox reaches, in force for new connections at once. What is
    /// not given has its default; who reaches it stays as it is.
    Network {
        id: String,
        #[command(flatten)]
        network: Box<NetworkArgs>,
        #[command(flatten)]
        target: Target,
    },
    #[command(flatten)]
    Sleep(SleepCommand),
    /// Delete sandboxes.
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Template or snapshot, by name or id.
    #[arg(default_value = "base")]
    pub template: String,
    /// Seconds until its time is over; 0 is never.
    #[arg(long, default_value_t = 3600)]
    pub timeout: u32,
    /// When its time is over, hibernate it instead of deleting it; `resume` brings it back.
    #[arg(long)]
    pub keep: bool,
    /// With --keep: any access brings it back.
    #[arg(long, requires = "keep")]
    pub auto_resume: bool,
    /// KEY=VALUE, repeatable.
    #[arg(long = "metadata", short = 'm', value_name = "KEY=VALUE", value_parser = pair)]
    pub metadata: Vec<(String, String)>,
    /// KEY=VALUE for every process inside, repeatable.
    #[arg(long = "env", short = 'e', value_name = "KEY=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// A volume and where it is inside: NAME:PATH, repeatable.
    #[arg(long = "volume", value_name = "NAME:PATH", value_parser = mount)]
    pub volumes: Vec<(String, String)>,
    /// vCPUs [default: the template's].
    #[arg(long)]
    pub cpus: Option<u32>,
    /// Memory: `512MiB` [default: the template's].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory: Option<u64>,
    /// Disk above the template: `10GiB` [default: the template's].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub disk: Option<u64>,
    #[command(flatten)]
    pub network: Box<NetworkArgs>,
    #[command(flatten)]
    pub sleep: SleepArgs,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Args)]
pub struct ExecArgs {
    pub id: String,
    /// User inside.
    #[arg(long, short = 'u')]
    pub user: Option<String>,
    /// Working directory.
    #[arg(long, short = 'w')]
    pub cwd: Option<String>,
    /// KEY=VALUE, repeatable.
    #[arg(long = "env", short = 'e', value_name = "KEY=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// Seconds after which it is killed; 0 is never.
    #[arg(long, default_value_t = 0)]
    pub timeout: u32,
    /// Send this process's standard input.
    #[arg(long, short = 'i')]
    pub stdin: bool,
    #[command(flatten)]
    pub target: Target,
    /// The command and its arguments; one argument with spaces or shell characters is run by
    /// `bash -l -c`.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}
