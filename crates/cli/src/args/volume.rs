//! Commands about volumes.

use clap::Subcommand;

use super::{Target, size};

#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Create a volume and print its id.
    Create {
        /// Letters, digits, `_` and `-`.
        name: String,
        /// What it may hold: `10GiB` [default: what the server gives].
        #[arg(long, value_name = "SIZE", value_parser = size)]
        size: Option<u64>,
        #[command(flatten)]
        target: Target,
    },
    /// List volumes by name.
    List {
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        target: Target,
    },
    /// Show a volume: what it may hold, and what it takes.
    Show {
        /// Name or id.
        volume: String,
        #[command(flatten)]
        target: Target,
    },
    /// Delete volumes with their files. Refused while a sandbox has one.
    #[command(visible_alias = "rm")]
    Delete {
        /// Names or ids.
        #[arg(required = true)]
        volumes: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
}
