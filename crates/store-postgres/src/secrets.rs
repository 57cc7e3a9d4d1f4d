//! Secrets and volumes.

use async_trait::async_trait;
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{Result, SecretStore, VolumeStore};
use woodfrog_store_rows::{secret_from_row, to_json, to_sql_int, volume_from_row};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::secret::{Secret, Volume};
use woodfrog_types::{SecretId, VolumeId, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, all, change, count, first, refused};
use crate::text::{Text, TextBuf};

const SECRET: &str = "secret";
const VOLUME: &str = "volume";

#[async_trait]
impl SecretStore for PostgresStore {
    async fn secret_insert(&self, secret: &Secret) -> Result<()> {
        let sql = "INSERT INTO secrets (id, workspace, name, version, metadata, value, \
                   created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let metadata = to_json(SECRET, &secret.metadata)?;
        let args: [Arg<'_>; 8] = [
            &secret.id.as_str(),
            &secret.workspace.as_str(),
            &Text(&secret.name),
            &to_sql_int(secret.version),
            &metadata,
            &secret.value.0,
            &secret.created_at.as_millis(),
            &secret.updated_at.as_millis(),
        ];
        change(&self.client().await?, SECRET, sql, &args)
            .await
            .map(drop)
    }

    async fn secret_update(&self, secret: &Secret) -> Result<()> {
        let sql = "UPDATE secrets SET version = $2, metadata = $3, value = $4, \
                   created_at = $5, updated_at = $6 WHERE id = $1 AND version = $2::bigint - 1";
        let metadata = to_json(SECRET, &secret.metadata)?;
        let args: [Arg<'_>; 6] = [
            &secret.id.as_str(),
            &to_sql_int(secret.version),
            &metadata,
            &secret.value.0,
            &secret.created_at.as_millis(),
            &secret.updated_at.as_millis(),
        ];
        let client = self.client().await?;
        if change(&client, SECRET, sql, &args).await? > 0 {
            return Ok(());
        }
        let exists = "SELECT 1 FROM secrets WHERE id = $1";
        Err(refused(&client, SECRET, exists, secret.id.as_str()).await)
    }

    async fn secret_fetch(&self, id: &SecretId) -> Result<Option<Secret>> {
        let sql = "SELECT * FROM secrets WHERE id = $1";
        first(
            &self.client().await?,
            SECRET,
            sql,
            &[&id.as_str()],
            secret_from_row,
        )
        .await
    }

    async fn secret_by_name(&self, workspace: &WorkspaceId, name: &str) -> Result<Option<Secret>> {
        let sql = "SELECT * FROM secrets WHERE workspace = $1 AND name = $2";
        let args: [Arg<'_>; 2] = [&workspace.as_str(), &Text(name)];
        first(&self.client().await?, SECRET, sql, &args, secret_from_row).await
    }

    async fn secret_list(
        &self,
        workspace: &WorkspaceId,
        page: &PageRequest,
    ) -> Result<Page<Secret>> {
        let limit = cursor::page_items(page);
        let after = page.cursor.as_deref();
        let after = after.map(|cursor| cursor::decode(List::Secrets, cursor));
        let (name, id) = after.transpose()?.unzip();
        let (name, id) = (name.map(TextBuf), id.map(TextBuf));
        let sql = "SELECT * FROM secrets WHERE workspace = $1 \
                   AND ($2::text IS NULL OR (name, id) > ($2, $3)) ORDER BY name, id LIMIT $4";
        let args: [Arg<'_>; 4] = [&workspace.as_str(), &name, &id, &to_sql_int(limit + 1)];
        let mut items = all(&self.client().await?, SECRET, sql, &args, secret_from_row).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let last = items.last().filter(|_| more);
        let next = last.map(|last| cursor::encode(List::Secrets, &last.name, last.id.as_str()));
        Ok(Page { items, next })
    }

    async fn secret_remove(&self, id: &SecretId) -> Result<bool> {
        let sql = "DELETE FROM secrets WHERE id = $1";
        Ok(change(&self.client().await?, SECRET, sql, &[&id.as_str()]).await? > 0)
    }

    async fn secret_count(&self, workspace: &WorkspaceId) -> Result<u64> {
        let sql = "SELECT count(*) AS n FROM secrets WHERE workspace = $1";
        count(&self.client().await?, SECRET, sql, &[&workspace.as_str()]).await
    }
}

#[async_trait]
impl VolumeStore for PostgresStore {
    async fn volume_insert(&self, volume: &Volume) -> Result<()> {
        let sql = "INSERT INTO volumes (id, workspace, name, size_bytes, created_at) \
                   VALUES ($1, $2, $3, $4, $5)";
        let args: [Arg<'_>; 5] = [
            &volume.id.as_str(),
            &volume.workspace.as_str(),
            &Text(&volume.name),
            &volume.size_bytes.map(to_sql_int),
            &volume.created_at.as_millis(),
        ];
        change(&self.client().await?, VOLUME, sql, &args)
            .await
            .map(drop)
    }

    async fn volume_fetch(&self, id: &VolumeId) -> Result<Option<Volume>> {
        let sql = "SELECT * FROM volumes WHERE id = $1";
        first(
            &self.client().await?,
            VOLUME,
            sql,
            &[&id.as_str()],
            volume_from_row,
        )
        .await
    }

    async fn volume_list(&self, workspace: Option<&WorkspaceId>) -> Result<Vec<Volume>> {
        let sql = "SELECT * FROM volumes WHERE $1::text IS NULL OR workspace = $1 \
                   ORDER BY name, id";
        let workspace = workspace.map(WorkspaceId::as_str);
        all(
            &self.client().await?,
            VOLUME,
            sql,
            &[&workspace],
            volume_from_row,
        )
        .await
    }

    async fn volume_remove(&self, id: &VolumeId) -> Result<bool> {
        let sql = "DELETE FROM volumes WHERE id = $1";
        Ok(change(&self.client().await?, VOLUME, sql, &[&id.as_str()]).await? > 0)
    }
}
