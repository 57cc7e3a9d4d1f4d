//! Settings of the server and idempotency keys.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use woodfrog_store::{IdempotencyEntry, IdempotencyOutcome, Result, SettingStore, StoreError};
use woodfrog_types::{Timestamp, WorkspaceId};

use crate::SqliteStore;
use crate::reader::first;
use crate::stored::{entry_from_row, get};
use crate::writer::change;

const SETTING: &str = "setting";
const KEY: &str = "idempotency key";

#[async_trait]
impl SettingStore for SqliteStore {
    async fn setting_get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let name = name.to_owned();
        self.read(move |conn| setting(conn, &name)).await
    }

    async fn setting_init(&self, name: &str, value: &[u8]) -> Result<Vec<u8>> {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.write(move |conn| {
            let sql = "INSERT INTO settings (name, value) VALUES (?1, ?2) \
                       ON CONFLICT (name) DO NOTHING";
            change(conn, SETTING, sql, params![name, value])?;
            setting(conn, &name)?.ok_or(StoreError::NotFound { what: SETTING })
        })
        .await
    }

    async fn setting_put(&self, name: &str, value: &[u8]) -> Result<()> {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.write(move |conn| {
            let sql = "INSERT INTO settings (name, value) VALUES (?1, ?2) \
                       ON CONFLICT (name) DO UPDATE SET value = ?2";
            change(conn, SETTING, sql, params![name, value]).map(drop)
        })
        .await
    }

    async fn idempotency_claim(
        &self,
        entry: &IdempotencyEntry,
    ) -> Result<Option<IdempotencyEntry>> {
        let entry = entry.clone();
        self.write(move |conn| claim(conn, &entry)).await
    }

    async fn idempotency_finish(
        &self,
        workspace: &WorkspaceId,
        key: &str,
        outcome: IdempotencyOutcome,
    ) -> Result<()> {
        let (workspace, key) = (workspace.clone(), key.to_owned());
        self.write(move |conn| finish(conn, &workspace, &key, outcome))
            .await
    }

    async fn idempotency_trim(&self, before: Timestamp) -> Result<u64> {
        self.write(move |conn| {
            let sql = "DELETE FROM idempotency_keys WHERE claimed_at < ?1";
            let count = change(conn, KEY, sql, [before.as_millis()])?;
            Ok(u64::try_from(count).unwrap_or(u64::MAX))
        })
        .await
    }
}

fn setting(conn: &Connection, name: &str) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT value FROM settings WHERE name = ?1";
    first(conn, SETTING, sql, [name], |row| get(row, SETTING, "value"))
}

fn claim(conn: &Connection, entry: &IdempotencyEntry) -> Result<Option<IdempotencyEntry>> {
    let sql = "INSERT INTO idempotency_keys (workspace, key, fingerprint, claimed_at) \
               VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    let params = params![
        entry.workspace.as_str(),
        entry.key,
        entry.fingerprint,
        entry.claimed_at.as_millis(),
    ];
    if change(conn, KEY, sql, params)? > 0 {
        return Ok(None);
    }
    let sql = "SELECT * FROM idempotency_keys WHERE workspace = ?1 AND key = ?2";
    let params = params![entry.workspace.as_str(), entry.key];
    first(conn, KEY, sql, params, entry_from_row)
}

fn finish(
    conn: &Connection,
    workspace: &WorkspaceId,
    key: &str,
    outcome: IdempotencyOutcome,
) -> Result<()> {
    let result = match outcome {
        IdempotencyOutcome::Freed => {
            let sql = "DELETE FROM idempotency_keys WHERE workspace = ?1 AND key = ?2";
            return change(conn, KEY, sql, params![workspace.as_str(), key]).map(drop);
        }
        IdempotencyOutcome::InProgress => None,
        IdempotencyOutcome::Done { result } => Some(result),
    };
    let sql = "UPDATE idempotency_keys SET result = ?3 WHERE workspace = ?1 AND key = ?2";
    change(conn, KEY, sql, params![workspace.as_str(), key, result]).map(drop)
}
