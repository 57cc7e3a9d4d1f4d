//! What is said about sleep beside the sandboxes' records: defaults of workspaces, and holds.

use async_trait::async_trait;
use woodfrog_types::sleep::{Hold, SleepDefaults};
use woodfrog_types::{SandboxId, Timestamp, WorkspaceId};

use crate::Result;

/// Defaults of workspaces, and holds of sandboxes. The defaults go with their workspace, the holds
/// with their sandbox, in the same transaction.
#[async_trait]
pub trait SleepStore: Send + Sync {
    /// `None` while nobody set any.
    async fn sleep_defaults_fetch(&self, workspace: &WorkspaceId) -> Result<Option<SleepDefaults>>;
    /// Stores defaults; generation 1 are the first. `Conflict` if the stored generation is not the
    /// one before.
    async fn sleep_defaults_put(&self, defaults: &SleepDefaults) -> Result<()>;
    /// Adds a hold, or moves the end of the one that has this name; drops those of the sandbox that
    /// are over at `now`. `NotFound` if there is no such sandbox.
    async fn hold_put(&self, sandbox: &SandboxId, hold: &Hold, now: Timestamp) -> Result<()>;
    /// `false` if there was none.
    async fn hold_remove(&self, sandbox: &SandboxId, name: &str) -> Result<bool>;
    /// The sandbox's holds that are not over at `now`, by name.
    async fn hold_list(&self, sandbox: &SandboxId, now: Timestamp) -> Result<Vec<Hold>>;
    /// Holds of runs, by what follows [`RUN_HOLD`](woodfrog_types::run::RUN_HOLD) in their name:
    /// those of this node's sandboxes after `after`, by sandbox and name; at most `limit`.
    async fn hold_of_runs(
        &self,
        after: Option<&(SandboxId, String)>,
        limit: usize,
    ) -> Result<Vec<(SandboxId, String)>>;
}
