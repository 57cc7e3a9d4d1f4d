//! API keys in memory.

use async_trait::async_trait;
use woodfrog_types::key::ApiKey;
use woodfrog_types::{KeyId, Timestamp, WorkspaceId};

use super::MemoryStore;
use crate::{KeyStore, Result, StoreError};

#[async_trait]
impl KeyStore for MemoryStore {
    async fn key_insert(&self, key: &ApiKey) -> Result<()> {
        let mut state = self.lock();
        let taken = state
            .keys
            .values()
            .any(|other| other.id == key.id || has(other, &key.digest));
        if taken {
            return Err(StoreError::Constraint { what: "key" });
        }
        state.keys.insert(key.id.clone(), key.clone());
        Ok(())
    }

    async fn key_update(&self, key: &ApiKey) -> Result<()> {
        let mut state = self.lock();
        let mut others = state.keys.values().filter(|other| other.id != key.id);
        if others.any(|other| has(other, &key.digest)) {
            return Err(StoreError::Constraint { what: "key" });
        }
        let known = state.keys.get_mut(&key.id);
        let known = known.ok_or(StoreError::NotFound { what: "key" })?;
        known.digest = key.digest;
        known.previous = key.previous;
        known.hint.clone_from(&key.hint);
        known.expires_at = key.expires_at;
        Ok(())
    }

    async fn key_by_digest(&self, digest: &[u8; 32]) -> Result<Option<ApiKey>> {
        let state = self.lock();
        Ok(state.keys.values().find(|key| has(key, digest)).cloned())
    }

    async fn key_fetch(&self, id: &KeyId) -> Result<Option<ApiKey>> {
        Ok(self.lock().keys.get(id).cloned())
    }

    async fn key_list(&self, workspace: Option<&WorkspaceId>) -> Result<Vec<ApiKey>> {
        let state = self.lock();
        let mut found: Vec<ApiKey> = state
            .keys
            .values()
            .filter(|key| workspace.is_none_or(|workspace| key.workspace == *workspace))
            .cloned()
            .collect();
        found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(found)
    }

    async fn key_remove(&self, id: &KeyId) -> Result<bool> {
        Ok(self.lock().keys.remove(id).is_some())
    }

    async fn key_touch(&self, id: &KeyId, at: Timestamp) -> Result<()> {
        if let Some(key) = self.lock().keys.get_mut(id) {
            key.last_used_at = key.last_used_at.max(Some(at));
        }
        Ok(())
    }
}

/// Whether that is the digest of one of its secrets.
fn has(key: &ApiKey, digest: &[u8; 32]) -> bool {
    let before = key.previous.map(|previous| previous.digest);
    key.digest == *digest || before.as_ref() == Some(digest)
}
