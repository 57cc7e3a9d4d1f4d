//! Snapshots: records and lists.

use async_trait::async_trait;
use rusqlite::{Connection, ToSql, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{NewEvent, Result, SnapshotStore, StoreError};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::snapshot::{Snapshot, SnapshotFilter};
use woodfrog_types::{SnapshotId, WorkspaceId};

use crate::error::in_;
use crate::events::append;
use crate::reader::{Cells, all, count, first, name_culprit};
use crate::stored::{snapshot_from_row, snapshot_to_json, to_sql_int};
use crate::writer::change;
use crate::{SqliteStore, sandboxes};

const WHAT: &str = "snapshot";

#[async_trait]
impl SnapshotStore for SqliteStore {
    async fn snapshot_insert(&self, snapshot: &Snapshot) -> Result<()> {
        let snapshot = snapshot.clone();
        self.write(move |conn| insert(conn, &snapshot)).await
    }

    async fn snapshot_update(&self, snapshot: &Snapshot) -> Result<()> {
        let snapshot = snapshot.clone();
        self.write(move |conn| update(conn, &snapshot)).await
    }

    async fn sandbox_update_with_snapshot(
        &self,
        sandbox: &Sandbox,
        events: Vec<NewEvent>,
        snapshot: &Snapshot,
    ) -> Result<()> {
        let (sandbox, snapshot) = (sandbox.clone(), snapshot.clone());
        self.write(move |conn| {
            sandboxes::update(conn, &sandbox)?;
            append(conn, &sandbox.id, &events)?;
            match snapshot.generation {
                1 => insert(conn, &snapshot),
                _ => update(conn, &snapshot),
            }
        })
        .await
    }

    async fn snapshot_remove(&self, id: &SnapshotId) -> Result<()> {
        let id = id.clone();
        self.write(move |conn| {
            let sql = "DELETE FROM snapshots WHERE id = ?1";
            change(conn, WHAT, sql, [id.as_str()]).map(drop)
        })
        .await
    }

    async fn snapshot_fetch(&self, id: &SnapshotId) -> Result<Option<Snapshot>> {
        let id = id.clone();
        self.read(move |conn| {
            let sql = "SELECT * FROM snapshots WHERE id = ?1";
            first(conn, WHAT, sql, [id.as_str()], snapshot_from_row)
        })
        .await
    }

    async fn snapshot_by_name(
        &self,
        workspace: &WorkspaceId,
        name: &str,
    ) -> Result<Option<Snapshot>> {
        let (workspace, name) = (workspace.clone(), name.to_owned());
        self.read(move |conn| {
            let params = params![workspace.as_str(), name];
            first(conn, WHAT, BY_NAME, params, snapshot_from_row)
        })
        .await
    }

    async fn snapshot_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SnapshotFilter,
        page: &PageRequest,
    ) -> Result<Page<Snapshot>> {
        let (workspace, filter, page) = (workspace.clone(), filter.clone(), page.clone());
        self.read(move |conn| list(conn, &workspace, &filter, &page))
            .await
    }

    async fn snapshot_all(&self) -> Result<Vec<Snapshot>> {
        self.read(|conn| {
            let sql = "SELECT * FROM snapshots ORDER BY id";
            all(conn, WHAT, sql, [], |row| {
                snapshot_from_row(row).map_err(|error| name_culprit(row, error))
            })
        })
        .await
    }

    async fn snapshot_usage(&self, workspace: &WorkspaceId) -> Result<u64> {
        let workspace = workspace.clone();
        self.read(move |conn| count(conn, WHAT, USAGE, [workspace.as_str()]))
            .await
    }
}

// Conditions repeat those of the partial indexes word for word: only then are they used.
const BY_NAME: &str =
    "SELECT * FROM snapshots WHERE workspace = ?1 AND name = ?2 AND state <> 'deleting'";
const USAGE: &str = "SELECT ifnull(sum(bytes), 0) AS n FROM snapshots \
     INDEXED BY snapshots_by_age WHERE workspace = ?1 AND state <> 'deleting'";

fn insert(conn: &Connection, snapshot: &Snapshot) -> Result<()> {
    if snapshot.generation != 1 {
        return Err(StoreError::Conflict { what: WHAT });
    }
    let sql = "INSERT INTO snapshots (id, workspace, source, purpose, state, generation, name, \
               created_at, bytes, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    write_row(conn, sql, snapshot, 1).map(drop)
}

fn update(conn: &Connection, snapshot: &Snapshot) -> Result<()> {
    let conflict = StoreError::Conflict { what: WHAT };
    let exists = "SELECT 1 FROM snapshots WHERE id = ?1";
    if first(conn, WHAT, exists, [snapshot.id.as_str()], |_| Ok(()))?.is_none() {
        return Err(StoreError::NotFound { what: WHAT });
    }
    // 0 follows nothing, and no generation past i64::MAX was ever stored.
    let generation = match i64::try_from(snapshot.generation) {
        Ok(generation) if generation > 0 => generation,
        _ => return Err(conflict),
    };
    let sql = "UPDATE snapshots SET workspace = ?2, source = ?3, purpose = ?4, state = ?5, \
               generation = ?6, name = ?7, created_at = ?8, bytes = ?9, body = ?10 \
               WHERE id = ?1 AND generation = ?6 - 1";
    match write_row(conn, sql, snapshot, generation)? {
        0 => Err(conflict),
        _ => Ok(()),
    }
}

fn write_row(conn: &Connection, sql: &str, snapshot: &Snapshot, generation: i64) -> Result<usize> {
    let size = snapshot.size;
    let params = params![
        snapshot.id.as_str(),
        snapshot.workspace.as_str(),
        snapshot.source.as_str(),
        snapshot.purpose.as_str(),
        snapshot.state.as_str(),
        generation,
        snapshot.name,
        snapshot.created_at.as_millis(),
        to_sql_int(size.written_bytes.saturating_add(size.disk_bytes)),
        snapshot_to_json(snapshot)?,
    ];
    change(conn, WHAT, sql, params)
}

/// Walks an index from the cursor until the page is full. Labels are compared here and not in
/// SQL; a damaged row costs itself and not the list.
fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &SnapshotFilter,
    page: &PageRequest,
) -> Result<Page<Snapshot>> {
    let limit = cursor::page_items(page);
    let (sql, params) = list_query(workspace, filter, page)?;
    let params: Vec<&dyn ToSql> = params.iter().map(AsRef::as_ref).collect();
    let mut statement = conn.prepare_cached(&sql).map_err(in_(WHAT))?;
    let mut rows = statement.query(params.as_slice()).map_err(in_(WHAT))?;
    let wanted = |snapshot: &Snapshot| {
        let mut labels = filter.labels.iter();
        labels.all(|(key, value)| snapshot.labels.get(key) == Some(value))
    };
    let mut items: Vec<Snapshot> = Vec::new();
    let mut next = None;
    while let Some(row) = rows.next().map_err(in_(WHAT))? {
        let row = &Cells(row);
        match snapshot_from_row(row) {
            Ok(snapshot) if !wanted(&snapshot) => {}
            Ok(snapshot) if items.len() < limit => items.push(snapshot),
            Ok(_) => {
                next = items.last().map(cursor_of);
                break;
            }
            Err(error) => {
                let error = name_culprit(row, error);
                tracing::error!(%error, "a snapshot is left out of a list");
            }
        }
    }
    Ok(Page { items, next })
}

type Query = (String, Vec<Box<dyn ToSql>>);

fn list_query(
    workspace: &WorkspaceId,
    filter: &SnapshotFilter,
    page: &PageRequest,
) -> Result<Query> {
    let mut sql =
        String::from("SELECT * FROM snapshots WHERE workspace = ? AND state <> 'deleting'");
    let mut params: Vec<Box<dyn ToSql>> = vec![Box::new(workspace.as_str().to_owned())];
    if !filter.internal {
        sql.push_str(" AND purpose = 'checkpoint'");
    }
    if let Some(source) = &filter.source {
        sql.push_str(" AND source = ?");
        params.push(Box::new(source.as_str().to_owned()));
    }
    if let Some(name) = &filter.name {
        sql.push_str(" AND name = ?");
        params.push(Box::new(name.clone()));
    }
    if let Some(cursor) = &page.cursor {
        let (at, id) = cursor::decode_time(List::Snapshots, cursor)?;
        sql.push_str(" AND (created_at, id) < (?, ?)");
        params.push(Box::new(at));
        params.push(Box::new(id));
    }
    sql.push_str(" ORDER BY created_at DESC, id DESC");
    Ok((sql, params))
}

fn cursor_of(last: &Snapshot) -> String {
    let at = last.created_at.as_millis().to_string();
    cursor::encode(List::Snapshots, &at, last.id.as_str())
}

#[cfg(test)]
mod tests {
    use woodfrog_types::SandboxId;

    use super::*;
    use crate::migrate::plan;

    #[test]
    fn lists_come_from_the_index_that_fits() {
        let workspace = WorkspaceId::default_workspace();
        let page = PageRequest {
            limit: 1,
            cursor: Some(cursor::encode(List::Snapshots, "5", "id")),
        };
        let internal = SnapshotFilter {
            internal: true,
            ..SnapshotFilter::default()
        };
        let of_source = SnapshotFilter {
            source: Some(SandboxId::generate()),
            ..SnapshotFilter::default()
        };
        for (filter, index) in [
            (SnapshotFilter::default(), "snapshots_checkpoints"),
            (internal, "snapshots_by_age"),
            (of_source, "snapshots_by_source"),
        ] {
            let plan = plan(&list_query(&workspace, &filter, &page).unwrap().0);
            assert!(plan.contains(index), "{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
    }

    #[test]
    fn names_and_usage_come_from_an_index() {
        let by_name = plan(BY_NAME);
        assert!(by_name.contains("INDEX snapshots_by_name"), "{by_name}");
        let usage = plan(USAGE);
        assert!(usage.contains("COVERING INDEX snapshots_by_age"), "{usage}");
    }
}
