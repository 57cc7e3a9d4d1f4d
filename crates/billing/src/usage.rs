//! What was used: sums, exports and what runs came to.

use std::sync::Arc;

use woodfrog_core::budget;
use woodfrog_store::Store;
use woodfrog_types::analytics::{GroupBy, RunQuery, RunReport, ToolSum, UsageSums};
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::usage::{Month, UsageEntry};
use woodfrog_types::{Fault, Timestamp, WorkspaceId};

use crate::fault;

/// Buckets of one trend.
pub const BUCKETS_MAX: i64 = 10_000;

/// A part of time: from (inclusive) until (exclusive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub from: Timestamp,
    pub until: Timestamp,
}

impl Period {
    /// A month of its name, or both ends in milliseconds, or the month of `now`.
    pub fn parse(
        month: Option<&str>,
        from: Option<i64>,
        until: Option<i64>,
        now: Timestamp,
    ) -> Result<Self, Fault> {
        let of_month = |month| Self {
            from: budget::starts(month),
            until: budget::starts(budget::next(month)),
        };
        match (month, from, until) {
            (None, None, None) => Ok(of_month(Month::of(now))),
            (Some(name), None, None) => budget::parse_month(name)
                .map(of_month)
                .ok_or_else(|| Fault::invalid("month", "month is a month: `2026-11`")),
            (None, Some(from), Some(until)) if from <= until => Ok(Self {
                from: Timestamp::from_millis(from),
                until: Timestamp::from_millis(until),
            }),
            (None, Some(_), Some(_)) => {
                Err(Fault::invalid("until", "until must not be before from"))
            }
            _ => Err(Fault::invalid(
                "month",
                "give a month, or from and until, or nothing",
            )),
        }
    }
}

/// The books, to be read. A cheap clone.
#[derive(Clone)]
pub struct Usage {
    store: Arc<dyn Store>,
}

impl Usage {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Sums of the workspace's entries.
    pub async fn sums(
        &self,
        workspace: &WorkspaceId,
        period: Period,
        by: GroupBy,
    ) -> Result<UsageSums, Fault> {
        let Period { from, until } = period;
        let summed = self.store.usage_report(workspace, from, until, by).await;
        summed.map_err(fault::store)
    }

    /// A piece of an export, oldest entries first.
    pub async fn page(
        &self,
        workspace: &WorkspaceId,
        period: Period,
        cursor: Option<String>,
    ) -> Result<Page<UsageEntry>, Fault> {
        let page = PageRequest {
            limit: PAGE_ITEMS_MAX,
            cursor,
        };
        let Period { from, until } = period;
        let listed = self.store.usage_list(workspace, from, until, &page).await;
        listed.map_err(fault::store)
    }

    /// What the workspace's runs came to.
    pub async fn runs(
        &self,
        workspace: &WorkspaceId,
        query: &RunQuery,
    ) -> Result<RunReport, Fault> {
        check(query)?;
        let report = self.store.run_report(workspace, query).await;
        report.map_err(fault::store)
    }

    /// The tools that the workspace's runs called.
    pub async fn tools(
        &self,
        workspace: &WorkspaceId,
        query: &RunQuery,
    ) -> Result<Vec<ToolSum>, Fault> {
        check(query)?;
        let report = self.store.tool_report(workspace, query).await;
        report.map_err(fault::store)
    }

    /// How many runs of all workspaces are in each state.
    pub async fn states(&self) -> Result<Vec<(String, u64)>, Fault> {
        self.store.run_states().await.map_err(fault::store)
    }
}

fn check(query: &RunQuery) -> Result<(), Fault> {
    if query.bucket < 1 {
        return Err(Fault::invalid("bucket_ms", "bucket_ms is at least 1"));
    }
    let length = query
        .until
        .as_millis()
        .saturating_sub(query.from.as_millis());
    if length / query.bucket > BUCKETS_MAX {
        let text = format!("a trend has at most {BUCKETS_MAX} buckets: take longer ones");
        return Err(Fault::invalid("bucket_ms", text));
    }
    Ok(())
}
