//! API keys.

use async_trait::async_trait;
use woodfrog_store::{KeyStore, Result, StoreError};
use woodfrog_store_rows::{key_from_row, scope_to_stored};
use woodfrog_types::key::ApiKey;
use woodfrog_types::{KeyId, Timestamp, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, all, change, first, refused};
use crate::text::Text;

const WHAT: &str = "key";

#[async_trait]
impl KeyStore for PostgresStore {
    async fn key_insert(&self, key: &ApiKey) -> Result<()> {
        let sql = "INSERT INTO api_keys (id, workspace, name, scope, hint, digest, created_at, \
                   expires_at, last_used_at, user_name, role, reach, previous_digest, \
                   previous_until) \
                   SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14 \
                   WHERE NOT EXISTS (SELECT 1 FROM api_keys WHERE previous_digest = $6)";
        let previous = key.previous.as_ref();
        let before = previous.map(|previous| previous.digest.as_slice());
        let until = previous.map(|previous| previous.until.as_millis());
        let user = key.user.as_ref().map(|user| Text(user.as_str()));
        let args: [Arg<'_>; 14] = [
            &key.id.as_str(),
            &key.workspace.as_str(),
            &Text(&key.name),
            &scope_to_stored(key.scope),
            &Text(&key.hint),
            &key.digest.as_slice(),
            &key.created_at.as_millis(),
            &key.expires_at.map(Timestamp::as_millis),
            &key.last_used_at.map(Timestamp::as_millis),
            &user,
            &key.role.as_str(),
            &key.reach.as_str(),
            &before,
            &until,
        ];
        match change(&self.client().await?, WHAT, sql, &args).await? {
            0 => Err(StoreError::Constraint { what: WHAT }),
            _ => Ok(()),
        }
    }

    async fn key_update(&self, key: &ApiKey) -> Result<()> {
        let sql = "UPDATE api_keys SET digest = $2, hint = $3, previous_digest = $4, \
                   previous_until = $5, expires_at = $6 WHERE id = $1 AND NOT EXISTS \
                   (SELECT 1 FROM api_keys WHERE previous_digest = $2 AND id <> $1)";
        let previous = key.previous.as_ref();
        let before = previous.map(|previous| previous.digest.as_slice());
        let until = previous.map(|previous| previous.until.as_millis());
        let args: [Arg<'_>; 6] = [
            &key.id.as_str(),
            &key.digest.as_slice(),
            &Text(&key.hint),
            &before,
            &until,
            &key.expires_at.map(Timestamp::as_millis),
        ];
        let client = self.client().await?;
        if change(&client, WHAT, sql, &args).await? > 0 {
            return Ok(());
        }
        let exists = "SELECT 1 FROM api_keys WHERE id = $1";
        match refused(&client, WHAT, exists, key.id.as_str()).await {
            StoreError::Conflict { what } => Err(StoreError::Constraint { what }),
            other => Err(other),
        }
    }

    async fn key_by_digest(&self, digest: &[u8; 32]) -> Result<Option<ApiKey>> {
        let sql = "SELECT * FROM api_keys WHERE digest = $1 OR previous_digest = $1";
        let client = self.client().await?;
        first(&client, WHAT, sql, &[&digest.as_slice()], key_from_row).await
    }

    async fn key_fetch(&self, id: &KeyId) -> Result<Option<ApiKey>> {
        let sql = "SELECT * FROM api_keys WHERE id = $1";
        first(
            &self.client().await?,
            WHAT,
            sql,
            &[&id.as_str()],
            key_from_row,
        )
        .await
    }

    async fn key_list(&self, workspace: Option<&WorkspaceId>) -> Result<Vec<ApiKey>> {
        let sql = "SELECT * FROM api_keys WHERE $1::text IS NULL OR workspace = $1 \
                   ORDER BY created_at, id";
        let workspace = workspace.map(WorkspaceId::as_str);
        all(
            &self.client().await?,
            WHAT,
            sql,
            &[&workspace],
            key_from_row,
        )
        .await
    }

    async fn key_remove(&self, id: &KeyId) -> Result<bool> {
        let sql = "DELETE FROM api_keys WHERE id = $1";
        Ok(change(&self.client().await?, WHAT, sql, &[&id.as_str()]).await? > 0)
    }

    async fn key_touch(&self, id: &KeyId, at: Timestamp) -> Result<()> {
        let sql = "UPDATE api_keys SET last_used_at = $2 \
                   WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";
        let args: [Arg<'_>; 2] = [&id.as_str(), &at.as_millis()];
        change(&self.client().await?, WHAT, sql, &args)
            .await
            .map(drop)
    }
}
