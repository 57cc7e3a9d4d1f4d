//! Commands about files that runs left.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::Target;

#[derive(Debug, Subcommand)]
pub enum ArtifactCommand {
    /// List artifacts, newest first.
    List {
        /// Only those of this run.
        #[arg(long, value_name = "ID")]
        run: Option<String>,
        /// Only those of this thread.
        #[arg(long, value_name = "NAME")]
        thread: Option<String>,
        /// Only those of which people think so.
        #[arg(long, value_name = "STATE")]
        review: Option<Review>,
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        target: Target,
    },
    /// Show what is known of an artifact.
    Show {
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Get an artifact's content, to standard output unless you name a file.
    Get {
        id: String,
        /// Write it to this file, which is there once it is whole.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        target: Target,
    },
    /// Approve artifacts. Admins may.
    Approve {
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Reject artifacts. Admins may.
    Reject {
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Delete artifacts with their content.
    Delete {
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
}

/// What people think of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Review {
    Pending,
    Approved,
    Rejected,
}

impl Review {
    /// As the API has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
        }
    }
}
