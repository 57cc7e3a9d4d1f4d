//! What clients persist of sessions of their own.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{PersistStore, PersistedEvent, PersistedSession, Result, StoreError};
use woodfrog_types::WorkspaceId;
use woodfrog_types::page::{Page, PageRequest};

use crate::SqliteStore;
use crate::reader::{all, count, first};
use crate::stored::{persisted_event_from_row, persisted_session_from_row, to_sql_int};
use crate::writer::change;

const SESSION: &str = "persisted session";
const EVENT: &str = "persisted event";

const BY_ID: &str = "SELECT * FROM persisted_sessions WHERE workspace = ?1 AND id = ?2";
const LIST: &str = "SELECT * FROM persisted_sessions WHERE workspace = ?1 \
     AND (created_at, id) > (?2, ?3) ORDER BY created_at, id LIMIT ?4";
const LIST_ALL: &str = "SELECT * FROM persisted_sessions WHERE workspace = ?1 \
     ORDER BY created_at, id LIMIT ?2";
const EVENTS: &str = "SELECT * FROM persisted_events WHERE workspace = ?1 AND session = ?2 \
     AND place > ?3 ORDER BY place LIMIT ?4";
const LAST: &str = "SELECT * FROM persisted_events WHERE workspace = ?1 AND session = ?2 \
     ORDER BY place DESC LIMIT ?3";
const COUNT: &str =
    "SELECT count(*) AS n FROM persisted_events WHERE workspace = ?1 AND session = ?2";

#[async_trait]
impl PersistStore for SqliteStore {
    async fn persist_session_put(
        &self,
        workspace: &WorkspaceId,
        session: &PersistedSession,
    ) -> Result<()> {
        let (workspace, session) = (workspace.clone(), session.clone());
        self.write(move |conn| {
            let sql = "INSERT INTO persisted_sessions (workspace, id, created_at, record) \
                       VALUES (?1, ?2, ?3, ?4) \
                       ON CONFLICT (workspace, id) DO UPDATE SET record = ?4";
            let PersistedSession {
                id,
                created_at,
                record,
            } = &session;
            let params = params![workspace.as_str(), id, created_at, record];
            change(conn, SESSION, sql, params).map(drop)
        })
        .await
    }

    async fn persist_session_fetch(
        &self,
        workspace: &WorkspaceId,
        id: &str,
    ) -> Result<Option<PersistedSession>> {
        let (workspace, id) = (workspace.clone(), id.to_owned());
        self.read(move |conn| {
            let params = params![workspace.as_str(), id];
            first(conn, SESSION, BY_ID, params, persisted_session_from_row)
        })
        .await
    }

    async fn persist_session_remove(&self, workspace: &WorkspaceId, id: &str) -> Result<bool> {
        let (workspace, id) = (workspace.clone(), id.to_owned());
        self.write(move |conn| {
            let key = params![workspace.as_str(), id];
            let events = "DELETE FROM persisted_events WHERE workspace = ?1 AND session = ?2";
            change(conn, EVENT, events, key)?;
            let session = "DELETE FROM persisted_sessions WHERE workspace = ?1 AND id = ?2";
            Ok(change(conn, SESSION, session, key)? > 0)
        })
        .await
    }

    async fn persist_session_list(
        &self,
        workspace: &WorkspaceId,
        page: &PageRequest,
    ) -> Result<Page<PersistedSession>> {
        let (workspace, page) = (workspace.clone(), page.clone());
        self.read(move |conn| list(conn, &workspace, &page)).await
    }

    async fn persist_event_insert(
        &self,
        workspace: &WorkspaceId,
        event: &PersistedEvent,
    ) -> Result<()> {
        let (workspace, event) = (workspace.clone(), event.clone());
        self.write(move |conn| insert_event(conn, &workspace, &event))
            .await
    }

    async fn persist_event_list(
        &self,
        workspace: &WorkspaceId,
        session: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PersistedEvent>> {
        let (workspace, session) = (workspace.clone(), session.to_owned());
        self.read(move |conn| {
            let after = after.map_or(-1, to_sql_int);
            let params = params![workspace.as_str(), session, after, to_sql_int(limit)];
            all(conn, EVENT, EVENTS, params, persisted_event_from_row)
        })
        .await
    }

    async fn persist_event_last(
        &self,
        workspace: &WorkspaceId,
        session: &str,
        limit: usize,
    ) -> Result<Vec<PersistedEvent>> {
        let (workspace, session) = (workspace.clone(), session.to_owned());
        self.read(move |conn| {
            let params = params![workspace.as_str(), session, to_sql_int(limit)];
            all(conn, EVENT, LAST, params, persisted_event_from_row)
        })
        .await
    }

    async fn persist_event_count(&self, workspace: &WorkspaceId, session: &str) -> Result<u64> {
        let (workspace, session) = (workspace.clone(), session.to_owned());
        self.read(move |conn| count(conn, EVENT, COUNT, params![workspace.as_str(), session]))
            .await
    }
}

fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    page: &PageRequest,
) -> Result<Page<PersistedSession>> {
    let limit = cursor::page_items(page);
    let more = to_sql_int(limit.saturating_add(1));
    let mut items = match &page.cursor {
        None => {
            let params = params![workspace.as_str(), more];
            all(conn, SESSION, LIST_ALL, params, persisted_session_from_row)?
        }
        Some(cursor) => {
            let (at, id) = cursor::decode_time(List::PersistedSessions, cursor)?;
            let params = params![workspace.as_str(), at, id, more];
            all(conn, SESSION, LIST, params, persisted_session_from_row)?
        }
    };
    let full = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| full).map(|last| {
        let at = last.created_at.to_string();
        cursor::encode(List::PersistedSessions, &at, &last.id)
    });
    Ok(Page { items, next })
}

fn insert_event(conn: &Connection, workspace: &WorkspaceId, event: &PersistedEvent) -> Result<()> {
    let taken = StoreError::Constraint { what: EVENT };
    let Ok(place) = i64::try_from(event.index) else {
        return Err(taken);
    };
    let known = "SELECT 1 FROM persisted_events \
                 WHERE workspace = ?1 AND id = ?2 AND session = ?3 AND place = ?4";
    let key = params![workspace.as_str(), event.id, event.session, place];
    if first(conn, EVENT, known, key, |_| Ok(()))?.is_some() {
        return Ok(());
    }
    let sql = "INSERT INTO persisted_events (workspace, id, session, place, record) \
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let params = params![
        workspace.as_str(),
        event.id,
        event.session,
        place,
        event.record
    ];
    change(conn, EVENT, sql, params).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::plan;

    #[test]
    fn lists_and_counts_come_from_an_index() {
        for (sql, index) in [
            (BY_ID, "sqlite_autoindex_persisted_sessions_1"),
            (LIST, "persisted_sessions_by_age"),
            (LIST_ALL, "persisted_sessions_by_age"),
            (EVENTS, "persisted_events_by_place"),
            (LAST, "persisted_events_by_place"),
            (COUNT, "COVERING INDEX persisted_events_by_place"),
        ] {
            let plan = plan(sql);
            assert!(plan.contains(index), "{sql}: {plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
    }
}
