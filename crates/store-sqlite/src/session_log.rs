//! The logs of sessions: appending, reading, trimming.
//!
//! An append is the call that must be fast, so it takes its own way through the writer (see
//! [`Logs`]). The others are ordinary jobs.

mod ends;
mod index;
mod read;

use async_trait::async_trait;
use rusqlite::{Connection, params};
use woodfrog_store::{Result, SessionAppend, SessionSlice, SessionStore, StoreError};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::session::{LogEnd, Session, SessionFace, SessionFilter, Stream, Turn};
use woodfrog_types::{SandboxId, SessionId, Timestamp, WorkspaceId};

use crate::SqliteStore;
use crate::error::in_;
use crate::reader::all;
use crate::sessions::{self, WHAT};
use crate::stored::{to_sql_int, turn_from_row};
use crate::writer::change;

pub(crate) use ends::Logs;

/// Places that one stream of one session has. `place` (see the migration) holds 32 bits of it.
const SEQUENCE_MAX: u64 = u32::MAX as u64;

#[async_trait]
impl SessionStore for SqliteStore {
    async fn session_insert(&self, session: &Session) -> Result<()> {
        let session = session.clone();
        self.write(move |conn| sessions::insert(conn, &session))
            .await
    }

    async fn session_update(&self, session: &Session) -> Result<()> {
        let session = session.clone();
        self.write(move |conn| sessions::update(conn, &session))
            .await
    }

    async fn session_fetch(&self, id: &SessionId) -> Result<Option<Session>> {
        let id = id.clone();
        self.read(move |conn| sessions::fetch(conn, &id)).await
    }

    async fn session_by_name(
        &self,
        sandbox: &SandboxId,
        face: SessionFace,
        name: &str,
    ) -> Result<Option<Session>> {
        let (sandbox, name) = (sandbox.clone(), name.to_owned());
        self.read(move |conn| sessions::by_name(conn, &sandbox, face, &name))
            .await
    }

    async fn session_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SessionFilter,
        page: &PageRequest,
    ) -> Result<Page<Session>> {
        let (workspace, filter, page) = (workspace.clone(), filter.clone(), page.clone());
        self.read(move |conn| sessions::list(conn, &workspace, &filter, &page))
            .await
    }

    async fn session_claim(&self, id: &SessionId) -> Result<(Session, LogEnd)> {
        let own = id.clone();
        self.write_log(id, move |conn| claim(conn, &own)).await
    }

    async fn session_append(&self, append: SessionAppend) -> Result<LogEnd> {
        self.writer.append(append).await
    }

    async fn session_read(
        &self,
        id: &SessionId,
        stream: Stream,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<SessionSlice> {
        let id = id.clone();
        self.read(move |conn| read::forward(conn, &id, stream, after, limit, bytes))
            .await
    }

    async fn session_read_back(
        &self,
        id: &SessionId,
        stream: Stream,
        upto: u64,
        limit: usize,
    ) -> Result<SessionSlice> {
        let id = id.clone();
        self.read(move |conn| read::back(conn, &id, stream, upto, limit))
            .await
    }

    async fn session_trim(&self, id: &SessionId, stream: Stream, before: u64) -> Result<LogEnd> {
        let own = id.clone();
        self.write_log(id, move |conn| trim(conn, &own, stream, before))
            .await
    }

    async fn session_turns(&self, id: &SessionId, after: u64, limit: usize) -> Result<Vec<Turn>> {
        let id = id.clone();
        self.read(move |conn| turns(conn, &id, after, limit)).await
    }

    async fn session_remove(&self, id: &SessionId) -> Result<bool> {
        let own = id.clone();
        self.write_log(id, move |conn| remove(conn, &own)).await
    }

    async fn session_scan(
        &self,
        after: Option<&SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionId>> {
        let after = after.cloned();
        self.read(move |conn| sessions::scan(conn, after.as_ref(), limit))
            .await
    }

    async fn session_ended(&self, before: Timestamp, limit: usize) -> Result<Vec<SessionId>> {
        self.read(move |conn| sessions::ended(conn, before, limit))
            .await
    }
}

/// The key of an entry, or of where one would be.
fn place(log: i64, stream: Stream, sequence: u64) -> i64 {
    let stream = match stream {
        Stream::Log => 0,
        Stream::Universal => 1,
    };
    // Fits: the migration keeps `log` below 2^30.
    let sequence = i64::try_from(sequence.min(SEQUENCE_MAX)).unwrap_or(i64::MAX);
    log << 33 | stream << 32 | sequence
}

/// The sequence number in a key.
fn sequence(place: i64) -> u64 {
    u64::try_from(place).unwrap_or(0) & SEQUENCE_MAX
}

fn claim(conn: &Connection, id: &SessionId) -> Result<(Session, LogEnd)> {
    let (log, end) = ends::find(conn, id)?;
    let sql = "UPDATE session_logs SET epoch = epoch + 1 WHERE log = ?1";
    change(conn, WHAT, sql, [log])?;
    let session = sessions::fetch(conn, id)?.ok_or(StoreError::NotFound { what: WHAT })?;
    let epoch = end.epoch + 1;
    Ok((session, LogEnd { epoch, ..end }))
}

fn trim(conn: &Connection, id: &SessionId, stream: Stream, before: u64) -> Result<LogEnd> {
    let (log, mut end) = ends::find(conn, id)?;
    let (sql, last, first) = match stream {
        Stream::Log => (
            "UPDATE session_logs SET first = ?2 WHERE log = ?1",
            end.log,
            &mut end.log_first,
        ),
        Stream::Universal => (
            "UPDATE session_logs SET universal_first = ?2 WHERE log = ?1",
            end.universal,
            &mut end.universal_first,
        ),
    };
    let (old, new) = (*first, before.min(last + 1).max(*first));
    if new > old {
        *first = new;
        change(conn, WHAT, sql, params![log, to_sql_int(new)])?;
        throw_away(conn, place(log, stream, old), place(log, stream, new - 1))?;
    }
    Ok(end)
}

fn remove(conn: &Connection, id: &SessionId) -> Result<bool> {
    let (log, _) = match ends::find(conn, id) {
        Err(StoreError::NotFound { .. }) => return Ok(false),
        found => found?,
    };
    for sql in [
        "DELETE FROM sessions WHERE log = ?1",
        "DELETE FROM session_logs WHERE log = ?1",
        "DELETE FROM session_turns WHERE log = ?1",
    ] {
        change(conn, WHAT, sql, [log])?;
    }
    let (low, high) = (
        place(log, Stream::Log, 0),
        place(log, Stream::Universal, SEQUENCE_MAX),
    );
    throw_away(conn, low, high)?;
    Ok(true)
}

/// The writer deletes them a few at a time ([`Logs::sweep`]), by the index.
fn throw_away(conn: &Connection, low: i64, high: i64) -> Result<()> {
    index::complete(conn).map_err(in_(WHAT))?;
    let sql = "INSERT INTO session_trash (low, high) VALUES (?1, ?2)";
    change(conn, WHAT, sql, [low, high]).map(drop)
}

fn turns(conn: &Connection, id: &SessionId, after: u64, limit: usize) -> Result<Vec<Turn>> {
    let sql = "SELECT * FROM session_turns WHERE log = (SELECT log FROM sessions WHERE id = ?1) \
               AND number > ?2 ORDER BY number LIMIT ?3";
    let params = params![id.as_str(), to_sql_int(after), to_sql_int(limit)];
    all(conn, "turn", sql, params, turn_from_row)
}

#[cfg(test)]
mod tests;
