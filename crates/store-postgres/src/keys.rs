//! API keys.

use async_trait::async_trait;
use woodfrog_store::{KeyStore, Result};
use woodfrog_store_rows::{key_from_row, scope_to_stored};
use woodfrog_types::key::ApiKey;
use woodfrog_types::{KeyId, Timestamp, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, all, change, first};
use crate::text::Text;

const WHAT: &str = "key";

#[async_trait]
impl KeyStore for PostgresStore {
    async fn key_insert(&self, key: &ApiKey) -> Result<()> {
        let sql = "INSERT INTO api_keys (id, workspace, name, scope, hint, digest, created_at, \
                   expires_at, last_used_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let args: [Arg<'_>; 9] = [
            &key.id.as_str(),
            &key.workspace.as_str(),
            &Text(&key.name),
            &scope_to_stored(key.scope),
            &Text(&key.hint),
            &key.digest.as_slice(),
            &key.created_at.as_millis(),
            &key.expires_at.map(Timestamp::as_millis),
            &key.last_used_at.map(Timestamp::as_millis),
        ];
        change(&self.client().await?, WHAT, sql, &args)
            .await
            .map(drop)
    }

    async fn key_by_digest(&self, digest: &[u8; 32]) -> Result<Option<ApiKey>> {
        let sql = "SELECT * FROM api_keys WHERE digest = $1";
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
