//! Defaults of workspaces about sleep, and holds, in memory.

use async_trait::async_trait;
use woodfrog_types::run::RUN_HOLD;
use woodfrog_types::sleep::{Hold, SleepDefaults};
use woodfrog_types::{SandboxId, Timestamp, WorkspaceId};

use super::MemoryStore;
use crate::{Result, SleepStore, StoreError};

const DEFAULTS: &str = "sleep defaults";
const SANDBOX: &str = "sandbox";

#[async_trait]
impl SleepStore for MemoryStore {
    async fn sleep_defaults_fetch(&self, workspace: &WorkspaceId) -> Result<Option<SleepDefaults>> {
        Ok(self.lock().sleep_defaults.get(workspace).cloned())
    }

    async fn sleep_defaults_put(&self, defaults: &SleepDefaults) -> Result<()> {
        let mut state = self.lock();
        let before = state.sleep_defaults.get(&defaults.workspace);
        if before.map_or(0, |before| before.generation) + 1 != defaults.generation {
            return Err(StoreError::Conflict { what: DEFAULTS });
        }
        let id = defaults.workspace.clone();
        state.sleep_defaults.insert(id, defaults.clone());
        Ok(())
    }

    async fn hold_put(&self, sandbox: &SandboxId, hold: &Hold, now: Timestamp) -> Result<()> {
        let mut state = self.lock();
        if !state.sandboxes.contains_key(sandbox) {
            return Err(StoreError::NotFound { what: SANDBOX });
        }
        let holds = state.holds.entry(sandbox.clone()).or_default();
        holds.retain(|_, hold| !hold.is_over(now));
        holds.insert(hold.name.clone(), hold.clone());
        Ok(())
    }

    async fn hold_remove(&self, sandbox: &SandboxId, name: &str) -> Result<bool> {
        let mut state = self.lock();
        let holds = state.holds.get_mut(sandbox);
        Ok(holds.is_some_and(|holds| holds.remove(name).is_some()))
    }

    async fn hold_list(&self, sandbox: &SandboxId, now: Timestamp) -> Result<Vec<Hold>> {
        let state = self.lock();
        let holds = state
            .holds
            .get(sandbox)
            .into_iter()
            .flat_map(|holds| holds.values());
        Ok(holds.filter(|hold| !hold.is_over(now)).cloned().collect())
    }

    async fn hold_of_runs(
        &self,
        after: Option<&(SandboxId, String)>,
        limit: usize,
    ) -> Result<Vec<(SandboxId, String)>> {
        let state = self.lock();
        let names = state.holds.iter().flat_map(|(id, holds)| {
            let names = holds.keys().filter_map(|name| name.strip_prefix(RUN_HOLD));
            names.map(|run| (id.clone(), run.to_owned()))
        });
        let rest = names.filter(|one| after.is_none_or(|after| one > after));
        Ok(rest.take(limit).collect())
    }
}
