//! Defaults of workspaces about sleep, and holds.

use async_trait::async_trait;
use woodfrog_store::{Result, SleepStore, StoreError};
use woodfrog_store_rows::{
    hold_from_row, run_hold_from_row, sleep_defaults_from_row, sleep_defaults_to_json, to_sql_int,
};
use woodfrog_types::run::RUN_HOLD;
use woodfrog_types::sleep::{Hold, SleepDefaults};
use woodfrog_types::{SandboxId, Timestamp, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, all, begin, change, commit, finds, first};
use crate::text::Text;

const DEFAULTS: &str = "sleep defaults";
const HOLD: &str = "hold";
const SANDBOX: &str = "sandbox";

#[async_trait]
impl SleepStore for PostgresStore {
    async fn sleep_defaults_fetch(&self, workspace: &WorkspaceId) -> Result<Option<SleepDefaults>> {
        let sql = "SELECT * FROM workspace_sleep WHERE workspace = $1";
        let args: [Arg<'_>; 1] = [&workspace.as_str()];
        let client = self.client().await?;
        first(&client, DEFAULTS, sql, &args, sleep_defaults_from_row).await
    }

    async fn sleep_defaults_put(&self, defaults: &SleepDefaults) -> Result<()> {
        let first = "INSERT INTO workspace_sleep (workspace, sleep, generation, updated_at) \
                     VALUES ($1, $2, $3, $4) ON CONFLICT (workspace) DO NOTHING";
        let next = "UPDATE workspace_sleep SET sleep = $2, generation = $3, updated_at = $4 \
                    WHERE workspace = $1 AND generation = $3::bigint - 1";
        let sql = if defaults.generation == 1 {
            first
        } else {
            next
        };
        let stored = sleep_defaults_to_json(&defaults.sleep)?;
        let args: [Arg<'_>; 4] = [
            &defaults.workspace.as_str(),
            &stored,
            &to_sql_int(defaults.generation),
            &defaults.updated_at.as_millis(),
        ];
        match change(&self.client().await?, DEFAULTS, sql, &args).await? {
            0 => Err(StoreError::Conflict { what: DEFAULTS }),
            _ => Ok(()),
        }
    }

    async fn hold_put(&self, sandbox: &SandboxId, hold: &Hold, now: Timestamp) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, HOLD).await?;
        // Locked, so that the sandbox cannot go meanwhile.
        let sql = "SELECT 1 FROM sandboxes WHERE id = $1 FOR KEY SHARE";
        if !finds(&transaction, HOLD, sql, &[&sandbox.as_str()]).await? {
            return Err(StoreError::NotFound { what: SANDBOX });
        }
        let over = "DELETE FROM sandbox_holds WHERE sandbox = $1 AND expires_at <= $2";
        let args: [Arg<'_>; 2] = [&sandbox.as_str(), &now.as_millis()];
        change(&transaction, HOLD, over, &args).await?;
        let sql = "INSERT INTO sandbox_holds (sandbox, name, expires_at) VALUES ($1, $2, $3) \
                   ON CONFLICT (sandbox, name) DO UPDATE SET expires_at = $3";
        let expires_at = hold.expires_at.map(Timestamp::as_millis);
        let args: [Arg<'_>; 3] = [&sandbox.as_str(), &Text(&hold.name), &expires_at];
        change(&transaction, HOLD, sql, &args).await?;
        commit(transaction, HOLD).await
    }

    async fn hold_remove(&self, sandbox: &SandboxId, name: &str) -> Result<bool> {
        let sql = "DELETE FROM sandbox_holds WHERE sandbox = $1 AND name = $2";
        let args: [Arg<'_>; 2] = [&sandbox.as_str(), &Text(name)];
        Ok(change(&self.client().await?, HOLD, sql, &args).await? > 0)
    }

    async fn hold_list(&self, sandbox: &SandboxId, now: Timestamp) -> Result<Vec<Hold>> {
        let sql = "SELECT * FROM sandbox_holds WHERE sandbox = $1 \
                   AND (expires_at IS NULL OR expires_at > $2) ORDER BY name";
        let args: [Arg<'_>; 2] = [&sandbox.as_str(), &now.as_millis()];
        all(&self.client().await?, HOLD, sql, &args, hold_from_row).await
    }

    async fn hold_of_runs(
        &self,
        after: Option<&(SandboxId, String)>,
        limit: usize,
    ) -> Result<Vec<(SandboxId, String)>> {
        // Another node's are its own business.
        let sql = "SELECT * FROM sandbox_holds h WHERE starts_with(name, $4) \
                   AND (sandbox, name) > ($1, $2) AND NOT EXISTS \
                   (SELECT 1 FROM leases l WHERE l.sandbox = h.sandbox AND l.node <> this_node()) \
                   ORDER BY sandbox, name LIMIT $3";
        let (sandbox, run) = after.map_or(("", ""), |(id, run)| (id.as_str(), run.as_str()));
        let name = format!("{RUN_HOLD}{run}");
        let args: [Arg<'_>; 4] = [&sandbox, &Text(&name), &to_sql_int(limit), &RUN_HOLD];
        all(&self.client().await?, HOLD, sql, &args, run_hold_from_row).await
    }
}
