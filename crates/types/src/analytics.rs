//! What runs cost, how long they took and how they failed: sums over the runs of a workspace.
//!
//! Every store gives the same facts to the same [`RunTally`], so what it answers is what a loop
//! over all runs would.

use std::collections::BTreeMap;

use crate::Timestamp;
use crate::usage::{Cost, Tokens, UsageTotals};

/// Groups that a report names; the rest are summed up.
pub const GROUPS_MAX: usize = 1_000;

/// Which runs, and how they are summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunQuery {
    /// Created at or after.
    pub from: Timestamp,
    /// Created before.
    pub until: Timestamp,
    /// Milliseconds of a bucket of the trend. Buckets begin at multiples of it since the epoch, UTC.
    pub bucket: i64,
    pub thread: Option<String>,
    pub agent: Option<String>,
    pub model: Option<String>,
    pub user: Option<String>,
    pub by: Option<GroupBy>,
}

/// What runs and entries are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupBy {
    Day,
    Model,
    User,
    Thread,
    Agent,
}

impl GroupBy {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Day,
        Self::Model,
        Self::User,
        Self::Thread,
        Self::Agent,
    ];

    /// A stable name.
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

/// What is known of one run for sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFact<'a> {
    pub created_at: Timestamp,
    pub thread: &'a str,
    pub agent: Option<&'a str>,
    /// The one that was asked for, or the first one that was used.
    pub model: Option<&'a str>,
    pub user: &'a str,
    /// [`crate::run::RunState::as_str`].
    pub state: &'a str,
    pub ended_at: Option<Timestamp>,
    /// From the start of its process to its end; `None` if it did not start or has not ended.
    pub duration_ms: Option<u64>,
    /// Code and message, of one that failed.
    pub error: Option<(&'a str, &'a str)>,
    pub tokens: Tokens,
    pub cost: Cost,
}

/// Sums over runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunSums {
    pub runs: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub canceled: u64,
    pub tokens: Tokens,
    pub cost: Cost,
    /// Runs that have a duration, and all of these together.
    pub timed: u64,
    pub duration_ms: u64,
}

impl RunSums {
    /// With one more run.
    pub fn add(&mut self, fact: &RunFact<'_>) {
        self.runs += 1;
        match fact.state {
            "succeeded" => self.succeeded += 1,
            "failed" => self.failed += 1,
            "canceled" => self.canceled += 1,
            _ => {}
        }
        self.tokens = self.tokens.plus(fact.tokens);
        self.cost = self.cost.plus(fact.cost);
        if let Some(took) = fact.duration_ms {
            self.timed += 1;
            self.duration_ms = self.duration_ms.saturating_add(took);
        }
    }

    /// With the runs of other sums.
    pub fn plus(&mut self, other: &Self) {
        let Self {
            runs,
            succeeded,
            failed,
            canceled,
            tokens,
            cost,
            timed,
            duration_ms,
        } = *other;
        self.runs += runs;
        self.succeeded += succeeded;
        self.failed += failed;
        self.canceled += canceled;
        self.tokens = self.tokens.plus(tokens);
        self.cost = self.cost.plus(cost);
        self.timed += timed;
        self.duration_ms = self.duration_ms.saturating_add(duration_ms);
    }

    /// The mean duration in whole milliseconds; 0 without any.
    pub const fn mean_ms(&self) -> u64 {
        match self.duration_ms.checked_div(self.timed) {
            Some(mean) => mean,
            None => 0,
        }
    }
}

/// One way in which runs failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorSum {
    pub code: String,
    pub count: u64,
    /// When the last run with it ended, and its message.
    pub last: Timestamp,
    pub sample: String,
}

/// The durations that 50, 95 and 99 percent of the runs do not exceed, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Percentiles {
    pub p50: u64,
    pub p95: u64,
    pub p99: u64,
}

/// What runs came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunReport {
    pub total: RunSums,
    pub durations: Percentiles,
    /// Buckets that have runs, by their beginning.
    pub trend: Vec<(Timestamp, RunSums)>,
    /// By count, the most frequent first, then by code.
    pub errors: Vec<ErrorSum>,
    /// The dearest first, then by name; at most [`GROUPS_MAX`].
    pub groups: Vec<(Option<String>, RunSums)>,
    /// Groups that are left out.
    pub groups_more: u64,
}

/// Takes facts and gives the report. Its memory grows with the groups and 8 bytes per run.
#[derive(Debug)]
pub struct RunTally {
    bucket: i64,
    by: Option<GroupBy>,
    total: RunSums,
    durations: Vec<u64>,
    trend: BTreeMap<i64, RunSums>,
    errors: BTreeMap<String, (u64, Timestamp, String)>,
    groups: BTreeMap<Option<String>, RunSums>,
}

impl RunTally {
    /// One that has seen nothing.
    pub fn new(query: &RunQuery) -> Self {
        Self {
            bucket: query.bucket.max(1),
            by: query.by,
            total: RunSums::default(),
            durations: Vec::new(),
            trend: BTreeMap::new(),
            errors: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }

    /// One more run; the caller has filtered.
    pub fn add(&mut self, fact: &RunFact<'_>) {
        self.total.add(fact);
        self.durations.extend(fact.duration_ms);
        let bucket = fact.created_at.as_millis().div_euclid(self.bucket) * self.bucket;
        self.trend.entry(bucket).or_default().add(fact);
        if let Some((code, message)) = fact.error {
            self.error(code, 1, fact.ended_at.unwrap_or(fact.created_at), message);
        }
        self.group(fact);
    }

    fn error(&mut self, code: &str, more: u64, at: Timestamp, message: &str) {
        match self.errors.get_mut(code) {
            Some((count, last, sample)) => {
                *count += more;
                // Among those that ended together, the message that sorts last.
                if (at, message) > (*last, sample.as_str()) {
                    *last = at;
                    message.clone_into(sample);
                }
            }
            None => {
                let first = (more, at, message.to_owned());
                self.errors.insert(code.to_owned(), first);
            }
        }
    }

    /// All the runs of another tally of the same query, as if each were added.
    pub fn merge(&mut self, other: &Self) {
        self.total.plus(&other.total);
        self.durations.extend_from_slice(&other.durations);
        for (bucket, sums) in &other.trend {
            self.trend.entry(*bucket).or_default().plus(sums);
        }
        for (code, (count, at, message)) in &other.errors {
            self.error(code, *count, *at, message);
        }
        for (name, sums) in &other.groups {
            self.groups.entry(name.clone()).or_default().plus(sums);
        }
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        /// A sum with its name.
        const SUM: usize = 256;
        let sums = self.trend.len() + self.errors.len() + self.groups.len();
        size_of::<u64>() * self.durations.len() + SUM * (1 + sums)
    }

    fn group(&mut self, fact: &RunFact<'_>) {
        let name = match self.by {
            None => return,
            Some(GroupBy::Day) => Some(day(fact.created_at)),
            Some(GroupBy::Model) => fact.model.map(str::to_owned),
            Some(GroupBy::User) => Some(fact.user.to_owned()),
            Some(GroupBy::Thread) => Some(fact.thread.to_owned()),
            Some(GroupBy::Agent) => fact.agent.map(str::to_owned),
        };
        self.groups.entry(name).or_default().add(fact);
    }

    /// The report on all that was added.
    pub fn report(mut self) -> RunReport {
        let mut errors: Vec<ErrorSum> = self
            .errors
            .into_iter()
            .map(|(code, (count, last, sample))| ErrorSum {
                code,
                count,
                last,
                sample,
            })
            .collect();
        // Stable: those of the same count stay by code.
        errors.sort_by_key(|error| std::cmp::Reverse(error.count));
        let mut groups: Vec<_> = self.groups.into_iter().collect();
        groups.sort_by_key(|(_, sums)| std::cmp::Reverse(sums.cost.total()));
        let groups_more = groups.len().saturating_sub(GROUPS_MAX);
        groups.truncate(GROUPS_MAX);
        let mut rank = |percent| nearest_rank(&mut self.durations, percent);
        RunReport {
            total: self.total,
            durations: Percentiles {
                p50: rank(50),
                p95: rank(95),
                p99: rank(99),
            },
            trend: self
                .trend
                .into_iter()
                .map(|(at, sums)| (Timestamp::from_millis(at), sums))
                .collect(),
            errors,
            groups,
            groups_more: u64::try_from(groups_more).unwrap_or(u64::MAX),
        }
    }
}

/// The smallest value that at least so many percent do not exceed; 0 without any.
fn nearest_rank(values: &mut [u64], percent: usize) -> u64 {
    if values.is_empty() {
        return 0;
    }
    let rank = (values.len() * percent).div_ceil(100).max(1);
    *values.select_nth_unstable(rank - 1).1
}

/// The day of a time, UTC: `2026-11-21`.
pub fn day(at: Timestamp) -> String {
    let mut text = at.to_rfc3339();
    text.truncate(10);
    text
}

/// A tool, and how runs used it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSum {
    pub tool: String,
    /// Runs that called it at all.
    pub runs: u64,
    pub calls: u64,
    /// Calls whose result was an error.
    pub errors: u64,
}

/// Sums of a part of the books, by name.
pub type UsageSums = Vec<(Option<String>, UsageTotals)>;
