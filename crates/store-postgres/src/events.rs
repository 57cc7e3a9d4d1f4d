//! The log of each sandbox.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use woodfrog_store::{EventStore, NewEvent, Result};
use woodfrog_store_rows::{count_column, event_from_row, get, to_json, to_sql_int};
use woodfrog_types::event::SandboxEvent;
use woodfrog_types::{SandboxId, Timestamp};

use crate::PostgresStore;
use crate::client::{all, begin, change, commit, first};
use crate::text::Text;

const WHAT: &str = "event";

#[async_trait]
impl EventStore for PostgresStore {
    async fn event_append(&self, sandbox: &SandboxId, events: Vec<NewEvent>) -> Result<u64> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        let last = append(&transaction, sandbox, &events).await?;
        commit(transaction, WHAT).await?;
        Ok(last)
    }

    async fn event_list(
        &self,
        sandbox: &SandboxId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<SandboxEvent>> {
        let sql = "SELECT * FROM events WHERE sandbox = $1 AND seq > $2 ORDER BY seq LIMIT $3";
        let (after, limit) = (to_sql_int(after), to_sql_int(limit));
        let args: [crate::client::Arg<'_>; 3] = [&sandbox.as_str(), &after, &limit];
        all(&self.client().await?, WHAT, sql, &args, event_from_row).await
    }

    async fn event_trim(&self, before: Timestamp, limit: usize) -> Result<u64> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        // Locked: an append that comes now waits, and begins a new log.
        let sql = "SELECT sandbox FROM event_logs WHERE last_at < $1 \
                   AND NOT EXISTS (SELECT 1 FROM sandboxes WHERE id = event_logs.sandbox) \
                   ORDER BY last_at, sandbox LIMIT $2 FOR UPDATE";
        let (before, limit) = (before.as_millis(), to_sql_int(limit));
        let old: Vec<String> = all(&transaction, WHAT, sql, &[&before, &limit], |row| {
            get(row, WHAT, "sandbox")
        })
        .await?;
        for sql in [
            "DELETE FROM events WHERE sandbox = ANY($1)",
            "DELETE FROM event_logs WHERE sandbox = ANY($1)",
        ] {
            change(&transaction, WHAT, sql, &[&old]).await?;
        }
        commit(transaction, WHAT).await?;
        Ok(u64::try_from(old.len()).unwrap_or(u64::MAX))
    }
}

/// Appends in the caller's transaction; returns the last sequence number, 0 for an empty log.
pub(crate) async fn append(
    client: &impl GenericClient,
    sandbox: &SandboxId,
    events: &[NewEvent],
) -> Result<u64> {
    let Some(newest) = events.last() else {
        let sql = "SELECT last_seq FROM event_logs WHERE sandbox = $1";
        let last = first(client, WHAT, sql, &[&sandbox.as_str()], |row| {
            count_column(row, WHAT, "last_seq")
        })
        .await?;
        return Ok(last.unwrap_or(0));
    };
    // The row is locked until the end of the transaction: numbers are dense.
    let sql = "INSERT INTO event_logs (sandbox, last_seq, last_at) VALUES ($1, $2, $3) \
               ON CONFLICT (sandbox) DO UPDATE \
               SET last_seq = event_logs.last_seq + $2, last_at = $3 RETURNING last_seq";
    let count = to_sql_int(events.len());
    let at = newest.at.as_millis();
    let last = first(
        client,
        WHAT,
        sql,
        &[&sandbox.as_str(), &count, &at],
        |row| get::<i64>(row, WHAT, "last_seq"),
    )
    .await?;
    let last = last.unwrap_or(count);
    for (seq, event) in (last - count + 1..).zip(events) {
        let sql = "INSERT INTO events (sandbox, seq, at, level, kind, message, fields) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let fields = to_json(WHAT, &event.fields)?;
        let args: [crate::client::Arg<'_>; 7] = [
            &sandbox.as_str(),
            &seq,
            &event.at.as_millis(),
            &event.level.as_str(),
            &Text(&event.kind),
            &Text(&event.message),
            &fields,
        ];
        change(client, WHAT, sql, &args).await?;
    }
    Ok(u64::try_from(last).unwrap_or(0))
}
