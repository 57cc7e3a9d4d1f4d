//! Commands about prices, budgets, usage and webhooks.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Target;

#[derive(Debug, Subcommand)]
pub enum PriceCommand {
    /// Print the prices that hold now, or a version of them.
    List {
        /// The version of the table [default: the latest].
        #[arg(long, value_name = "VERSION")]
        table: Option<u64>,
        #[command(flatten)]
        target: Target,
    },
    /// Set what a model's tokens cost. What was booked keeps its price.
    Set {
        model: String,
        /// Dollars for a million tokens: `3.00`.
        #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
        input: u64,
        /// Dollars for a million tokens.
        #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
        output: u64,
        /// Dollars for a million tokens that are read from a cache.
        #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
        cache_read: u64,
        /// Dollars for a million tokens that are written into a cache [default: not known].
        #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
        cache_write: Option<u64>,
        #[command(flatten)]
        target: Target,
    },
    /// Replace all prices by those of a file, as `price list --json` prints them.
    Import {
        file: PathBuf,
        #[command(flatten)]
        target: Target,
    },
}

/// What becomes of running runs once a hard limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// They stop where they are and go on when the limit is raised.
    Freeze,
    /// They end.
    End,
}

#[derive(Debug, Subcommand)]
pub enum BudgetCommand {
    /// Set what the workspace may spend in a calendar month, UTC.
    Set {
        /// Dollars: `250` or `0.50`; needed for a new budget.
        #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
        amount: Option<u64>,
        /// Percentages that are told of when they are reached [default: 50,80,100].
        #[arg(long, value_name = "PERCENT", value_delimiter = ',')]
        thresholds: Option<Vec<u16>>,
        /// Only tell; never refuse.
        #[arg(long, conflicts_with = "hard")]
        soft: bool,
        /// Refuse once it is spent [the default of a new budget].
        #[arg(long)]
        hard: bool,
        /// What becomes of running runs once it is spent [default: freeze].
        #[arg(long)]
        policy: Option<Policy>,
        /// Dollars that are set aside for each run without a cost limit of its own [default: 0].
        #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
        reserve: Option<u64>,
        #[command(flatten)]
        target: Target,
    },
    /// Print the workspace's budget and where it stands.
    Show {
        #[command(flatten)]
        target: Target,
    },
    /// Print the budgets of every workspace.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Remove the workspace's budget.
    Clear {
        #[command(flatten)]
        target: Target,
    },
}

/// A part of time.
#[derive(Debug, Clone, Args)]
pub struct Span {
    /// A month, UTC: `2026-11` [default: this one].
    #[arg(long, conflicts_with_all = ["from", "until"])]
    pub month: Option<String>,
    /// From then on: `2026-11-01T00:00:00Z`.
    #[arg(long, value_name = "TIME", requires = "until", value_parser = time)]
    pub from: Option<i64>,
    /// Until then.
    #[arg(long, value_name = "TIME", requires = "from", value_parser = time)]
    pub until: Option<i64>,
}

/// Which runs.
#[derive(Debug, Clone, Args)]
pub struct WhichRuns {
    #[command(flatten)]
    pub span: Span,
    /// Of that thread.
    #[arg(long)]
    pub thread: Option<String>,
    /// Of that agent.
    #[arg(long)]
    pub agent: Option<String>,
    /// With that model.
    #[arg(long)]
    pub model: Option<String>,
    /// Started by that user.
    #[arg(long)]
    pub user: Option<String>,
}

/// What sums are by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    Day,
    Model,
    User,
    Thread,
    Agent,
}

impl By {
    /// As the API names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Model => "model",
            Self::User => "user",
            Self::Thread => "thread",
            Self::Agent => "agent",
        }
    }
}

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Jsonl,
    Csv,
}

#[derive(Debug, Subcommand)]
pub enum UsageCommand {
    /// Print what the workspace used: tokens, compute and cost.
    Show {
        #[command(flatten)]
        span: Span,
        /// What the sums are by.
        #[arg(long, value_enum, default_value = "day")]
        by: By,
        #[command(flatten)]
        target: Target,
    },
    /// Write every entry of the books to standard output.
    Export {
        #[command(flatten)]
        span: Span,
        #[arg(long, value_enum, default_value = "jsonl")]
        format: Format,
        #[command(flatten)]
        target: Target,
    },
    /// Print what runs came to: cost, outcomes, durations and errors.
    Runs {
        #[command(flatten)]
        runs: WhichRuns,
        /// Also print groups.
        #[arg(long, value_enum)]
        by: Option<By>,
        #[command(flatten)]
        target: Target,
    },
    /// Print the tools that runs called.
    Tools {
        #[command(flatten)]
        runs: WhichRuns,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Have an address told what happens; its secret is shown once.
    Create {
        /// `https://example.com/hook`.
        address: String,
        /// `run.failed`, `run.*` [default: all events].
        #[arg(long, value_name = "EVENT", value_delimiter = ',')]
        events: Vec<String>,
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        target: Target,
    },
    /// List the workspace's webhooks.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Print one webhook.
    Show {
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Switch a webhook on again.
    Enable {
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Remove a webhook and what is on its way to it.
    Delete {
        id: String,
        #[command(flatten)]
        target: Target,
    },
    /// Print what was and is to be told to a webhook, the last first.
    Deliveries {
        id: String,
        /// `pending`, `delivered` or `failed`.
        #[arg(long)]
        state: Option<String>,
        /// At most so many, 1 to 100.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        target: Target,
    },
    /// Have a delivery, or all that failed since a time, tried again.
    Replay {
        id: String,
        /// The delivery's number.
        #[arg(required_unless_present = "failed_since")]
        number: Option<u64>,
        /// All that failed since then: `2026-11-21T00:00:00Z`.
        #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "number")]
        failed_since: Option<i64>,
        #[command(flatten)]
        target: Target,
    },
}

/// Dollars to micro-dollars, without a detour over fractions that are not exact.
fn dollars(text: &str) -> Result<u64, String> {
    let wanted = || "want dollars with at most six decimals: 3, 0.25".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 6 {
        return Err(wanted());
    }
    let whole: u64 = whole.parse().map_err(|_| wanted())?;
    let part: u64 = format!("{part:0<6}").parse().map_err(|_| wanted())?;
    let micros = whole.checked_mul(1_000_000).ok_or_else(wanted)?;
    micros.checked_add(part).ok_or_else(wanted)
}

fn time(text: &str) -> Result<i64, String> {
    let parsed: Result<woodfrog_types::Timestamp, _> = text.parse();
    parsed
        .map(woodfrog_types::Timestamp::as_millis)
        .map_err(|_| "want a time: 2026-11-21T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_exact() {
        assert_eq!(dollars("3"), Ok(3_000_000));
        assert_eq!(dollars("0.25"), Ok(250_000));
        assert_eq!(dollars("0.000014"), Ok(14));
        for bad in [
            "",
            ".5",
            "1.",
            "1.0000001",
            "-1",
            "1e3",
            "99999999999999999999",
        ] {
            assert!(dollars(bad).is_err(), "{bad}");
        }
    }
}
