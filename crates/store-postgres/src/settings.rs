//! Settings of the server and idempotency keys.

use async_trait::async_trait;
use woodfrog_store::{IdempotencyEntry, IdempotencyOutcome, Result, SettingStore, StoreError};
use woodfrog_store_rows::{entry_from_row, get};
use woodfrog_types::{Timestamp, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, change, first};
use crate::text::{Text, TextBuf};

const SETTING: &str = "setting";
const KEY: &str = "idempotency key";
/// How often a key is claimed that was there for the claim and gone for the look at it.
const CLAIMS: usize = 5;

#[async_trait]
impl SettingStore for PostgresStore {
    async fn setting_get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT value FROM settings WHERE name = $1";
        first(&self.client().await?, SETTING, sql, &[&Text(name)], |row| {
            get(row, SETTING, "value")
        })
        .await
    }

    async fn setting_init(&self, name: &str, value: &[u8]) -> Result<Vec<u8>> {
        let sql = "INSERT INTO settings (name, value) VALUES ($1, $2) \
                   ON CONFLICT (name) DO NOTHING";
        let args: [Arg<'_>; 2] = [&Text(name), &value];
        change(&self.client().await?, SETTING, sql, &args).await?;
        let stored = self.setting_get(name).await?;
        stored.ok_or(StoreError::NotFound { what: SETTING })
    }

    async fn setting_put(&self, name: &str, value: &[u8]) -> Result<()> {
        let sql = "INSERT INTO settings (name, value) VALUES ($1, $2) \
                   ON CONFLICT (name) DO UPDATE SET value = $2";
        let args: [Arg<'_>; 2] = [&Text(name), &value];
        change(&self.client().await?, SETTING, sql, &args)
            .await
            .map(drop)
    }

    async fn idempotency_claim(
        &self,
        entry: &IdempotencyEntry,
    ) -> Result<Option<IdempotencyEntry>> {
        let client = self.client().await?;
        let insert = "INSERT INTO idempotency_keys (workspace, key, fingerprint, claimed_at) \
                      VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
        let look = "SELECT * FROM idempotency_keys WHERE workspace = $1 AND key = $2";
        let args: [Arg<'_>; 4] = [
            &entry.workspace.as_str(),
            &Text(&entry.key),
            &Text(&entry.fingerprint),
            &entry.claimed_at.as_millis(),
        ];
        for _ in 0..CLAIMS {
            if change(&client, KEY, insert, &args).await? > 0 {
                return Ok(None);
            }
            let known = first(&client, KEY, look, &args[..2], entry_from_row).await?;
            if known.is_some() {
                return Ok(known);
            }
        }
        Err(StoreError::Conflict { what: KEY })
    }

    async fn idempotency_finish(
        &self,
        workspace: &WorkspaceId,
        key: &str,
        outcome: IdempotencyOutcome,
    ) -> Result<()> {
        let result = match outcome {
            IdempotencyOutcome::Freed => {
                let sql = "DELETE FROM idempotency_keys WHERE workspace = $1 AND key = $2";
                let args: [Arg<'_>; 2] = [&workspace.as_str(), &Text(key)];
                return change(&self.client().await?, KEY, sql, &args)
                    .await
                    .map(drop);
            }
            IdempotencyOutcome::InProgress => None,
            IdempotencyOutcome::Done { result } => Some(TextBuf(result)),
        };
        let sql = "UPDATE idempotency_keys SET result = $3 WHERE workspace = $1 AND key = $2";
        let args: [Arg<'_>; 3] = [&workspace.as_str(), &Text(key), &result];
        change(&self.client().await?, KEY, sql, &args)
            .await
            .map(drop)
    }

    async fn idempotency_trim(&self, before: Timestamp) -> Result<u64> {
        let sql = "DELETE FROM idempotency_keys WHERE claimed_at < $1";
        change(&self.client().await?, KEY, sql, &[&before.as_millis()]).await
    }
}
