//! Audit logs.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{AuditStore, Result, StoreError};
use woodfrog_types::audit::{AuditEnds, AuditEntry, AuditFilter};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::{KeyId, Timestamp, WorkspaceId};

use crate::SqliteStore;
use crate::reader::{all, first};
use crate::stored::{audit_ends_from_row, audit_from_row, id_column, to_sql_int};
use crate::writer::change;

const WHAT: &str = "audit entry";
/// Entries that are looked at in one go for a filter.
const CHUNK: usize = 512;

const BACKWARDS: &str = "SELECT * FROM audit WHERE workspace = ?1 AND sequence < ?2 \
     ORDER BY sequence DESC LIMIT ?3";
const FORWARDS: &str = "SELECT * FROM audit WHERE workspace = ?1 AND sequence > ?2 \
     ORDER BY sequence LIMIT ?3";

#[async_trait]
impl AuditStore for SqliteStore {
    async fn audit_append(&self, entries: &[AuditEntry]) -> Result<()> {
        let entries = entries.to_vec();
        self.write(move |conn| append(conn, &entries)).await
    }

    async fn audit_ends(&self, workspace: &WorkspaceId) -> Result<AuditEnds> {
        let workspace = workspace.clone();
        self.read(move |conn| ends(conn, &workspace)).await
    }

    async fn audit_list(
        &self,
        workspace: &WorkspaceId,
        filter: &AuditFilter,
        page: &PageRequest,
    ) -> Result<Page<AuditEntry>> {
        let (workspace, filter, page) = (workspace.clone(), filter.clone(), page.clone());
        self.read(move |conn| list(conn, &workspace, &filter, &page))
            .await
    }

    async fn audit_read(
        &self,
        workspace: &WorkspaceId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>> {
        let workspace = workspace.clone();
        self.read(move |conn| {
            let params = params![workspace.as_str(), to_sql_int(after), to_sql_int(limit)];
            all(conn, WHAT, FORWARDS, params, audit_from_row)
        })
        .await
    }

    async fn audit_trim(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64> {
        let workspace = workspace.clone();
        self.write(move |conn| trim(conn, &workspace, before, limit))
            .await
    }

    async fn audit_workspaces(&self) -> Result<Vec<WorkspaceId>> {
        self.read(move |conn| {
            let sql = "SELECT workspace FROM audit_ends ORDER BY workspace";
            all(conn, WHAT, sql, [], |row| id_column(row, WHAT, "workspace"))
        })
        .await
    }
}

fn ends(conn: &Connection, workspace: &WorkspaceId) -> Result<AuditEnds> {
    let sql = "SELECT * FROM audit_ends WHERE workspace = ?1";
    let ends = first(conn, WHAT, sql, [workspace.as_str()], audit_ends_from_row)?;
    Ok(ends.unwrap_or(AuditEnds::EMPTY))
}

fn append(conn: &Connection, entries: &[AuditEntry]) -> Result<()> {
    let (Some(begin), Some(last)) = (entries.first(), entries.last()) else {
        return Ok(());
    };
    let workspace = &begin.entry.workspace;
    let places = ends(conn, workspace)?.last + 1..;
    if entries
        .iter()
        .zip(places)
        .any(|(one, place)| one.sequence != place)
    {
        return Err(StoreError::Conflict { what: WHAT });
    }
    for AuditEntry {
        sequence,
        entry,
        hash,
    } in entries
    {
        let sql = "INSERT INTO audit (workspace, sequence, at, actor, key, action, target, \
                   outcome, detail, face, request_id, hash) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        let params = params![
            workspace.as_str(),
            to_sql_int(*sequence),
            entry.at.as_millis(),
            entry.actor.as_str(),
            entry.key.as_ref().map(KeyId::as_str),
            entry.action,
            entry.target,
            entry.outcome.as_str(),
            entry.detail,
            entry.face,
            entry.request_id,
            hash,
        ];
        change(conn, WHAT, sql, params)?;
    }
    let sql = "INSERT INTO audit_ends (workspace, trimmed, trimmed_hash, last, last_hash) \
               VALUES (?1, 0, ?2, ?3, ?4) \
               ON CONFLICT (workspace) DO UPDATE SET last = ?3, last_hash = ?4";
    let params = params![
        workspace.as_str(),
        [0_u8; 32],
        to_sql_int(last.sequence),
        last.hash
    ];
    change(conn, WHAT, sql, params).map(drop)
}

fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &AuditFilter,
    page: &PageRequest,
) -> Result<Page<AuditEntry>> {
    let limit = cursor::page_items(page);
    let before = cursor::decode_place(List::Audit, page)?;
    let mut before = before.map_or(i64::MAX, to_sql_int);
    let mut items: Vec<AuditEntry> = Vec::new();
    loop {
        let params = params![workspace.as_str(), before, to_sql_int(CHUNK)];
        let chunk = all(conn, WHAT, BACKWARDS, params, audit_from_row)?;
        let (full, last) = (chunk.len() == CHUNK, chunk.last().map(|one| one.sequence));
        for one in chunk {
            if !filter.matches(&one.entry) {
                continue;
            }
            if items.len() == limit {
                let last = items.last().map(|last| last.sequence.to_string());
                let next = last.map(|place| cursor::encode(List::Audit, &place, ""));
                return Ok(Page { items, next });
            }
            items.push(one);
        }
        match last.filter(|_| full) {
            Some(last) => before = to_sql_int(last),
            None => return Ok(Page { items, next: None }),
        }
    }
}

fn trim(
    conn: &Connection,
    workspace: &WorkspaceId,
    before: Timestamp,
    limit: usize,
) -> Result<u64> {
    let ends = ends(conn, workspace)?;
    let params = params![
        workspace.as_str(),
        to_sql_int(ends.trimmed),
        to_sql_int(limit)
    ];
    let oldest = all(conn, WHAT, FORWARDS, params, audit_from_row)?;
    let old = oldest.iter().take_while(|one| one.entry.at < before);
    let (dropped, last) = old.fold((0, None), |(count, _), one| (count + 1, Some(one)));
    if let Some(last) = last {
        let place = to_sql_int(last.sequence);
        let sql = "DELETE FROM audit WHERE workspace = ?1 AND sequence <= ?2";
        change(conn, WHAT, sql, params![workspace.as_str(), place])?;
        let sql = "UPDATE audit_ends SET trimmed = ?2, trimmed_hash = ?3 WHERE workspace = ?1";
        change(
            conn,
            WHAT,
            sql,
            params![workspace.as_str(), place, last.hash],
        )?;
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::plan;

    #[test]
    fn logs_are_read_from_their_key() {
        for sql in [BACKWARDS, FORWARDS] {
            let plan = plan(sql);
            assert!(plan.contains("PRIMARY KEY"), "{sql}: {plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
    }
}
