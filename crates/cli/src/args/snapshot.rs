//! Commands about snapshots.

use clap::Subcommand;

use super::{Target, pair};

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// List snapshots, newest first.
    List {
        /// Only those of this sandbox.
        #[arg(long, value_name = "ID")]
        source: Option<String>,
        /// KEY=VALUE that must match, repeatable.
        #[arg(long = "label", short = 'l', value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// Also those that the server keeps for itself: of sleeping sandboxes, for one.
        #[arg(long)]
        all: bool,
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        target: Target,
    },
    /// Show one snapshot.
    Show {
        /// Id or name.
        snapshot: String,
        #[command(flatten)]
        target: Target,
    },
    /// Delete snapshots. What was made from them stays.
    #[command(visible_alias = "rm")]
    Delete {
        /// Ids or names.
        #[arg(required = true)]
        snapshots: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Set or remove labels of a snapshot.
    Label {
        /// Id or name.
        snapshot: String,
        /// KEY=VALUE to set.
        #[arg(value_name = "KEY=VALUE", value_parser = pair)]
        set: Vec<(String, String)>,
        /// Label to remove, repeatable.
        #[arg(long, value_name = "KEY")]
        remove: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Read a snapshot and compare it with its checksums; exits 1 if it is damaged.
    Verify {
        /// Id or name.
        snapshot: String,
        #[command(flatten)]
        target: Target,
    },
    /// Remove snapshots that nothing refers to. Needs an admin key.
    Gc {
        #[command(flatten)]
        target: Target,
    },
}
