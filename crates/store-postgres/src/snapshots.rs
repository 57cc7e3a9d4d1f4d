//! Snapshots: records and lists.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use woodfrog_store::cursor::List;
use woodfrog_store::{NewEvent, Result, SnapshotStore, StoreError};
use woodfrog_store_rows::{Columns, snapshot_from_row, snapshot_to_json, to_sql_int};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::snapshot::{Snapshot, SnapshotFilter};
use woodfrog_types::{SnapshotId, WorkspaceId};

use crate::client::{all, begin, change, commit, count, first, generation, name_culprit, refused};
use crate::events::append;
use crate::listing::Listing;
use crate::text::Text;
use crate::{PostgresStore, sandboxes};

const WHAT: &str = "snapshot";

#[async_trait]
impl SnapshotStore for PostgresStore {
    async fn snapshot_insert(&self, snapshot: &Snapshot) -> Result<()> {
        insert(&self.client().await?, snapshot).await
    }

    async fn snapshot_update(&self, snapshot: &Snapshot) -> Result<()> {
        update(&self.client().await?, snapshot).await
    }

    async fn sandbox_update_with_snapshot(
        &self,
        sandbox: &Sandbox,
        events: Vec<NewEvent>,
        snapshot: &Snapshot,
    ) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        sandboxes::update(&transaction, sandbox).await?;
        append(&transaction, &sandbox.id, &events).await?;
        match snapshot.generation {
            1 => insert(&transaction, snapshot).await?,
            _ => update(&transaction, snapshot).await?,
        }
        commit(transaction, WHAT).await
    }

    async fn snapshot_remove(&self, id: &SnapshotId) -> Result<()> {
        let sql = "DELETE FROM snapshots WHERE id = $1";
        let removed = change(&self.client().await?, WHAT, sql, &[&id.as_str()]).await;
        removed.map(drop)
    }

    async fn snapshot_fetch(&self, id: &SnapshotId) -> Result<Option<Snapshot>> {
        let sql = "SELECT * FROM snapshots WHERE id = $1";
        let client = self.client().await?;
        first(&client, WHAT, sql, &[&id.as_str()], snapshot_from_row).await
    }

    async fn snapshot_by_name(
        &self,
        workspace: &WorkspaceId,
        name: &str,
    ) -> Result<Option<Snapshot>> {
        let sql = "SELECT * FROM snapshots \
                   WHERE workspace = $1 AND name = $2 AND state <> 'deleting'";
        let client = self.client().await?;
        let args: [crate::client::Arg<'_>; 2] = [&workspace.as_str(), &Text(name)];
        first(&client, WHAT, sql, &args, snapshot_from_row).await
    }

    async fn snapshot_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SnapshotFilter,
        page: &PageRequest,
    ) -> Result<Page<Snapshot>> {
        let list = Listing::new(WHAT, List::Snapshots, "snapshots", "created_at", true);
        let mut list = list
            .when("state <> 'deleting'")
            .text("workspace", workspace.as_str());
        if !filter.internal {
            list = list.when("purpose = 'checkpoint'");
        }
        if let Some(source) = &filter.source {
            list = list.text("source", source.as_str());
        }
        if let Some(name) = &filter.name {
            list = list.text("name", name);
        }
        let convert = |row: &dyn Columns| {
            let snapshot = snapshot_from_row(row)?;
            let mut labels = filter.labels.iter();
            let has = labels.all(|(key, value)| snapshot.labels.get(key) == Some(value));
            Ok(has.then_some(snapshot))
        };
        list.page(&self.client().await?, page, convert, |last| {
            (last.created_at.as_millis(), last.id.to_string())
        })
        .await
    }

    async fn snapshot_all(&self) -> Result<Vec<Snapshot>> {
        let sql = "SELECT * FROM snapshots ORDER BY id";
        all(&self.client().await?, WHAT, sql, &[], |row| {
            snapshot_from_row(row).map_err(|error| name_culprit(row, error))
        })
        .await
    }

    async fn snapshot_usage(&self, workspace: &WorkspaceId) -> Result<u64> {
        let sql = "SELECT coalesce(sum(bytes), 0)::bigint AS n FROM snapshots \
                   WHERE workspace = $1 AND state <> 'deleting'";
        count(&self.client().await?, WHAT, sql, &[&workspace.as_str()]).await
    }
}

async fn insert(client: &impl GenericClient, snapshot: &Snapshot) -> Result<()> {
    if snapshot.generation != 1 {
        return Err(StoreError::Conflict { what: WHAT });
    }
    let sql = "INSERT INTO snapshots (id, workspace, source, purpose, state, generation, name, \
               created_at, bytes, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    write_row(client, sql, snapshot, 1).await.map(drop)
}

async fn update(client: &impl GenericClient, snapshot: &Snapshot) -> Result<()> {
    let exists = "SELECT 1 FROM snapshots WHERE id = $1";
    let Ok(generation) = generation(WHAT, snapshot.generation) else {
        return Err(refused(client, WHAT, exists, snapshot.id.as_str()).await);
    };
    let sql = "UPDATE snapshots SET workspace = $2, source = $3, purpose = $4, state = $5, \
               generation = $6, name = $7, created_at = $8, bytes = $9, body = $10 \
               WHERE id = $1 AND generation = $6::bigint - 1";
    match write_row(client, sql, snapshot, generation).await? {
        0 => Err(refused(client, WHAT, exists, snapshot.id.as_str()).await),
        _ => Ok(()),
    }
}

async fn write_row(
    client: &impl GenericClient,
    sql: &str,
    snapshot: &Snapshot,
    generation: i64,
) -> Result<u64> {
    let size = snapshot.size;
    let bytes = to_sql_int(size.written_bytes.saturating_add(size.disk_bytes));
    let body = snapshot_to_json(snapshot)?;
    let args: [crate::client::Arg<'_>; 10] = [
        &snapshot.id.as_str(),
        &snapshot.workspace.as_str(),
        &snapshot.source.as_str(),
        &snapshot.purpose.as_str(),
        &snapshot.state.as_str(),
        &generation,
        &snapshot.name.as_deref().map(Text),
        &snapshot.created_at.as_millis(),
        &bytes,
        &body,
    ];
    change(client, WHAT, sql, &args).await
}
