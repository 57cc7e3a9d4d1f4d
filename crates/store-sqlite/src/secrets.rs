//! Secrets and volumes.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{Result, SecretStore, StoreError, VolumeStore};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::secret::{Secret, Volume};
use woodfrog_types::{SecretId, VolumeId, WorkspaceId};

use crate::SqliteStore;
use crate::reader::{all, count, first};
use crate::stored::{secret_from_row, to_json, to_sql_int, volume_from_row};
use crate::writer::change;

const SECRET: &str = "secret";
const VOLUME: &str = "volume";

#[async_trait]
impl SecretStore for SqliteStore {
    async fn secret_insert(&self, secret: &Secret) -> Result<()> {
        let secret = secret.clone();
        self.write(move |conn| {
            let sql = "INSERT INTO secrets (id, workspace, name, version, metadata, value, \
                       created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            let params = params![
                secret.id.as_str(),
                secret.workspace.as_str(),
                secret.name,
                to_sql_int(secret.version),
                to_json(SECRET, &secret.metadata)?,
                secret.value.0,
                secret.created_at.as_millis(),
                secret.updated_at.as_millis(),
            ];
            change(conn, SECRET, sql, params).map(drop)
        })
        .await
    }

    async fn secret_update(&self, secret: &Secret) -> Result<()> {
        let secret = secret.clone();
        self.write(move |conn| {
            let sql = "UPDATE secrets SET version = ?2, metadata = ?3, value = ?4, \
                       created_at = ?5, updated_at = ?6 WHERE id = ?1 AND version = ?2 - 1";
            let params = params![
                secret.id.as_str(),
                to_sql_int(secret.version),
                to_json(SECRET, &secret.metadata)?,
                secret.value.0,
                secret.created_at.as_millis(),
                secret.updated_at.as_millis(),
            ];
            if change(conn, SECRET, sql, params)? > 0 {
                return Ok(());
            }
            match fetch(conn, &secret.id)? {
                Some(_) => Err(StoreError::Conflict { what: SECRET }),
                None => Err(StoreError::NotFound { what: SECRET }),
            }
        })
        .await
    }

    async fn secret_fetch(&self, id: &SecretId) -> Result<Option<Secret>> {
        let id = id.clone();
        self.read(move |conn| fetch(conn, &id)).await
    }

    async fn secret_by_name(&self, workspace: &WorkspaceId, name: &str) -> Result<Option<Secret>> {
        let (workspace, name) = (workspace.clone(), name.to_owned());
        self.read(move |conn| {
            let sql = "SELECT * FROM secrets WHERE workspace = ?1 AND name = ?2";
            let params = params![workspace.as_str(), name];
            first(conn, SECRET, sql, params, secret_from_row)
        })
        .await
    }

    async fn secret_list(
        &self,
        workspace: &WorkspaceId,
        page: &PageRequest,
    ) -> Result<Page<Secret>> {
        let (workspace, page) = (workspace.clone(), page.clone());
        self.read(move |conn| list(conn, &workspace, &page)).await
    }

    async fn secret_remove(&self, id: &SecretId) -> Result<bool> {
        let id = id.clone();
        self.write(move |conn| {
            let sql = "DELETE FROM secrets WHERE id = ?1";
            Ok(change(conn, SECRET, sql, [id.as_str()])? > 0)
        })
        .await
    }

    async fn secret_count(&self, workspace: &WorkspaceId) -> Result<u64> {
        let workspace = workspace.clone();
        self.read(move |conn| {
            let sql = "SELECT count(*) AS n FROM secrets WHERE workspace = ?1";
            count(conn, SECRET, sql, [workspace.as_str()])
        })
        .await
    }
}

fn fetch(conn: &Connection, id: &SecretId) -> Result<Option<Secret>> {
    let sql = "SELECT * FROM secrets WHERE id = ?1";
    first(conn, SECRET, sql, [id.as_str()], secret_from_row)
}

fn list(conn: &Connection, workspace: &WorkspaceId, page: &PageRequest) -> Result<Page<Secret>> {
    let limit = cursor::page_items(page);
    let after = page
        .cursor
        .as_deref()
        .map(|cursor| cursor::decode(List::Secrets, cursor))
        .transpose()?;
    let sql = "SELECT * FROM secrets WHERE workspace = ?1 \
               AND (?2 IS NULL OR (name, id) > (?2, ?3)) ORDER BY name, id LIMIT ?4";
    let (name, id) = after.unzip();
    let params = params![workspace.as_str(), name, id, to_sql_int(limit + 1)];
    let mut items = all(conn, SECRET, sql, params, secret_from_row)?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items
        .last()
        .filter(|_| more)
        .map(|last| cursor::encode(List::Secrets, &last.name, last.id.as_str()));
    Ok(Page { items, next })
}

#[async_trait]
impl VolumeStore for SqliteStore {
    async fn volume_insert(&self, volume: &Volume) -> Result<()> {
        let volume = volume.clone();
        self.write(move |conn| {
            let sql = "INSERT INTO volumes (id, workspace, name, size_bytes, created_at) \
                       VALUES (?1, ?2, ?3, ?4, ?5)";
            let params = params![
                volume.id.as_str(),
                volume.workspace.as_str(),
                volume.name,
                volume.size_bytes.map(to_sql_int),
                volume.created_at.as_millis(),
            ];
            change(conn, VOLUME, sql, params).map(drop)
        })
        .await
    }

    async fn volume_fetch(&self, id: &VolumeId) -> Result<Option<Volume>> {
        let id = id.clone();
        self.read(move |conn| {
            let sql = "SELECT * FROM volumes WHERE id = ?1";
            first(conn, VOLUME, sql, [id.as_str()], volume_from_row)
        })
        .await
    }

    async fn volume_list(&self, workspace: Option<&WorkspaceId>) -> Result<Vec<Volume>> {
        let workspace = workspace.map(|id| id.as_str().to_owned());
        self.read(move |conn| {
            let sql = "SELECT * FROM volumes WHERE ?1 IS NULL OR workspace = ?1 ORDER BY name, id";
            all(conn, VOLUME, sql, [workspace], volume_from_row)
        })
        .await
    }

    async fn volume_remove(&self, id: &VolumeId) -> Result<bool> {
        let id = id.clone();
        self.write(move |conn| {
            let sql = "DELETE FROM volumes WHERE id = ?1";
            Ok(change(conn, VOLUME, sql, [id.as_str()])? > 0)
        })
        .await
    }
}
