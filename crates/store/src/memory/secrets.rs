//! Secrets and volumes in memory.

use async_trait::async_trait;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::secret::{Secret, Volume};
use woodfrog_types::{SecretId, VolumeId, WorkspaceId};

use super::{MemoryStore, cut_page};
use crate::cursor::{self, List};
use crate::{Result, SecretStore, StoreError, VolumeStore};

const SECRET: &str = "secret";
const VOLUME: &str = "volume";

#[async_trait]
impl SecretStore for MemoryStore {
    async fn secret_insert(&self, secret: &Secret) -> Result<()> {
        let mut state = self.lock();
        let taken = state.secrets.values().any(|other| {
            other.id == secret.id
                || (&other.workspace, &other.name) == (&secret.workspace, &secret.name)
        });
        if taken {
            return Err(StoreError::Constraint { what: SECRET });
        }
        state.secrets.insert(secret.id.clone(), secret.clone());
        Ok(())
    }

    async fn secret_update(&self, secret: &Secret) -> Result<()> {
        let mut state = self.lock();
        let known = state.secrets.get_mut(&secret.id);
        let known = known.ok_or(StoreError::NotFound { what: SECRET })?;
        if known.version + 1 != secret.version {
            return Err(StoreError::Conflict { what: SECRET });
        }
        *known = Secret {
            workspace: known.workspace.clone(),
            name: known.name.clone(),
            ..secret.clone()
        };
        Ok(())
    }

    async fn secret_fetch(&self, id: &SecretId) -> Result<Option<Secret>> {
        Ok(self.lock().secrets.get(id).cloned())
    }

    async fn secret_by_name(&self, workspace: &WorkspaceId, name: &str) -> Result<Option<Secret>> {
        let state = self.lock();
        let mut all = state.secrets.values();
        let found = all.find(|secret| secret.workspace == *workspace && secret.name == name);
        Ok(found.cloned())
    }

    async fn secret_list(
        &self,
        workspace: &WorkspaceId,
        page: &PageRequest,
    ) -> Result<Page<Secret>> {
        let after = page
            .cursor
            .as_deref()
            .map(|cursor| cursor::decode(List::Secrets, cursor))
            .transpose()?;
        let state = self.lock();
        let key = |secret: &Secret| (secret.name.clone(), secret.id.as_str().to_owned());
        let mut found: Vec<&Secret> = state
            .secrets
            .values()
            .filter(|secret| secret.workspace == *workspace)
            .filter(|secret| after.as_ref().is_none_or(|after| key(secret) > *after))
            .collect();
        found.sort_by_key(|secret| key(secret));
        Ok(cut_page(
            found.into_iter().cloned(),
            cursor::page_items(page),
            |last| cursor::encode(List::Secrets, &last.name, last.id.as_str()),
        ))
    }

    async fn secret_remove(&self, id: &SecretId) -> Result<bool> {
        Ok(self.lock().secrets.remove(id).is_some())
    }

    async fn secret_count(&self, workspace: &WorkspaceId) -> Result<u64> {
        let state = self.lock();
        let of = |secret: &&Secret| secret.workspace == *workspace;
        Ok(state.secrets.values().filter(of).count() as u64)
    }
}

#[async_trait]
impl VolumeStore for MemoryStore {
    async fn volume_insert(&self, volume: &Volume) -> Result<()> {
        let mut state = self.lock();
        let taken = state.volumes.values().any(|other| {
            other.id == volume.id
                || (&other.workspace, &other.name) == (&volume.workspace, &volume.name)
        });
        if taken {
            return Err(StoreError::Constraint { what: VOLUME });
        }
        state.volumes.insert(volume.id.clone(), volume.clone());
        Ok(())
    }

    async fn volume_fetch(&self, id: &VolumeId) -> Result<Option<Volume>> {
        Ok(self.lock().volumes.get(id).cloned())
    }

    async fn volume_list(&self, workspace: Option<&WorkspaceId>) -> Result<Vec<Volume>> {
        let state = self.lock();
        let mut found: Vec<Volume> = state
            .volumes
            .values()
            .filter(|volume| workspace.is_none_or(|workspace| volume.workspace == *workspace))
            .cloned()
            .collect();
        found.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(found)
    }

    async fn volume_remove(&self, id: &VolumeId) -> Result<bool> {
        Ok(self.lock().volumes.remove(id).is_some())
    }
}
