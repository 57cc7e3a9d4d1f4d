//! Commands about agents.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// List the agents that there are, and what this server has in store for its sandboxes.
    List {
        #[command(flatten)]
        store: AgentStore,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Put an agent in store with this machine's npm, for sandboxes that cannot reach the registry.
    Install {
        /// claude, codex, opencode, pi or gemini.
        agent: String,
        /// Version of the agent's own program [default: the one that was tested].
        #[arg(long, value_name = "VERSION")]
        agent_version: Option<String>,
        /// Version of what speaks the protocol [default: the one that was tested].
        #[arg(long, value_name = "VERSION")]
        agent_process_version: Option<String>,
        /// Even when it is there.
        #[arg(long)]
        reinstall: bool,
        #[command(flatten)]
        store: AgentStore,
    },
}

/// Where a server keeps its agents: `agents/` of its data directory.
#[derive(Debug, Clone, Args)]
pub struct AgentStore {
    /// The server's data directory.
    #[arg(
        long,
        env = "WOODFROG_DATA_DIR",
        default_value = "/var/lib/woodfrog",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,
}
