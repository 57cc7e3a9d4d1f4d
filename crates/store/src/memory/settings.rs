//! Settings and idempotency keys in memory.

use std::collections::btree_map::Entry;

use async_trait::async_trait;
use woodfrog_types::{Timestamp, WorkspaceId};

use super::MemoryStore;
use crate::{IdempotencyEntry, IdempotencyOutcome, Result, SettingStore};

#[async_trait]
impl SettingStore for MemoryStore {
    async fn setting_get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.lock().settings.get(name).cloned())
    }

    async fn setting_init(&self, name: &str, value: &[u8]) -> Result<Vec<u8>> {
        let mut state = self.lock();
        let stored = state
            .settings
            .entry(name.to_owned())
            .or_insert_with(|| value.to_vec());
        Ok(stored.clone())
    }

    async fn setting_put(&self, name: &str, value: &[u8]) -> Result<()> {
        self.lock().settings.insert(name.to_owned(), value.to_vec());
        Ok(())
    }

    async fn idempotency_claim(
        &self,
        entry: &IdempotencyEntry,
    ) -> Result<Option<IdempotencyEntry>> {
        let mut state = self.lock();
        match state
            .idempotency
            .entry((entry.workspace.clone(), entry.key.clone()))
        {
            Entry::Occupied(stored) => Ok(Some(stored.get().clone())),
            Entry::Vacant(free) => {
                free.insert(IdempotencyEntry {
                    outcome: IdempotencyOutcome::InProgress,
                    ..entry.clone()
                });
                Ok(None)
            }
        }
    }

    async fn idempotency_finish(
        &self,
        workspace: &WorkspaceId,
        key: &str,
        outcome: IdempotencyOutcome,
    ) -> Result<()> {
        let mut state = self.lock();
        let slot = (workspace.clone(), key.to_owned());
        match outcome {
            IdempotencyOutcome::Freed => {
                state.idempotency.remove(&slot);
            }
            IdempotencyOutcome::InProgress | IdempotencyOutcome::Done { .. } => {
                if let Some(entry) = state.idempotency.get_mut(&slot) {
                    entry.outcome = outcome;
                }
            }
        }
        Ok(())
    }

    async fn idempotency_trim(&self, before: Timestamp) -> Result<u64> {
        let mut state = self.lock();
        let had = state.idempotency.len();
        state
            .idempotency
            .retain(|_, entry| entry.claimed_at >= before);
        Ok(u64::try_from(had - state.idempotency.len()).unwrap_or(u64::MAX))
    }
}
