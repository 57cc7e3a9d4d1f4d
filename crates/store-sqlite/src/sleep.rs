//! Defaults of workspaces about sleep, and holds.

use async_trait::async_trait;
use rusqlite::params;
use woodfrog_store::{Result, SleepStore, StoreError};
use woodfrog_types::run::RUN_HOLD;
use woodfrog_types::sleep::{Hold, SleepDefaults};
use woodfrog_types::{SandboxId, Timestamp, WorkspaceId};

use crate::SqliteStore;
use crate::reader::{all, first};
use crate::stored::{
    hold_from_row, run_hold_from_row, sleep_defaults_from_row, sleep_defaults_to_json, to_sql_int,
};
use crate::writer::change;

const DEFAULTS: &str = "sleep defaults";
const HOLD: &str = "hold";
const SANDBOX: &str = "sandbox";

#[async_trait]
impl SleepStore for SqliteStore {
    async fn sleep_defaults_fetch(&self, workspace: &WorkspaceId) -> Result<Option<SleepDefaults>> {
        let workspace = workspace.clone();
        self.read(move |conn| {
            let sql = "SELECT * FROM workspace_sleep WHERE workspace = ?1";
            let params = [workspace.as_str()];
            first(conn, DEFAULTS, sql, params, sleep_defaults_from_row)
        })
        .await
    }

    async fn sleep_defaults_put(&self, defaults: &SleepDefaults) -> Result<()> {
        let defaults = defaults.clone();
        self.write(move |conn| {
            let sql = "INSERT INTO workspace_sleep (workspace, sleep, generation, updated_at) \
                       SELECT ?1, ?2, ?3, ?4 WHERE ?3 = 1 OR EXISTS \
                       (SELECT 1 FROM workspace_sleep WHERE workspace = ?1) \
                       ON CONFLICT (workspace) DO UPDATE \
                       SET sleep = ?2, generation = ?3, updated_at = ?4 WHERE generation = ?3 - 1";
            let params = params![
                defaults.workspace.as_str(),
                sleep_defaults_to_json(&defaults.sleep)?,
                to_sql_int(defaults.generation),
                defaults.updated_at.as_millis(),
            ];
            match change(conn, DEFAULTS, sql, params)? {
                0 => Err(StoreError::Conflict { what: DEFAULTS }),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn hold_put(&self, sandbox: &SandboxId, hold: &Hold, now: Timestamp) -> Result<()> {
        let (sandbox, hold) = (sandbox.clone(), hold.clone());
        self.write(move |conn| {
            let over = "DELETE FROM sandbox_holds WHERE sandbox = ?1 AND expires_at <= ?2";
            change(conn, HOLD, over, params![sandbox.as_str(), now.as_millis()])?;
            let sql = "INSERT INTO sandbox_holds (sandbox, name, expires_at) \
                       SELECT id, ?2, ?3 FROM sandboxes WHERE id = ?1 \
                       ON CONFLICT (sandbox, name) DO UPDATE SET expires_at = ?3";
            let params = params![
                sandbox.as_str(),
                hold.name,
                hold.expires_at.map(Timestamp::as_millis)
            ];
            match change(conn, HOLD, sql, params)? {
                0 => Err(StoreError::NotFound { what: SANDBOX }),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn hold_remove(&self, sandbox: &SandboxId, name: &str) -> Result<bool> {
        let (sandbox, name) = (sandbox.clone(), name.to_owned());
        self.write(move |conn| {
            let sql = "DELETE FROM sandbox_holds WHERE sandbox = ?1 AND name = ?2";
            Ok(change(conn, HOLD, sql, params![sandbox.as_str(), name])? > 0)
        })
        .await
    }

    async fn hold_list(&self, sandbox: &SandboxId, now: Timestamp) -> Result<Vec<Hold>> {
        let sandbox = sandbox.clone();
        self.read(move |conn| {
            let sql = "SELECT * FROM sandbox_holds WHERE sandbox = ?1 \
                       AND (expires_at IS NULL OR expires_at > ?2) ORDER BY name";
            let params = params![sandbox.as_str(), now.as_millis()];
            all(conn, HOLD, sql, params, hold_from_row)
        })
        .await
    }

    async fn hold_of_runs(
        &self,
        after: Option<&(SandboxId, String)>,
        limit: usize,
    ) -> Result<Vec<(SandboxId, String)>> {
        let (sandbox, run) = after.map_or(("", ""), |(id, run)| (id.as_str(), run.as_str()));
        let after = (sandbox.to_owned(), format!("{RUN_HOLD}{run}"));
        self.read(move |conn| {
            let sql = "SELECT * FROM sandbox_holds WHERE substr(name, 1, ?4) = ?5 \
                       AND (sandbox, name) > (?1, ?2) ORDER BY sandbox, name LIMIT ?3";
            let params = params![
                after.0,
                after.1,
                to_sql_int(limit),
                to_sql_int(RUN_HOLD.len()),
                RUN_HOLD
            ];
            all(conn, HOLD, sql, params, run_hold_from_row)
        })
        .await
    }
}
