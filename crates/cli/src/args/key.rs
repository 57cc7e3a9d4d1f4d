//! Commands about API keys.

use std::time::Duration;

use clap::Subcommand;

use super::{Target, duration};

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create a key; its secret is shown once.
    Create {
        name: String,
        /// Workspace id [default: the default workspace].
        #[arg(long)]
        workspace: Option<String>,
        /// May manage keys and every workspace.
        #[arg(long)]
        admin: bool,
        /// Lifetime: `30d`, `12h` [default: for ever].
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires_in: Option<Duration>,
        #[command(flatten)]
        target: Target,
    },
    /// List keys (never their secrets).
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Revoke a key; it stops working at once.
    Revoke {
        id: String,
        #[command(flatten)]
        target: Target,
    },
}
