//! The log of each sandbox.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use woodfrog_store::{EventStore, NewEvent, Result, StoreError};
use woodfrog_types::event::SandboxEvent;
use woodfrog_types::{SandboxId, Timestamp};

use crate::SqliteStore;
use crate::reader::{all, first};
use crate::stored::{event_from_row, get, to_json, to_sql_int};
use crate::writer::change;

const WHAT: &str = "event";

#[async_trait]
impl EventStore for SqliteStore {
    async fn event_append(&self, sandbox: &SandboxId, events: Vec<NewEvent>) -> Result<u64> {
        let sandbox = sandbox.clone();
        self.write(move |conn| append(conn, &sandbox, &events))
            .await
    }

    async fn event_list(
        &self,
        sandbox: &SandboxId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<SandboxEvent>> {
        let sandbox = sandbox.clone();
        self.read(move |conn| {
            let sql = "SELECT * FROM events WHERE sandbox = ?1 AND seq > ?2 \
                       ORDER BY seq LIMIT ?3";
            let params = params![sandbox.as_str(), to_sql_int(after), to_sql_int(limit)];
            all(conn, WHAT, sql, params, event_from_row)
        })
        .await
    }

    async fn event_trim(&self, before: Timestamp, limit: usize) -> Result<u64> {
        self.write(move |conn| trim(conn, before, limit)).await
    }
}

/// Appends in the caller's transaction; returns the last sequence number, 0 for an empty log.
pub(crate) fn append(conn: &Connection, sandbox: &SandboxId, events: &[NewEvent]) -> Result<u64> {
    let sql = "SELECT last_seq FROM event_logs WHERE sandbox = ?1";
    let last = first(conn, WHAT, sql, [sandbox.as_str()], |row| {
        get::<i64>(row, WHAT, "last_seq")
    })?;
    let mut seq = last.unwrap_or(0);
    for event in events {
        seq += 1;
        let params = params![
            sandbox.as_str(),
            seq,
            event.at.as_millis(),
            event.level.as_str(),
            event.kind,
            event.message,
            to_json(WHAT, &event.fields)?,
        ];
        let sql = "INSERT INTO events (sandbox, seq, at, level, kind, message, fields) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        change(conn, WHAT, sql, params)?;
    }
    if let Some(newest) = events.last() {
        let sql = "INSERT INTO event_logs (sandbox, last_seq, last_at) VALUES (?1, ?2, ?3) \
                   ON CONFLICT (sandbox) DO UPDATE SET last_seq = ?2, last_at = ?3";
        let params = params![sandbox.as_str(), seq, newest.at.as_millis()];
        change(conn, WHAT, sql, params)?;
    }
    u64::try_from(seq).map_err(|_| StoreError::Corrupt {
        what: WHAT,
        detail: format!("{sandbox}: negative sequence number"),
    })
}

fn trim(conn: &Connection, before: Timestamp, limit: usize) -> Result<u64> {
    let sql = "SELECT sandbox FROM event_logs WHERE last_at < ?1 \
               AND NOT EXISTS (SELECT 1 FROM sandboxes WHERE id = event_logs.sandbox) \
               ORDER BY last_at, sandbox LIMIT ?2";
    let params = params![before.as_millis(), to_sql_int(limit)];
    let old: Vec<String> = all(conn, WHAT, sql, params, |row| get(row, WHAT, "sandbox"))?;
    for sandbox in &old {
        let sql = "DELETE FROM events WHERE sandbox = ?1";
        change(conn, WHAT, sql, [sandbox])?;
        let sql = "DELETE FROM event_logs WHERE sandbox = ?1";
        change(conn, WHAT, sql, [sandbox])?;
    }
    Ok(u64::try_from(old.len()).unwrap_or(u64::MAX))
}
