//! Sessions: records and lists. Their logs are in `session_log`.

use rusqlite::{Connection, ToSql, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{Result, StoreError};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::session::{Session, SessionFace, SessionFilter, SessionState};
use woodfrog_types::{SandboxId, SessionId, Timestamp, WorkspaceId};

use crate::error::in_;
use crate::reader::{Cells, all, first, name_culprit};
use crate::stored::{id_column, session_from_row, session_to_json, to_sql_int};
use crate::writer::change;

pub(crate) const WHAT: &str = "session";

// Conditions repeat those of the partial indexes word for word: only then are they used.
const BY_NAME: &str =
    "SELECT * FROM sessions WHERE sandbox = ?1 AND face = ?2 AND name = ?3 AND holds_name = 1";
const ENDED: &str = "SELECT id FROM sessions WHERE ended_at IS NOT NULL AND ended_at < ?1 \
     ORDER BY ended_at, id LIMIT ?2";

pub(crate) fn insert(conn: &Connection, session: &Session) -> Result<()> {
    if session.generation != 1 {
        return Err(StoreError::Conflict { what: WHAT });
    }
    let sql = "INSERT INTO sessions (id, workspace, sandbox, face, name, holds_name, agent, \
               generation, created_at, updated_at, ended_at, body) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    write_row(conn, sql, session, 1)?;
    let sql = "INSERT INTO session_logs (log) VALUES (?1)";
    change(conn, WHAT, sql, [conn.last_insert_rowid()]).map(drop)
}

pub(crate) fn update(conn: &Connection, session: &Session) -> Result<()> {
    let conflict = StoreError::Conflict { what: WHAT };
    let exists = "SELECT 1 FROM sessions WHERE id = ?1";
    if first(conn, WHAT, exists, [session.id.as_str()], |_| Ok(()))?.is_none() {
        return Err(StoreError::NotFound { what: WHAT });
    }
    // 0 follows nothing, and no generation past i64::MAX was ever stored.
    let generation = match i64::try_from(session.generation) {
        Ok(generation) if generation > 0 => generation,
        _ => return Err(conflict),
    };
    let sql = "UPDATE sessions SET workspace = ?2, sandbox = ?3, face = ?4, name = ?5, \
               holds_name = ?6, agent = ?7, generation = ?8, created_at = ?9, updated_at = ?10, \
               ended_at = ?11, body = ?12 WHERE id = ?1 AND generation = ?8 - 1";
    match write_row(conn, sql, session, generation)? {
        0 => Err(conflict),
        _ => Ok(()),
    }
}

fn write_row(conn: &Connection, sql: &str, session: &Session, generation: i64) -> Result<usize> {
    let ended_at = match &session.state {
        SessionState::Active => None,
        SessionState::Ended { at, .. } => Some(at.as_millis()),
    };
    let params = params![
        session.id.as_str(),
        session.workspace.as_str(),
        session.sandbox.as_str(),
        session.face.as_str(),
        session.name,
        session.holds_name,
        session.agent,
        generation,
        session.created_at.as_millis(),
        session.updated_at.as_millis(),
        ended_at,
        session_to_json(session)?,
    ];
    change(conn, WHAT, sql, params)
}

pub(crate) fn fetch(conn: &Connection, id: &SessionId) -> Result<Option<Session>> {
    let sql = "SELECT * FROM sessions WHERE id = ?1";
    first(conn, WHAT, sql, [id.as_str()], session_from_row)
}

pub(crate) fn by_name(
    conn: &Connection,
    sandbox: &SandboxId,
    face: SessionFace,
    name: &str,
) -> Result<Option<Session>> {
    let params = params![sandbox.as_str(), face.as_str(), name];
    first(conn, WHAT, BY_NAME, params, session_from_row)
}

pub(crate) fn scan(
    conn: &Connection,
    after: Option<&SessionId>,
    limit: usize,
) -> Result<Vec<SessionId>> {
    let sql = "SELECT id FROM sessions WHERE id > ?1 ORDER BY id LIMIT ?2";
    let params = params![after.map_or("", SessionId::as_str), to_sql_int(limit)];
    all(conn, WHAT, sql, params, |row| id_column(row, WHAT, "id"))
}

pub(crate) fn ended(conn: &Connection, before: Timestamp, limit: usize) -> Result<Vec<SessionId>> {
    let params = params![before.as_millis(), to_sql_int(limit)];
    all(conn, WHAT, ENDED, params, |row| id_column(row, WHAT, "id"))
}

/// Walks an index from the cursor until the page is full. A damaged row costs itself and not the
/// list.
pub(crate) fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &SessionFilter,
    page: &PageRequest,
) -> Result<Page<Session>> {
    let limit = cursor::page_items(page);
    let (sql, params) = list_query(workspace, filter, page)?;
    let params: Vec<&dyn ToSql> = params.iter().map(AsRef::as_ref).collect();
    let mut statement = conn.prepare_cached(&sql).map_err(in_(WHAT))?;
    let mut rows = statement.query(params.as_slice()).map_err(in_(WHAT))?;
    let mut items: Vec<Session> = Vec::new();
    let mut next = None;
    while let Some(row) = rows.next().map_err(in_(WHAT))? {
        let row = &Cells(row);
        match session_from_row(row) {
            Ok(session) if items.len() < limit => items.push(session),
            Ok(_) => {
                next = items.last().map(cursor_of);
                break;
            }
            Err(error) => {
                let error = name_culprit(row, error);
                tracing::error!(%error, "a session is left out of a list");
            }
        }
    }
    Ok(Page { items, next })
}

type Query = (String, Vec<Box<dyn ToSql>>);

fn list_query(
    workspace: &WorkspaceId,
    filter: &SessionFilter,
    page: &PageRequest,
) -> Result<Query> {
    let mut sql = String::from("SELECT * FROM sessions WHERE workspace = ?");
    let mut params: Vec<Box<dyn ToSql>> = vec![Box::new(workspace.as_str().to_owned())];
    let sandbox = filter.sandbox.as_ref().map(SandboxId::as_str);
    let face = filter.face.map(SessionFace::as_str);
    let wanted = [
        ("sandbox", sandbox),
        ("face", face),
        ("agent", filter.agent.as_deref()),
    ];
    for (column, value) in wanted {
        if let Some(value) = value {
            sql.push_str(&format!(" AND {column} = ?"));
            params.push(Box::new(value.to_owned()));
        }
    }
    match filter.active {
        // The sign keeps the planner from the index of those that ended, which has another order.
        Some(true) => sql.push_str(" AND +ended_at IS NULL"),
        Some(false) => sql.push_str(" AND +ended_at IS NOT NULL"),
        None => {}
    }
    if let Some(cursor) = &page.cursor {
        let (at, id) = cursor::decode_time(List::Sessions, cursor)?;
        sql.push_str(" AND (created_at, id) < (?, ?)");
        params.push(Box::new(at));
        params.push(Box::new(id));
    }
    sql.push_str(" ORDER BY created_at DESC, id DESC");
    Ok((sql, params))
}

fn cursor_of(last: &Session) -> String {
    let at = last.created_at.as_millis().to_string();
    cursor::encode(List::Sessions, &at, last.id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::plan;

    /// No look-up reads all sessions, and no list sorts.
    #[test]
    fn sessions_come_from_an_index() {
        let workspace = WorkspaceId::default_workspace();
        let page = PageRequest {
            limit: 1,
            cursor: Some(cursor::encode(List::Sessions, "5", "id")),
        };
        let list = |filter: SessionFilter| list_query(&workspace, &filter, &page).unwrap().0;
        let any = SessionFilter::default;
        let of_sandbox = SessionFilter {
            sandbox: Some(SandboxId::generate()),
            active: Some(true),
            ..any()
        };
        let ended = SessionFilter {
            active: Some(false),
            ..any()
        };
        let of_agent = SessionFilter {
            agent: Some("mock".to_owned()),
            face: Some(SessionFace::Acp),
            ..any()
        };
        for (sql, index) in [
            (BY_NAME.to_owned(), "sessions_by_name"),
            (ENDED.to_owned(), "sessions_ended"),
            (list(any()), "sessions_by_age"),
            (list(of_agent), "sessions_by_age"),
            (list(ended), "sessions_by_age"),
            (list(of_sandbox), "sessions_by_sandbox"),
        ] {
            let plan = plan(&sql);
            assert!(plan.contains(index), "{sql}: {plan}");
            assert!(!plan.contains("SCAN"), "{sql}: {plan}");
            assert!(!plan.contains("TEMP B-TREE FOR ORDER"), "{sql}: {plan}");
        }
    }
}
