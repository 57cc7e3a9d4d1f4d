//! What runs came to.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use woodfrog_types::analytics as domain;

/// Which runs, by the time at which they were created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RunAnalyticsQuery {
    /// A month, UTC: `2026-11`; this one if neither it nor times are given.
    pub month: Option<String>,
    /// Milliseconds since the epoch, inclusive; with `until`, instead of `month`.
    pub from: Option<i64>,
    /// Exclusive.
    pub until: Option<i64>,
    /// Length of a bucket of the trend; a day (86400000) if absent.
    pub bucket_ms: Option<i64>,
    pub thread: Option<String>,
    pub agent: Option<String>,
    /// The model that was asked for, or the first one that was used.
    pub model: Option<String>,
    /// Who started them.
    pub user: Option<String>,
    /// Groups by `day`, `model`, `user`, `thread` or `agent`.
    pub by: Option<String>,
}

/// Sums over runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunSums {
    pub total_runs: u64,
    pub succeeded_runs: u64,
    pub failed_runs: u64,
    pub canceled_runs: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
    pub model_cost_micros: u64,
    pub compute_cost_micros: u64,
    pub total_cost_micros: u64,
    /// Tokens of a model without a price are in it: the cost is less than it was.
    pub unpriced: bool,
    /// Over the runs that have a duration; 0 without any.
    pub avg_duration_ms: u64,
}

/// A piece of the trend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunBucket {
    /// Its beginning: a multiple of its length since the epoch, UTC.
    pub timestamp: i64,
    #[serde(flatten)]
    pub sums: RunSums,
}

/// Runs that have one thing in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunGroup {
    /// Null: runs without.
    pub name: Option<String>,
    #[serde(flatten)]
    pub sums: RunSums,
}

/// One way in which runs failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunErrors {
    pub code: String,
    pub count: u64,
    pub last_occurrence: i64,
    /// Of the last one.
    pub sample_message: String,
}

/// What runs came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunAnalytics {
    pub period_start: i64,
    pub period_end: i64,
    #[serde(flatten)]
    pub total: RunSums,
    /// Milliseconds that half of the runs do not exceed; 0 without any.
    pub p50_duration_ms: u64,
    pub p95_duration_ms: u64,
    pub p99_duration_ms: u64,
    /// Buckets that have runs, oldest first.
    pub trend: Vec<RunBucket>,
    /// The most frequent first.
    pub errors: Vec<RunErrors>,
    /// The dearest first, at most 1,000.
    pub groups: Vec<RunGroup>,
    /// Groups that are left out.
    pub groups_more: u64,
}

/// A tool, and how runs used it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ToolUse {
    pub tool: String,
    /// Runs that called it at all.
    pub runs: u64,
    pub calls: u64,
    /// Calls whose result was an error.
    pub errors: u64,
}

/// Tools, the most called first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tools {
    pub items: Vec<ToolUse>,
}

impl From<&domain::RunSums> for RunSums {
    fn from(sums: &domain::RunSums) -> Self {
        Self {
            total_runs: sums.runs,
            succeeded_runs: sums.succeeded,
            failed_runs: sums.failed,
            canceled_runs: sums.canceled,
            input_tokens: sums.tokens.input,
            output_tokens: sums.tokens.output,
            cache_read_tokens: sums.tokens.cache_read,
            cache_write_tokens: sums.tokens.cache_write,
            model_cost_micros: sums.cost.model,
            compute_cost_micros: sums.cost.compute,
            total_cost_micros: sums.cost.total(),
            unpriced: sums.cost.unpriced,
            avg_duration_ms: sums.mean_ms(),
        }
    }
}

impl RunAnalytics {
    /// The reply for a report.
    pub fn new(query: &domain::RunQuery, report: domain::RunReport) -> Self {
        let errors = report.errors.into_iter().map(|error| RunErrors {
            code: error.code,
            count: error.count,
            last_occurrence: error.last.as_millis(),
            sample_message: error.sample,
        });
        let trend = report.trend.iter().map(|(at, sums)| RunBucket {
            timestamp: at.as_millis(),
            sums: sums.into(),
        });
        let groups = report.groups.iter().map(|(name, sums)| RunGroup {
            name: name.clone(),
            sums: sums.into(),
        });
        Self {
            period_start: query.from.as_millis(),
            period_end: query.until.as_millis(),
            total: (&report.total).into(),
            p50_duration_ms: report.durations.p50,
            p95_duration_ms: report.durations.p95,
            p99_duration_ms: report.durations.p99,
            trend: trend.collect(),
            errors: errors.collect(),
            groups: groups.collect(),
            groups_more: report.groups_more,
        }
    }
}

impl From<domain::ToolSum> for ToolUse {
    fn from(sum: domain::ToolSum) -> Self {
        let domain::ToolSum {
            tool,
            runs,
            calls,
            errors,
        } = sum;
        Self {
            tool,
            runs,
            calls,
            errors,
        }
    }
}
