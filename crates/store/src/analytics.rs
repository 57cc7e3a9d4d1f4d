//! Sums over runs and over the books.

use async_trait::async_trait;
use woodfrog_types::analytics::{GroupBy, RunQuery, RunReport, ToolSum, UsageSums};
use woodfrog_types::{Timestamp, WorkspaceId};

use crate::Result;

/// What dashboards and bills show. Every answer is what a loop over all records would give.
#[async_trait]
pub trait AnalyticsStore: Send + Sync {
    /// What the workspace's runs that match came to.
    async fn run_report(&self, workspace: &WorkspaceId, query: &RunQuery) -> Result<RunReport>;
    /// The tools that these runs called: the most called first, then by name.
    async fn tool_report(&self, workspace: &WorkspaceId, query: &RunQuery) -> Result<Vec<ToolSum>>;
    /// The workspace's entries from `from` (inclusive) until `until` (exclusive), summed by name
    /// and in its order; what has no name comes first.
    async fn usage_report(
        &self,
        workspace: &WorkspaceId,
        from: Timestamp,
        until: Timestamp,
        by: GroupBy,
    ) -> Result<UsageSums>;
    /// How many runs of all workspaces are in each state, by its name.
    async fn run_states(&self) -> Result<Vec<(String, u64)>>;
}
