//! Sandboxes: records, lists and deadlines.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use woodfrog_store::cursor::List;
use woodfrog_store::{Damaged, NewEvent, Recovery, Result, SandboxStore, StoreError};
use woodfrog_store_rows::{
    Columns, StringMap, id_column, json_column, sandbox_from_row, sandbox_to_json, time_column,
    to_json, to_sql_int,
};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox::{Order, Sandbox, SandboxFilter};
use woodfrog_types::{SandboxId, Timestamp, WorkspaceId};

use crate::client::{
    Cells, all, begin, change, commit, count, first, generation, name_culprit, refused, rows,
};
use crate::events::append;
use crate::listing::Listing;
use crate::{PostgresStore, sandbox_sessions};

const WHAT: &str = "sandbox";

#[async_trait]
impl SandboxStore for PostgresStore {
    async fn sandbox_insert(&self, sandbox: &Sandbox, events: Vec<NewEvent>) -> Result<()> {
        if sandbox.generation != 1 {
            return Err(StoreError::Conflict { what: WHAT });
        }
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        let sql = "INSERT INTO sandboxes (id, workspace, template, state, generation, started_at, \
                   deadline, metadata, body, due) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        write_row(&transaction, sql, sandbox, 1).await?;
        append(&transaction, &sandbox.id, &events).await?;
        commit(transaction, WHAT).await
    }

    async fn sandbox_update(&self, sandbox: &Sandbox, events: Vec<NewEvent>) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        update(&transaction, sandbox).await?;
        append(&transaction, &sandbox.id, &events).await?;
        commit(transaction, WHAT).await
    }

    async fn sandbox_remove(&self, id: &SandboxId, events: Vec<NewEvent>) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        let sql = "DELETE FROM sandboxes WHERE id = $1";
        if change(&transaction, WHAT, sql, &[&id.as_str()]).await? > 0 {
            let holds = "DELETE FROM sandbox_holds WHERE sandbox = $1";
            change(&transaction, WHAT, holds, &[&id.as_str()]).await?;
            sandbox_sessions::end(&transaction, id, &events).await?;
            append(&transaction, id, &events).await?;
        }
        commit(transaction, WHAT).await
    }

    async fn sandbox_fetch(&self, id: &SandboxId) -> Result<Option<Sandbox>> {
        let sql = "SELECT * FROM sandboxes WHERE id = $1";
        let client = self.client().await?;
        first(&client, WHAT, sql, &[&id.as_str()], sandbox_from_row).await
    }

    async fn sandbox_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SandboxFilter,
        page: &PageRequest,
    ) -> Result<Page<Sandbox>> {
        let newest = filter.order == Order::NewestFirst;
        let list = Listing::new(WHAT, List::Sandboxes, "sandboxes", "started_at", newest);
        let mut list = list.text("workspace", workspace.as_str());
        list = match filter.states.as_slice() {
            [] => list.when("state <> 'deleting'"),
            states => list.when(&format!("state IN ({})", quoted(states))),
        };
        if let Some(template) = &filter.template {
            list = list.text("template", template.as_str());
        }
        if let Some(after) = filter.started_after {
            list = list.with("started_at >", Box::new(after.as_millis()));
        }
        let client = self.client().await?;
        let convert = |row: &dyn Columns| matching(row, filter);
        list.page(&client, page, convert, |last| {
            (last.started_at.as_millis(), last.id.to_string())
        })
        .await
    }

    async fn sandbox_all(&self) -> Result<Vec<Sandbox>> {
        let sql = "SELECT * FROM sandboxes ORDER BY id";
        all(&self.client().await?, WHAT, sql, &[], |row| {
            sandbox_from_row(row).map_err(|error| name_culprit(row, error))
        })
        .await
    }

    async fn sandbox_of_runs(
        &self,
        after: Option<&SandboxId>,
        limit: usize,
    ) -> Result<Vec<Sandbox>> {
        // The label is a part of the index, as a migration has it. Another node's are its own
        // business.
        let sql = "SELECT * FROM sandboxes WHERE strpos(metadata, '\"woodfrog.run\":') > 0 \
                   AND id > $1 \
                   AND NOT EXISTS (SELECT 1 FROM leases WHERE sandbox = id AND node <> this_node()) \
                   ORDER BY id LIMIT $2";
        let after = after.map_or("", SandboxId::as_str);
        let found = rows(
            &self.client().await?,
            WHAT,
            sql,
            &[&after, &to_sql_int(limit)],
        )
        .await?;
        let readable = |row| {
            let row = &Cells(row);
            sandbox_from_row(row)
                .map_err(|error| name_culprit(row, error))
                .inspect_err(|error| tracing::error!(%error, "a sandbox is left out"))
                .ok()
        };
        Ok(found.iter().filter_map(readable).collect())
    }

    async fn sandbox_recover(&self) -> Result<Recovery> {
        let sql = "SELECT * FROM sandboxes WHERE this_node() IS NULL \
                   OR EXISTS (SELECT 1 FROM leases WHERE sandbox = id AND node = this_node()) \
                   ORDER BY id";
        let mut found = Recovery::default();
        for row in rows(&self.client().await?, WHAT, sql, &[]).await? {
            let row = &Cells(&row);
            match sandbox_from_row(row) {
                Ok(sandbox) => found.sandboxes.push(sandbox),
                Err(StoreError::Corrupt { detail, .. }) => {
                    let id = id_column(row, WHAT, "id").ok();
                    found.damaged.push(Damaged { id, detail });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn sandbox_due(&self, now: Timestamp, limit: usize) -> Result<Vec<SandboxId>> {
        // Another node's are its own business.
        let sql = "SELECT id FROM sandboxes WHERE due IS NOT NULL AND due <= $1 \
                   AND NOT EXISTS (SELECT 1 FROM leases WHERE sandbox = id AND node <> this_node()) \
                   ORDER BY due, id LIMIT $2";
        let (now, limit) = (now.as_millis(), to_sql_int(limit));
        all(&self.client().await?, WHAT, sql, &[&now, &limit], |row| {
            id_column(row, WHAT, "id")
        })
        .await
    }

    async fn sandbox_next_deadline(&self) -> Result<Option<Timestamp>> {
        let sql = "SELECT due FROM sandboxes WHERE due IS NOT NULL \
                   AND NOT EXISTS (SELECT 1 FROM leases WHERE sandbox = id AND node <> this_node()) \
                   ORDER BY due LIMIT 1";
        first(&self.client().await?, WHAT, sql, &[], |row| {
            time_column(row, WHAT, "due")
        })
        .await
    }

    async fn sandbox_count(&self, workspace: &WorkspaceId) -> Result<u64> {
        let sql =
            "SELECT count(*) AS n FROM sandboxes WHERE workspace = $1 AND state <> 'deleting'";
        count(&self.client().await?, WHAT, sql, &[&workspace.as_str()]).await
    }

    async fn sandbox_count_running(&self, workspace: &WorkspaceId) -> Result<u64> {
        // Why one sleeps is in its body only, which is looked at for those that do. As text: a body
        // may hold `\u0000`, which Postgres takes in no JSON. Strings in it cannot look like that,
        // since their quotes are escaped, and what users name has strings for values.
        let sql = r#"SELECT count(*) AS n FROM sandboxes WHERE workspace = $1 AND CASE
                     WHEN state IN ('creating', 'running', 'waking') THEN true
                     WHEN state = 'deleting' THEN false
                     ELSE body ~ '"sleep":\{"since":-?[0-9]+,"cause":"(idle|requested)"' END"#;
        count(&self.client().await?, WHAT, sql, &[&workspace.as_str()]).await
    }
}

/// Names that we chose, as a list of literals.
pub(crate) fn quoted(names: &[&'static str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("'{name}'")).collect();
    quoted.join(", ")
}

pub(crate) async fn update(client: &impl GenericClient, sandbox: &Sandbox) -> Result<()> {
    let generation = generation(WHAT, sandbox.generation);
    let exists = "SELECT 1 FROM sandboxes WHERE id = $1";
    let Ok(generation) = generation else {
        return Err(refused(client, WHAT, exists, sandbox.id.as_str()).await);
    };
    let sql = "UPDATE sandboxes SET workspace = $2, template = $3, state = $4, generation = $5, \
               started_at = $6, deadline = $7, metadata = $8, body = $9, due = $10 \
               WHERE id = $1 AND generation = $5::bigint - 1";
    match write_row(client, sql, sandbox, generation).await? {
        0 => Err(refused(client, WHAT, exists, sandbox.id.as_str()).await),
        _ => Ok(()),
    }
}

async fn write_row(
    client: &impl GenericClient,
    sql: &str,
    sandbox: &Sandbox,
    generation: i64,
) -> Result<u64> {
    let deadline = sandbox.deadline.map(Timestamp::as_millis);
    let due = sandbox.due().map(Timestamp::as_millis);
    let metadata = to_json(WHAT, &sandbox.metadata)?;
    let body = sandbox_to_json(sandbox)?;
    change(
        client,
        WHAT,
        sql,
        &[
            &sandbox.id.as_str(),
            &sandbox.workspace.as_str(),
            &sandbox.template.as_str(),
            &sandbox.state.as_str(),
            &generation,
            &sandbox.started_at.as_millis(),
            &deadline,
            &metadata,
            &body,
            &due,
        ],
    )
    .await
}

/// The row's sandbox if it has the metadata that is wanted.
fn matching(row: &dyn Columns, filter: &SandboxFilter) -> Result<Option<Sandbox>> {
    if !filter.metadata.is_empty() {
        let metadata: StringMap = json_column(row, WHAT, "metadata")?;
        let wanted = |(key, value)| metadata.get(key) == Some(value);
        if !filter.metadata.iter().all(wanted) {
            return Ok(None);
        }
    }
    sandbox_from_row(row).map(Some)
}
