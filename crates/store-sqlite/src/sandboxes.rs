//! Sandboxes: records, lists and deadlines.

use async_trait::async_trait;
use rusqlite::{Connection, ToSql, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{Damaged, NewEvent, Recovery, Result, SandboxStore, StoreError};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox::{Order, Sandbox, SandboxFilter};
use woodfrog_types::{SandboxId, Timestamp, WorkspaceId};

use crate::error::in_;
use crate::events::append;
use crate::reader::{Cells, all, count, first, name_culprit};
use crate::stored::{
    Columns, StringMap, id_column, json_column, sandbox_from_row, sandbox_to_json, time_column,
    to_json, to_sql_int,
};
use crate::writer::change;
use crate::{SqliteStore, sandbox_sessions};

const WHAT: &str = "sandbox";
/// The label is a part of the index, as a migration has it.
const OF_RUNS: &str = "SELECT * FROM sandboxes \
     WHERE instr(metadata, '\"woodfrog.run\":') > 0 AND id > ?1 ORDER BY id LIMIT ?2";

#[async_trait]
impl SandboxStore for SqliteStore {
    async fn sandbox_insert(&self, sandbox: &Sandbox, events: Vec<NewEvent>) -> Result<()> {
        let sandbox = sandbox.clone();
        self.write(move |conn| {
            insert(conn, &sandbox)?;
            append(conn, &sandbox.id, &events).map(drop)
        })
        .await
    }

    async fn sandbox_update(&self, sandbox: &Sandbox, events: Vec<NewEvent>) -> Result<()> {
        let sandbox = sandbox.clone();
        self.write(move |conn| {
            update(conn, &sandbox)?;
            append(conn, &sandbox.id, &events).map(drop)
        })
        .await
    }

    async fn sandbox_remove(&self, id: &SandboxId, events: Vec<NewEvent>) -> Result<()> {
        let id = id.clone();
        self.write(move |conn| {
            let sql = "DELETE FROM sandboxes WHERE id = ?1";
            if change(conn, WHAT, sql, [id.as_str()])? > 0 {
                let holds = "DELETE FROM sandbox_holds WHERE sandbox = ?1";
                change(conn, WHAT, holds, [id.as_str()])?;
                sandbox_sessions::end(conn, &id, &events)?;
                append(conn, &id, &events)?;
            }
            Ok(())
        })
        .await
    }

    async fn sandbox_fetch(&self, id: &SandboxId) -> Result<Option<Sandbox>> {
        let id = id.clone();
        self.read(move |conn| {
            let sql = "SELECT * FROM sandboxes WHERE id = ?1";
            first(conn, WHAT, sql, [id.as_str()], sandbox_from_row)
        })
        .await
    }

    async fn sandbox_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SandboxFilter,
        page: &PageRequest,
    ) -> Result<Page<Sandbox>> {
        let (workspace, filter, page) = (workspace.clone(), filter.clone(), page.clone());
        self.read(move |conn| list(conn, &workspace, &filter, &page))
            .await
    }

    async fn sandbox_all(&self) -> Result<Vec<Sandbox>> {
        self.read(|conn| {
            let sql = "SELECT * FROM sandboxes ORDER BY id";
            all(conn, WHAT, sql, [], |row| {
                sandbox_from_row(row).map_err(|error| name_culprit(row, error))
            })
        })
        .await
    }

    async fn sandbox_of_runs(
        &self,
        after: Option<&SandboxId>,
        limit: usize,
    ) -> Result<Vec<Sandbox>> {
        let after = after.map_or_else(String::new, ToString::to_string);
        self.read(move |conn| {
            let found = all(
                conn,
                WHAT,
                OF_RUNS,
                params![after, to_sql_int(limit)],
                |row| Ok(sandbox_from_row(row).map_err(|error| name_culprit(row, error))),
            )?;
            Ok(found.into_iter().filter_map(readable).collect())
        })
        .await
    }

    async fn sandbox_recover(&self) -> Result<Recovery> {
        self.read(|conn| {
            let sql = "SELECT * FROM sandboxes ORDER BY id";
            let mut found = Recovery::default();
            let rows = all(conn, WHAT, sql, [], |row| match sandbox_from_row(row) {
                Err(StoreError::Corrupt { detail, .. }) => {
                    let id = id_column(row, WHAT, "id").ok();
                    Ok(Err(Damaged { id, detail }))
                }
                other => other.map(Ok),
            })?;
            for row in rows {
                match row {
                    Ok(sandbox) => found.sandboxes.push(sandbox),
                    Err(damaged) => found.damaged.push(damaged),
                }
            }
            Ok(found)
        })
        .await
    }

    async fn sandbox_due(&self, now: Timestamp, limit: usize) -> Result<Vec<SandboxId>> {
        self.read(move |conn| {
            let params = params![now.as_millis(), to_sql_int(limit)];
            all(conn, WHAT, DUE, params, |row| id_column(row, WHAT, "id"))
        })
        .await
    }

    async fn sandbox_next_deadline(&self) -> Result<Option<Timestamp>> {
        self.read(|conn| {
            first(conn, WHAT, NEXT_DUE, [], |row| {
                time_column(row, WHAT, "due")
            })
        })
        .await
    }

    async fn sandbox_count(&self, workspace: &WorkspaceId) -> Result<u64> {
        let workspace = workspace.clone();
        self.read(move |conn| count(conn, WHAT, COUNT, [workspace.as_str()]))
            .await
    }

    async fn sandbox_count_running(&self, workspace: &WorkspaceId) -> Result<u64> {
        let workspace = workspace.clone();
        self.read(move |conn| count(conn, WHAT, COUNT_RUNNING, [workspace.as_str()]))
            .await
    }
}

// The condition repeats that of the partial index word for word: only then is it used.
const DUE: &str = "SELECT id FROM sandboxes WHERE due IS NOT NULL AND due <= ?1 \
     ORDER BY due, id LIMIT ?2";
const NEXT_DUE: &str = "SELECT due FROM sandboxes WHERE due IS NOT NULL ORDER BY due LIMIT 1";
const COUNT: &str =
    "SELECT count(*) AS n FROM sandboxes WHERE workspace = ?1 AND state <> 'deleting'";
// Why one sleeps is in its body only, which is looked at for those that do.
const COUNT_RUNNING: &str = "SELECT count(*) AS n FROM sandboxes WHERE workspace = ?1 AND CASE \
     WHEN state IN ('creating', 'running', 'waking') THEN 1 \
     WHEN state = 'deleting' THEN 0 \
     ELSE coalesce(json_extract(body, '$.state.sleep.cause'), \
     json_extract(body, '$.state.saved.sleep.cause')) IN ('idle', 'requested') END";

fn insert(conn: &Connection, sandbox: &Sandbox) -> Result<()> {
    if sandbox.generation != 1 {
        return Err(StoreError::Conflict { what: WHAT });
    }
    let sql = "INSERT INTO sandboxes (id, workspace, template, state, generation, started_at, \
               deadline, metadata, body, due) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    write_row(conn, sql, sandbox, 1).map(drop)
}

pub(crate) fn update(conn: &Connection, sandbox: &Sandbox) -> Result<()> {
    let conflict = StoreError::Conflict { what: WHAT };
    let exists = "SELECT 1 FROM sandboxes WHERE id = ?1";
    if first(conn, WHAT, exists, [sandbox.id.as_str()], |_| Ok(()))?.is_none() {
        return Err(StoreError::NotFound { what: WHAT });
    }
    // 0 follows nothing, and no generation past i64::MAX was ever stored.
    let generation = match i64::try_from(sandbox.generation) {
        Ok(generation) if generation > 0 => generation,
        _ => return Err(conflict),
    };
    let sql = "UPDATE sandboxes SET workspace = ?2, template = ?3, state = ?4, generation = ?5, \
               started_at = ?6, deadline = ?7, metadata = ?8, body = ?9, due = ?10 \
               WHERE id = ?1 AND generation = ?5 - 1";
    match write_row(conn, sql, sandbox, generation)? {
        0 => Err(conflict),
        _ => Ok(()),
    }
}

fn write_row(conn: &Connection, sql: &str, sandbox: &Sandbox, generation: i64) -> Result<usize> {
    let params = params![
        sandbox.id.as_str(),
        sandbox.workspace.as_str(),
        sandbox.template.as_str(),
        sandbox.state.as_str(),
        generation,
        sandbox.started_at.as_millis(),
        sandbox.deadline.map(Timestamp::as_millis),
        to_json(WHAT, &sandbox.metadata)?,
        sandbox_to_json(sandbox)?,
        sandbox.due().map(Timestamp::as_millis),
    ];
    change(conn, WHAT, sql, params)
}

/// Walks the index from the cursor until the page is full. Metadata is compared here and not in
/// SQL: a damaged row then costs itself and not the list.
fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &SandboxFilter,
    page: &PageRequest,
) -> Result<Page<Sandbox>> {
    let limit = cursor::page_items(page);
    let (sql, params) = list_query(workspace, filter, page)?;
    let params: Vec<&dyn ToSql> = params.iter().map(AsRef::as_ref).collect();
    let mut statement = conn.prepare_cached(&sql).map_err(in_(WHAT))?;
    let mut rows = statement.query(params.as_slice()).map_err(in_(WHAT))?;
    let mut items: Vec<Sandbox> = Vec::new();
    let mut next = None;
    while let Some(row) = rows.next().map_err(in_(WHAT))? {
        let row = &Cells(row);
        match matching(row, filter) {
            Ok(Some(sandbox)) if items.len() < limit => items.push(sandbox),
            Ok(Some(_)) => {
                next = items.last().map(cursor_of);
                break;
            }
            Ok(None) => {}
            Err(error) => {
                let error = name_culprit(row, error);
                tracing::error!(%error, "a sandbox is left out of a list");
            }
        }
    }
    Ok(Page { items, next })
}

type Query = (String, Vec<Box<dyn ToSql>>);

fn list_query(
    workspace: &WorkspaceId,
    filter: &SandboxFilter,
    page: &PageRequest,
) -> Result<Query> {
    let mut sql = String::from("SELECT * FROM sandboxes WHERE workspace = ?");
    let mut params: Vec<Box<dyn ToSql>> = vec![Box::new(workspace.as_str().to_owned())];
    match filter.states.as_slice() {
        [] => sql.push_str(" AND state <> 'deleting'"),
        states => {
            let places = vec!["?"; states.len()].join(", ");
            sql.push_str(&format!(" AND state IN ({places})"));
            let states = states.iter().copied();
            params.extend(states.map(|state| Box::new(state) as Box<dyn ToSql>));
        }
    }
    if let Some(template) = &filter.template {
        sql.push_str(" AND template = ?");
        params.push(Box::new(template.as_str().to_owned()));
    }
    if let Some(after) = filter.started_after {
        sql.push_str(" AND started_at > ?");
        params.push(Box::new(after.as_millis()));
    }
    let (beyond, direction) = match filter.order {
        Order::OldestFirst => (">", "ASC"),
        Order::NewestFirst => ("<", "DESC"),
    };
    if let Some(cursor) = &page.cursor {
        let (at, id) = cursor::decode_time(List::Sandboxes, cursor)?;
        sql.push_str(" AND (started_at, id) ");
        sql.push_str(beyond);
        sql.push_str(" (?, ?)");
        params.push(Box::new(at));
        params.push(Box::new(id));
    }
    for part in [" ORDER BY started_at ", direction, ", id ", direction] {
        sql.push_str(part);
    }
    Ok((sql, params))
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

fn cursor_of(last: &Sandbox) -> String {
    let at = last.started_at.as_millis().to_string();
    cursor::encode(List::Sandboxes, &at, last.id.as_str())
}

/// A damaged record must not hide the others.
fn readable(sandbox: Result<Sandbox>) -> Option<Sandbox> {
    sandbox
        .inspect_err(|error| tracing::error!(%error, "a sandbox is left out"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::{self, plan};
    use rusqlite::StatementStatus;

    #[test]
    fn what_is_due_comes_from_its_index() {
        for sql in [DUE, NEXT_DUE] {
            let plan = plan(sql);
            assert!(plan.contains("INDEX sandboxes_by_due"), "{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
    }

    #[test]
    fn sandboxes_of_runs_come_from_their_index() {
        let plan = plan(OF_RUNS);
        assert!(plan.contains("INDEX sandboxes_of_runs"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }

    /// Among 100 000 sleepers, of which three are due, asking costs three rows and not 100 000.
    #[test]
    fn what_is_due_costs_what_is_due() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate::run(&mut conn, migrate::MIGRATIONS).unwrap();
        conn.execute_batch(
            "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 100000) \
             INSERT INTO sandboxes (id, workspace, template, state, generation, started_at, \
             metadata, body, due) SELECT printf('sb%06d', x), 'ws', 'tp', 'hibernated', 1, x, \
             '{}', '', iif(x % 2, x, NULL) FROM n",
        )
        .unwrap();
        let mut due = conn.prepare(DUE).unwrap();
        let ids = due.query_map(params![5, 1000], |row| row.get(0)).unwrap();
        let ids: Vec<String> = ids.map(rusqlite::Result::unwrap).collect();
        assert_eq!(ids, ["sb000001", "sb000003", "sb000005"]);
        let mut next = conn.prepare(NEXT_DUE).unwrap();
        let first: i64 = next.query_row([], |row| row.get(0)).unwrap();
        assert_eq!(first, 1);
        for statement in [due, next] {
            let steps = statement.get_status(StatementStatus::VmStep);
            assert!((1..100).contains(&steps), "{steps} steps");
        }
    }

    #[test]
    fn lists_and_counts_come_from_their_index() {
        let page = PageRequest {
            limit: 1,
            cursor: Some(cursor::encode(List::Sandboxes, "5", "id")),
        };
        let mut sqls = vec![COUNT.to_owned(), COUNT_RUNNING.to_owned()];
        let workspace = WorkspaceId::default_workspace();
        for order in [Order::OldestFirst, Order::NewestFirst] {
            let filter = SandboxFilter {
                started_after: Some(Timestamp::from_millis(0)),
                order,
                ..SandboxFilter::default()
            };
            sqls.push(list_query(&workspace, &filter, &page).unwrap().0);
            let of_states = SandboxFilter {
                states: vec!["paused", "deleting"],
                ..filter
            };
            sqls.push(list_query(&workspace, &of_states, &page).unwrap().0);
        }
        for sql in sqls {
            let plan = plan(&sql);
            assert!(plan.contains("INDEX sandboxes_by_start"), "{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
