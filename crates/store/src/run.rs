//! Runs, what they used, and the files they left.

use async_trait::async_trait;
use woodfrog_types::artifact::{Artifact, ArtifactFilter, Review};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::run::{NewRunEvent, Run, RunEvent, RunFilter, RunPosition};
use woodfrog_types::usage::{Cost, Month, Tokens, UsageEntry, UsageTotals};
use woodfrog_types::{ArtifactId, RunId, Timestamp, WorkspaceId};

use crate::Result;

/// Whose starts are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Those of the run's user, in whatever workspace.
    User,
    /// Those in the run's workspace.
    Workspace,
}

/// How many runs may be started, counted in the transaction that adds one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartRate {
    pub whose: Whose,
    /// Starts in the window, the new one included.
    pub max: u64,
    /// Starts after this point count.
    pub after: Timestamp,
}

/// What became of a new run.
#[derive(Debug, Clone, PartialEq)]
pub enum Admitted {
    /// It is there now.
    New,
    /// Its idempotency key is that of this run; nothing was added.
    Known(Box<Run>),
    /// As many were started as this rate allows; nothing was added. The oldest of them, which
    /// leaves the window first, started then.
    RateLimited { rate: StartRate, oldest: Timestamp },
}

/// What one step of a run changes, in one transaction.
#[derive(Debug, Clone)]
pub struct RunWrite {
    pub run: RunId,
    /// The generation that the writer saw.
    pub generation: u64,
    /// The record, its generation one higher; `None` leaves it.
    pub record: Option<Run>,
    /// Each goes to the end of the log, in this order.
    pub events: Vec<NewRunEvent>,
    /// Those whose key the workspace has are passed over.
    pub usage: Vec<UsageEntry>,
    /// It never moves back; `None` leaves it.
    pub heartbeat_at: Option<Timestamp>,
    pub position: Option<RunPosition>,
}

impl RunWrite {
    /// One that changes nothing yet.
    pub fn of(run: &Run) -> Self {
        Self {
            run: run.id.clone(),
            generation: run.generation,
            record: None,
            events: Vec::new(),
            usage: Vec::new(),
            heartbeat_at: None,
            position: None,
        }
    }
}

/// Where a run stands after a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunWritten {
    /// The place of the last entry of the log.
    pub last_event: u64,
    /// The sums of its entries in the books.
    pub tokens: Tokens,
    pub cost: Cost,
    /// What the workspace used in the months of the entries that were booked now; empty if none was.
    pub totals: Vec<(Month, UsageTotals)>,
}

/// Runs, their logs and their part of the books.
#[async_trait]
pub trait RunStore: Send + Sync {
    /// Adds a run and its first events, unless its idempotency key or a rate speaks against it;
    /// all in one transaction, so as many starts pass at the same time as the rates allow and no
    /// more. `Conflict` if its generation is not 1, `Constraint` if the id is taken.
    async fn run_insert(
        &self,
        run: &Run,
        events: Vec<NewRunEvent>,
        rates: Vec<StartRate>,
    ) -> Result<Admitted>;
    /// Writes all of it or nothing. `Conflict` if the stored generation is another than the one
    /// that the writer saw or the run has ended, `NotFound` if it is gone.
    async fn run_write(&self, write: RunWrite) -> Result<RunWritten>;
    /// One run, of whatever workspace.
    async fn run_fetch(&self, id: &RunId) -> Result<Option<Run>>;
    /// By the trace that it is.
    async fn run_by_trace(&self, workspace: &WorkspaceId, trace: &str) -> Result<Option<Run>>;
    /// A workspace's runs that match, newest first (by `created_at`, then id).
    async fn run_list(
        &self,
        workspace: &WorkspaceId,
        filter: &RunFilter,
        page: &PageRequest,
    ) -> Result<Page<Run>>;
    /// Every run of every workspace that has not ended, oldest first.
    async fn run_unfinished(&self) -> Result<Vec<Run>>;
    /// How many runs the run's user, or its workspace, has started after that point, and when the
    /// first of them did.
    async fn run_starts(
        &self,
        run: &Run,
        whose: Whose,
        after: Timestamp,
    ) -> Result<(u64, Option<Timestamp>)>;
    /// Runs of the workspace that ended before `before`, those that ended first at the beginning;
    /// at most `limit`.
    async fn run_ended(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<RunId>>;
    /// At most `limit` entries of its log after place `after`, oldest first, and no more than
    /// `bytes` of data, but one at least if there is any. None of a run that is gone.
    async fn run_events(
        &self,
        id: &RunId,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<RunEvent>>;
    /// Removes input, result and log of the workspace's runs that ended before `before`; their
    /// hashes stay. Returns how many runs, at most `limit`.
    async fn run_forget(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64>;
    /// Removes the run and its log; what it used stays in the books. `false` if there was none.
    async fn run_remove(&self, id: &RunId) -> Result<bool>;
}

/// The books.
#[async_trait]
pub trait UsageStore: Send + Sync {
    /// Books entries that no run carries; those whose key the workspace has are passed over.
    /// Returns what the workspaces used in the months of those that were booked now.
    async fn usage_book(
        &self,
        entries: Vec<UsageEntry>,
    ) -> Result<Vec<(WorkspaceId, Month, UsageTotals)>>;
    /// The workspace's entries from `from` (inclusive) until `until` (exclusive), oldest first
    /// (by time, then key).
    async fn usage_list(
        &self,
        workspace: &WorkspaceId,
        from: Timestamp,
        until: Timestamp,
        page: &PageRequest,
    ) -> Result<Page<UsageEntry>>;
    /// What the workspace used in a month.
    async fn usage_totals(&self, workspace: &WorkspaceId, month: Month) -> Result<UsageTotals>;
    /// Removes at most `limit` of the workspace's entries; once there are none, its sums, its
    /// budget with reservations and alerts, and the meters of its sandboxes. Returns how many
    /// entries and budgets went: 0 when nothing is left.
    async fn books_purge(&self, workspace: &WorkspaceId, limit: usize) -> Result<u64>;
}

/// What became of a file of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArtifactPut {
    /// It is there now.
    New,
    /// It took the place of this one, whose id it has now, and is pending again.
    Replaced(Box<Artifact>),
    /// The run has as many as it may have.
    Full,
}

/// Files that runs left: what is known of them, not their bytes.
#[async_trait]
pub trait ArtifactStore: Send + Sync {
    /// Adds a file of a run, or replaces the one that has its path. `NotFound` if the run is gone.
    async fn artifact_put(&self, artifact: &Artifact, max: u64) -> Result<ArtifactPut>;
    /// One artifact, of whatever workspace.
    async fn artifact_fetch(&self, id: &ArtifactId) -> Result<Option<Artifact>>;
    /// A workspace's artifacts that match, newest first (by `created_at`, then id).
    async fn artifact_list(
        &self,
        workspace: &WorkspaceId,
        filter: &ArtifactFilter,
        page: &PageRequest,
    ) -> Result<Page<Artifact>>;
    /// The workspace's artifacts that were created before `before`, oldest first; at most `limit`.
    async fn artifact_aged(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Artifact>>;
    /// Says what somebody thinks of it. `NotFound` if it is gone.
    async fn artifact_review(&self, id: &ArtifactId, review: &Review) -> Result<Artifact>;
    /// Removes it. `false` if there was none. [`RunStore::run_remove`] removes those of its run.
    async fn artifact_remove(&self, id: &ArtifactId) -> Result<bool>;
}
