//! API keys.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use woodfrog_store::{KeyStore, Result, StoreError};
use woodfrog_types::key::ApiKey;
use woodfrog_types::workspace::UserId;
use woodfrog_types::{KeyId, Timestamp, WorkspaceId};

use crate::SqliteStore;
use crate::reader::{all, first};
use crate::stored::{key_from_row, scope_to_stored};
use crate::writer::change;

const WHAT: &str = "key";

#[async_trait]
impl KeyStore for SqliteStore {
    async fn key_insert(&self, key: &ApiKey) -> Result<()> {
        let key = key.clone();
        self.write(move |conn| {
            let sql = "INSERT INTO api_keys (id, workspace, name, scope, hint, digest, \
                       created_at, expires_at, last_used_at, user_name, role, reach, \
                       previous_digest, previous_until) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
            taken(conn, &key)?;
            let params = params![
                key.id.as_str(),
                key.workspace.as_str(),
                key.name,
                scope_to_stored(key.scope),
                key.hint,
                key.digest,
                key.created_at.as_millis(),
                key.expires_at.map(Timestamp::as_millis),
                key.last_used_at.map(Timestamp::as_millis),
                key.user.as_ref().map(UserId::as_str),
                key.role.as_str(),
                key.reach.as_str(),
                key.previous.map(|previous| previous.digest),
                key.previous.map(|previous| previous.until.as_millis()),
            ];
            change(conn, WHAT, sql, params).map(drop)
        })
        .await
    }

    async fn key_update(&self, key: &ApiKey) -> Result<()> {
        let key = key.clone();
        self.write(move |conn| {
            taken(conn, &key)?;
            let sql = "UPDATE api_keys SET digest = ?2, hint = ?3, previous_digest = ?4, \
                       previous_until = ?5, expires_at = ?6 WHERE id = ?1";
            let params = params![
                key.id.as_str(),
                key.digest,
                key.hint,
                key.previous.map(|previous| previous.digest),
                key.previous.map(|previous| previous.until.as_millis()),
                key.expires_at.map(Timestamp::as_millis),
            ];
            match change(conn, WHAT, sql, params)? {
                0 => Err(StoreError::NotFound { what: WHAT }),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn key_by_digest(&self, digest: &[u8; 32]) -> Result<Option<ApiKey>> {
        let digest = *digest;
        self.read(move |conn| {
            let sql = "SELECT * FROM api_keys WHERE digest = ?1 OR previous_digest = ?1";
            first(conn, WHAT, sql, [digest], key_from_row)
        })
        .await
    }

    async fn key_fetch(&self, id: &KeyId) -> Result<Option<ApiKey>> {
        let id = id.clone();
        self.read(move |conn| {
            let sql = "SELECT * FROM api_keys WHERE id = ?1";
            first(conn, WHAT, sql, [id.as_str()], key_from_row)
        })
        .await
    }

    async fn key_list(&self, workspace: Option<&WorkspaceId>) -> Result<Vec<ApiKey>> {
        let workspace = workspace.map(|id| id.as_str().to_owned());
        self.read(move |conn| {
            let sql = "SELECT * FROM api_keys WHERE ?1 IS NULL OR workspace = ?1 \
                       ORDER BY created_at, id";
            all(conn, WHAT, sql, [workspace], key_from_row)
        })
        .await
    }

    async fn key_remove(&self, id: &KeyId) -> Result<bool> {
        let id = id.clone();
        self.write(move |conn| {
            let sql = "DELETE FROM api_keys WHERE id = ?1";
            Ok(change(conn, WHAT, sql, [id.as_str()])? > 0)
        })
        .await
    }

    async fn key_touch(&self, id: &KeyId, at: Timestamp) -> Result<()> {
        let id = id.clone();
        self.write(move |conn| {
            let sql = "UPDATE api_keys SET last_used_at = ?2 \
                       WHERE id = ?1 AND (last_used_at IS NULL OR last_used_at < ?2)";
            change(conn, WHAT, sql, params![id.as_str(), at.as_millis()]).map(drop)
        })
        .await
    }
}

/// Refuses a key whose secret is another one's, of now or of before.
fn taken(conn: &Connection, key: &ApiKey) -> Result<()> {
    let sql = "SELECT 1 FROM api_keys WHERE id <> ?1 AND (digest = ?2 OR previous_digest = ?2)";
    let params = params![key.id.as_str(), key.digest];
    match first(conn, WHAT, sql, params, |_| Ok(()))? {
        Some(()) => Err(StoreError::Constraint { what: WHAT }),
        None => Ok(()),
    }
}
