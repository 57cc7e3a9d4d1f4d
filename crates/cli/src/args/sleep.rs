//! Commands and flags about sleep.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Target, duration, pair};

/// A time after which something happens, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    Never,
    Time(Duration),
}

fn after(text: &str) -> Result<After, String> {
    if text == "never" {
        return Ok(After::Never);
    }
    match crate::config::parse_duration(text) {
        Some(time) if time >= Duration::from_secs(1) => Ok(After::Time(time)),
        _ => Err("want `never` or a duration of at least 1s: 90s, 10m, 30d".into()),
    }
}

/// When a sandbox goes to sleep by itself. What is not given stays (for a new sandbox: is its
/// workspace's default, else the server's).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct SleepArgs {
    /// Without activity, until it is paused: `10m`, `never`.
    #[arg(long, value_name = "TIME", value_parser = after, help_heading = "Sleep")]
    pub pause_after: Option<After>,
    /// Paused, until it is hibernated.
    #[arg(long, value_name = "TIME", value_parser = after, help_heading = "Sleep")]
    pub hibernate_after: Option<After>,
    /// Hibernated, until its snapshot moves to the archive.
    #[arg(long, value_name = "TIME", value_parser = after, help_heading = "Sleep")]
    pub archive_after: Option<After>,
    /// Hibernated, until it is deleted.
    #[arg(long, value_name = "TIME", value_parser = after, help_heading = "Sleep")]
    pub delete_after: Option<After>,
    /// Saved this often while it runs (10s at least), to come back from that after the machine
    /// went down: `15m`, `never`.
    #[arg(long, value_name = "TIME", value_parser = after, help_heading = "Sleep")]
    pub checkpoint_every: Option<After>,
}

#[derive(Debug, Subcommand)]
pub enum SleepCommand {
    /// Freeze sandboxes in place. Any access wakes them.
    Pause {
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Put sandboxes to sleep on disk, where they take no memory. Any access wakes them.
    Hibernate {
        #[arg(required = true)]
        ids: Vec<String>,
        /// Keep the files alone: its processes end.
        #[arg(long)]
        files_only: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Wake sandboxes and wait for them.
    Resume {
        #[arg(required = true)]
        ids: Vec<String>,
        /// Boot anew with the files, though the memory may be there.
        #[arg(long)]
        reboot: bool,
        /// Seconds from now until its time is over; only ever extends it.
        #[arg(long)]
        timeout: Option<u32>,
        #[command(flatten)]
        target: Target,
    },
    /// Move sandboxes to the archive. Any access brings them back.
    Archive {
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Take a snapshot of a sandbox, which goes on, and print the snapshot's id.
    Checkpoint {
        id: String,
        /// A name for it, unique in the workspace.
        #[arg(long)]
        name: Option<String>,
        /// KEY=VALUE, repeatable.
        #[arg(long = "label", short = 'l', value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// Of the files alone: what is made from it boots anew.
        #[arg(long)]
        files_only: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Copy a sandbox with its memory and print the ids of the copies.
    Fork {
        id: String,
        /// How many copies, at most 100.
        #[arg(long, short = 'n', default_value_t = 1)]
        count: u32,
        /// Seconds until a copy's time is over; 0 is never.
        #[arg(long, default_value_t = 3600)]
        timeout: u32,
        #[command(flatten)]
        target: Target,
    },
    /// Keep a sandbox awake under a name, or release it again.
    Hold {
        id: String,
        /// Names the hold: who keeps it awake, or why.
        name: String,
        /// How long at most [default: until it is released].
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        time: Option<Duration>,
        /// Release the hold.
        #[arg(long, conflicts_with = "time")]
        release: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Say why a sandbox is awake or asleep, and what happens to it next.
    Why {
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Change when a sandbox goes to sleep by itself.
    SleepPolicy {
        id: String,
        #[command(flatten)]
        sleep: SleepArgs,
        #[command(flatten)]
        target: Target,
    },
}
