//! Audit logs.

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Transaction};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{AuditStore, Result, StoreError};
use woodfrog_store_rows::{Columns, audit_ends_from_row, audit_from_row, id_column, to_sql_int};
use woodfrog_types::audit::{AuditEnds, AuditEntry, AuditFilter};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::{KeyId, Timestamp, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, all, begin, change, commit, first};
use crate::text::Text;

const WHAT: &str = "audit entry";
/// Entries that are looked at in one go for a filter.
const CHUNK: usize = 512;

const FORWARDS: &str = "SELECT * FROM audit WHERE workspace = $1 AND sequence > $2 \
     ORDER BY sequence LIMIT $3";
const BACKWARDS: &str = "SELECT * FROM audit WHERE workspace = $1 AND sequence < $2 \
     ORDER BY sequence DESC LIMIT $3";

#[async_trait]
impl AuditStore for PostgresStore {
    async fn audit_append(&self, entries: &[AuditEntry]) -> Result<()> {
        let (Some(begins), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let workspace = &begins.entry.workspace;
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        // Whoever appends holds the row of the log's end.
        let ends = locked(&transaction, workspace).await?;
        let places = ends.last + 1..;
        if entries
            .iter()
            .zip(places)
            .any(|(one, place)| one.sequence != place)
        {
            return Err(StoreError::Conflict { what: WHAT });
        }
        for entry in entries {
            insert(&transaction, entry).await?;
        }
        let sql = "UPDATE audit_ends SET last = $2, last_hash = $3 WHERE workspace = $1";
        let args: [Arg<'_>; 3] = [
            &workspace.as_str(),
            &to_sql_int(last.sequence),
            &last.hash.as_slice(),
        ];
        change(&transaction, WHAT, sql, &args).await?;
        commit(transaction, WHAT).await
    }

    async fn audit_ends(&self, workspace: &WorkspaceId) -> Result<AuditEnds> {
        let sql = "SELECT * FROM audit_ends WHERE workspace = $1";
        let args: [Arg<'_>; 1] = [&workspace.as_str()];
        let ends = first(&self.client().await?, WHAT, sql, &args, audit_ends_from_row).await?;
        Ok(ends.unwrap_or(AuditEnds::EMPTY))
    }

    async fn audit_list(
        &self,
        workspace: &WorkspaceId,
        filter: &AuditFilter,
        page: &PageRequest,
    ) -> Result<Page<AuditEntry>> {
        let limit = cursor::page_items(page);
        let before = cursor::decode_place(List::Audit, page)?;
        let mut before: i64 = before.map_or(i64::MAX, to_sql_int);
        let client = self.client().await?;
        let mut items: Vec<AuditEntry> = Vec::new();
        loop {
            let chunk = part(&client, BACKWARDS, workspace, before, CHUNK).await?;
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

    async fn audit_read(
        &self,
        workspace: &WorkspaceId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>> {
        let client = self.client().await?;
        part(&client, FORWARDS, workspace, to_sql_int(after), limit).await
    }

    async fn audit_trim(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        let ends = locked(&transaction, workspace).await?;
        let after = to_sql_int(ends.trimmed);
        let oldest = part(&transaction, FORWARDS, workspace, after, limit).await?;
        let old = oldest.iter().take_while(|one| one.entry.at < before);
        let (dropped, last) = old.fold((0, None), |(count, _), one| (count + 1, Some(one)));
        if let Some(last) = last {
            let place: i64 = to_sql_int(last.sequence);
            let id = workspace.as_str();
            let sql = "DELETE FROM audit WHERE workspace = $1 AND sequence <= $2";
            change(&transaction, WHAT, sql, &[&id, &place]).await?;
            let sql = "UPDATE audit_ends SET trimmed = $2, trimmed_hash = $3 \
                       WHERE workspace = $1";
            let args: [Arg<'_>; 3] = [&id, &place, &last.hash.as_slice()];
            change(&transaction, WHAT, sql, &args).await?;
        }
        commit(transaction, WHAT).await?;
        Ok(dropped)
    }

    async fn audit_workspaces(&self) -> Result<Vec<WorkspaceId>> {
        let sql = "SELECT workspace FROM audit_ends WHERE last > 0 ORDER BY workspace";
        let id = |row: &dyn Columns| id_column(row, WHAT, "workspace");
        all(&self.client().await?, WHAT, sql, &[], id).await
    }
}

/// The ends of a log, held until the transaction is over.
async fn locked(transaction: &Transaction<'_>, workspace: &WorkspaceId) -> Result<AuditEnds> {
    let sql = "INSERT INTO audit_ends (workspace, trimmed, trimmed_hash, last, last_hash) \
               VALUES ($1, 0, $2, 0, $2) ON CONFLICT (workspace) DO NOTHING";
    let zeros = [0_u8; 32];
    let args: [Arg<'_>; 2] = [&workspace.as_str(), &zeros.as_slice()];
    change(transaction, WHAT, sql, &args).await?;
    let sql = "SELECT * FROM audit_ends WHERE workspace = $1 FOR UPDATE";
    let args: [Arg<'_>; 1] = [&workspace.as_str()];
    let ends = first(transaction, WHAT, sql, &args, audit_ends_from_row).await?;
    Ok(ends.unwrap_or(AuditEnds::EMPTY))
}

async fn part(
    client: &impl GenericClient,
    sql: &str,
    workspace: &WorkspaceId,
    place: i64,
    limit: usize,
) -> Result<Vec<AuditEntry>> {
    let limit: i64 = to_sql_int(limit);
    let args: [Arg<'_>; 3] = [&workspace.as_str(), &place, &limit];
    all(client, WHAT, sql, &args, audit_from_row).await
}

async fn insert(transaction: &Transaction<'_>, entry: &AuditEntry) -> Result<()> {
    let AuditEntry {
        sequence,
        entry,
        hash,
    } = entry;
    let sql = "INSERT INTO audit (workspace, sequence, at, actor, key, action, target, outcome, \
               detail, face, request_id, hash) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    let args: [Arg<'_>; 12] = [
        &entry.workspace.as_str(),
        &to_sql_int(*sequence),
        &entry.at.as_millis(),
        &Text(entry.actor.as_str()),
        &entry.key.as_ref().map(KeyId::as_str),
        &Text(&entry.action),
        &Text(&entry.target),
        &entry.outcome.as_str(),
        &Text(&entry.detail),
        &Text(&entry.face),
        &Text(&entry.request_id),
        &hash.as_slice(),
    ];
    change(transaction, WHAT, sql, &args).await.map(drop)
}
