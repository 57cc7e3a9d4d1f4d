//! Commands about the audit log.

use clap::{Args, Subcommand};

use super::{Target, moment};

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// The newest entries first.
    List {
        #[command(flatten)]
        filter: AuditFilterArgs,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        target: Target,
    },
    /// Read the whole log: whether an entry was changed, removed or moved; exits 1 if one was.
    Verify {
        #[command(flatten)]
        target: Target,
    },
    /// The log as JSON lines or CSV, oldest first.
    Export {
        /// jsonl or csv.
        #[arg(long, default_value = "jsonl")]
        format: String,
        #[command(flatten)]
        filter: AuditFilterArgs,
        #[command(flatten)]
        target: Target,
    },
    /// What was done in a period: counts by action, actor and outcome.
    Report {
        #[command(flatten)]
        period: AuditPeriodArgs,
        #[command(flatten)]
        target: Target,
    },
}

/// Which entries.
#[derive(Debug, Clone, Default, Args)]
pub struct AuditFilterArgs {
    /// Who did it.
    #[arg(long)]
    pub actor: Option<String>,
    /// `member.add`, or `member.` for all that begins so.
    #[arg(long)]
    pub action: Option<String>,
    /// What it was done to.
    #[arg(long)]
    pub on: Option<String>,
    /// done, refused or failed.
    #[arg(long)]
    pub outcome: Option<String>,
    #[command(flatten)]
    pub period: AuditPeriodArgs,
}

/// Which time.
#[derive(Debug, Clone, Default, Args)]
pub struct AuditPeriodArgs {
    /// At or after: RFC 3339, or how long ago (`30d`).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub from: Option<i64>,
    /// Before: RFC 3339, or how long ago.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<i64>,
}
