//! Commands about API keys.

use std::time::Duration;

use clap::Subcommand;

use woodfrog_wire::native::workspace::Role;

use super::{Target, duration, role};

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create a key; its secret is shown once.
    Create {
        name: String,
        /// Whom it acts for [default: itself].
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        /// The most that it lets its holder be: viewer, member, admin or owner.
        #[arg(long, default_value = "member", value_parser = role)]
        role: Role,
        /// Works in every workspace that its user is a member of.
        #[arg(long, requires = "user")]
        any_workspace: bool,
        /// May manage every workspace and the server.
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
    /// Give a key a new secret, which is shown once. The one before works for a while.
    Rotate {
        id: String,
        /// How long the secret before is still taken.
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
        grace: Duration,
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
