//! Sandbox sessions.

use async_trait::async_trait;
use rusqlite::{Connection, ToSql, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{NewEvent, Result, SandboxSessionStore, StoreError};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox_session::{SandboxSession, SandboxSessionFilter, SessionState};
use woodfrog_types::{SandboxId, SandboxSessionId, Timestamp, WorkspaceId};

use crate::SqliteStore;
use crate::error::in_;
use crate::reader::{Cells, first, name_culprit};
use crate::stored::{duration_to_millis, sandbox_session_from_row, to_sql_int};
use crate::writer::change;

const WHAT: &str = "sandbox session";

#[async_trait]
impl SandboxSessionStore for SqliteStore {
    async fn sandbox_session_insert(&self, session: &SandboxSession) -> Result<()> {
        let session = session.clone();
        self.write(move |conn| insert(conn, &session)).await
    }

    async fn sandbox_session_touch(&self, id: &SandboxSessionId, at: Timestamp) -> Result<()> {
        let id = id.clone();
        self.write(move |conn| {
            let sql = "UPDATE sandbox_sessions SET last_activity = max(last_activity, ?2), \
                       updated_at = max(updated_at, ?2) WHERE id = ?1";
            match change(conn, WHAT, sql, params![id.as_str(), at.as_millis()])? {
                0 => Err(StoreError::NotFound { what: WHAT }),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn sandbox_session_remove(&self, id: &SandboxSessionId) -> Result<bool> {
        let id = id.clone();
        self.write(move |conn| {
            let sql = "DELETE FROM sandbox_sessions WHERE id = ?1";
            Ok(change(conn, WHAT, sql, [id.as_str()])? > 0)
        })
        .await
    }

    async fn sandbox_session_fetch(&self, id: &SandboxSessionId) -> Result<Option<SandboxSession>> {
        let id = id.clone();
        self.read(move |conn| first(conn, WHAT, BY_ID, [id.as_str()], sandbox_session_from_row))
            .await
    }

    async fn sandbox_session_of(&self, sandbox: &SandboxId) -> Result<Option<SandboxSession>> {
        let sandbox = sandbox.clone();
        self.read(move |conn| {
            first(
                conn,
                WHAT,
                BY_SANDBOX,
                [sandbox.as_str()],
                sandbox_session_from_row,
            )
        })
        .await
    }

    async fn sandbox_session_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SandboxSessionFilter,
        page: &PageRequest,
    ) -> Result<Page<SandboxSession>> {
        let (workspace, filter, page) = (workspace.clone(), filter.clone(), page.clone());
        self.read(move |conn| list(conn, &workspace, &filter, &page))
            .await
    }

    async fn sandbox_session_trim(&self, before: Timestamp, limit: usize) -> Result<u64> {
        self.write(move |conn| {
            let params = params![before.as_millis(), to_sql_int(limit)];
            let dropped = change(conn, WHAT, TRIM, params)?;
            Ok(u64::try_from(dropped).unwrap_or(u64::MAX))
        })
        .await
    }
}

const BY_ID: &str = "SELECT * FROM sandbox_sessions WHERE id = ?1";
const BY_SANDBOX: &str = "SELECT * FROM sandbox_sessions WHERE sandbox = ?1";
const TRIM: &str = "DELETE FROM sandbox_sessions WHERE id IN (SELECT id FROM sandbox_sessions \
     WHERE ended_at IS NOT NULL AND ended_at < ?1 ORDER BY ended_at, id LIMIT ?2)";

fn insert(conn: &Connection, session: &SandboxSession) -> Result<()> {
    let exists = "SELECT 1 FROM sandboxes WHERE id = ?1";
    if first(conn, WHAT, exists, [session.sandbox.as_str()], |_| Ok(()))?.is_none() {
        return Err(StoreError::NotFound { what: "sandbox" });
    }
    let sql = "INSERT INTO sandbox_sessions (id, workspace, sandbox, project, user, framework, \
               auto_pause_ms, created_at, updated_at, last_activity, ended_at) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let params = params![
        session.id.as_str(),
        session.workspace.as_str(),
        session.sandbox.as_str(),
        session.project,
        session.user,
        session.framework.as_str(),
        to_sql_int(duration_to_millis(session.auto_pause)),
        session.created_at.as_millis(),
        session.updated_at.as_millis(),
        session.last_activity.as_millis(),
        session.ended_at.map(Timestamp::as_millis),
    ];
    change(conn, WHAT, sql, params).map(drop)
}

/// The session of a sandbox that is removed ends, in the caller's transaction.
pub(crate) fn end(conn: &Connection, sandbox: &SandboxId, events: &[NewEvent]) -> Result<()> {
    let at = events.last().map_or_else(Timestamp::now, |event| event.at);
    let sql = "UPDATE sandbox_sessions SET ended_at = ?2 WHERE sandbox = ?1";
    change(conn, WHAT, sql, params![sandbox.as_str(), at.as_millis()]).map(drop)
}

fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &SandboxSessionFilter,
    page: &PageRequest,
) -> Result<Page<SandboxSession>> {
    let limit = cursor::page_items(page);
    let (sql, params) = list_query(workspace, filter, page)?;
    let params: Vec<&dyn ToSql> = params.iter().map(AsRef::as_ref).collect();
    let mut statement = conn.prepare_cached(&sql).map_err(in_(WHAT))?;
    let mut rows = statement.query(params.as_slice()).map_err(in_(WHAT))?;
    let mut items: Vec<SandboxSession> = Vec::new();
    let mut next = None;
    while let Some(row) = rows.next().map_err(in_(WHAT))? {
        let row = &Cells(row);
        match sandbox_session_from_row(row) {
            Ok(session) if items.len() < limit => items.push(session),
            Ok(_) => {
                next = items.last().map(cursor_of);
                break;
            }
            Err(error) => {
                let error = name_culprit(row, error);
                tracing::error!(%error, "a sandbox session is left out of a list");
            }
        }
    }
    Ok(Page { items, next })
}

type Query = (String, Vec<Box<dyn ToSql>>);

fn list_query(
    workspace: &WorkspaceId,
    filter: &SandboxSessionFilter,
    page: &PageRequest,
) -> Result<Query> {
    let mut sql = String::from("SELECT * FROM sandbox_sessions WHERE workspace = ?");
    let mut params: Vec<Box<dyn ToSql>> = vec![Box::new(workspace.as_str().to_owned())];
    for (column, wanted) in [("project", &filter.project), ("user", &filter.user)] {
        if let Some(wanted) = wanted {
            sql.push_str(&format!(" AND {column} = ?"));
            params.push(Box::new(wanted.clone()));
        }
    }
    if let Some(state) = filter.state {
        // Who is neither deleted nor asleep is looked up by the sandbox's key, one by one, among
        // those that have not ended.
        let sandbox = |states: &str| {
            format!(
                "EXISTS (SELECT 1 FROM sandboxes WHERE sandboxes.id = sandbox_sessions.sandbox \
                 AND sandboxes.state IN ({states}))"
            )
        };
        let names = |state: SessionState| {
            let quoted = state.sandbox_states().iter();
            let quoted: Vec<_> = quoted.map(|name| format!("'{name}'")).collect();
            quoted.join(", ")
        };
        match state {
            SessionState::Running | SessionState::Paused => {
                sql.push_str(" AND ended_at IS NULL AND ");
                sql.push_str(&sandbox(&names(state)));
            }
            SessionState::Killed => {
                let there = [names(SessionState::Running), names(SessionState::Paused)];
                sql.push_str(" AND NOT ");
                sql.push_str(&sandbox(&there.join(", ")));
            }
        }
    }
    if let Some(cursor) = &page.cursor {
        let (at, id) = cursor::decode_time(List::SandboxSessions, cursor)?;
        sql.push_str(" AND (created_at, id) > (?, ?)");
        params.push(Box::new(at));
        params.push(Box::new(id));
    }
    sql.push_str(" ORDER BY created_at, id");
    Ok((sql, params))
}

fn cursor_of(last: &SandboxSession) -> String {
    let at = last.created_at.as_millis().to_string();
    cursor::encode(List::SandboxSessions, &at, last.id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::plan;

    /// No look-up of a session reads all of them, and no list sorts.
    #[test]
    fn z9_sessions_come_from_an_index() {
        let workspace = WorkspaceId::default_workspace();
        let page = PageRequest {
            limit: 1,
            cursor: Some(cursor::encode(List::SandboxSessions, "5", "id")),
        };
        let list = |filter: SandboxSessionFilter| list_query(&workspace, &filter, &page).unwrap().0;
        let by_state = |state| SandboxSessionFilter {
            state: Some(state),
            ..SandboxSessionFilter::default()
        };
        let some = || Some("x".to_owned());
        let by_project = SandboxSessionFilter {
            project: some(),
            ..SandboxSessionFilter::default()
        };
        let by_user = SandboxSessionFilter {
            user: some(),
            ..SandboxSessionFilter::default()
        };
        for (sql, index) in [
            (BY_ID.to_owned(), "sqlite_autoindex_sandbox_sessions_1"),
            (BY_SANDBOX.to_owned(), "sqlite_autoindex_sandbox_sessions_2"),
            (TRIM.to_owned(), "sandbox_sessions_ended"),
            (
                list(SandboxSessionFilter::default()),
                "sandbox_sessions_by_age",
            ),
            (list(by_project), "sandbox_sessions_by_project"),
            (list(by_user), "sandbox_sessions_by_user"),
            (
                list(by_state(SessionState::Running)),
                "sandbox_sessions_living",
            ),
            (
                list(by_state(SessionState::Paused)),
                "sandbox_sessions_living",
            ),
            (
                list(by_state(SessionState::Killed)),
                "sandbox_sessions_by_age",
            ),
        ] {
            let plan = plan(&sql);
            assert!(plan.contains(index), "{sql}: {plan}");
            assert!(!plan.contains("SCAN"), "{sql}: {plan}");
            assert!(!plan.contains("TEMP B-TREE FOR ORDER"), "{sql}: {plan}");
        }
    }
}
