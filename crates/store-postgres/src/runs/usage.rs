//! The books.

use std::collections::BTreeMap;

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use woodfrog_store::cursor::List;
use woodfrog_store::{Result, UsageStore};
use woodfrog_store_rows::{
    Columns, to_sql_int, usage_columns, usage_from_row, usage_totals_from_row,
};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::usage::{Cost, Month, Tokens, UsageEntry, UsageTotals};
use woodfrog_types::{RunId, SandboxId, Timestamp, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, begin, change, commit, first};
use crate::listing::Listing;
use crate::text::Text;

const WHAT: &str = "usage entry";
/// Lists go by a column `id`.
const TABLE: &str = "(SELECT *, key AS id FROM usage_entries) AS entries";

/// What was booked now, and was not there before.
#[derive(Debug, Default)]
pub(super) struct Booked {
    pub(super) tokens: Tokens,
    pub(super) cost: Cost,
    /// The sums of the months, those entries included.
    pub(super) totals: Vec<(WorkspaceId, Month, UsageTotals)>,
}

#[async_trait]
impl UsageStore for PostgresStore {
    async fn usage_book(
        &self,
        entries: Vec<UsageEntry>,
    ) -> Result<Vec<(WorkspaceId, Month, UsageTotals)>> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        let booked = book(&transaction, &entries).await?;
        commit(transaction, WHAT).await?;
        Ok(booked.totals)
    }

    async fn usage_list(
        &self,
        workspace: &WorkspaceId,
        from: Timestamp,
        until: Timestamp,
        page: &PageRequest,
    ) -> Result<Page<UsageEntry>> {
        let convert = |row: &dyn Columns| usage_from_row(row).map(Some);
        Listing::new(WHAT, List::Usage, TABLE, "at", false)
            .text("workspace", workspace.as_str())
            .with("at >=", Box::new(from.as_millis()))
            .with("at <", Box::new(until.as_millis()))
            .page(&self.client().await?, page, convert, |last| {
                (last.at.as_millis(), last.key.clone())
            })
            .await
    }

    async fn usage_totals(&self, workspace: &WorkspaceId, month: Month) -> Result<UsageTotals> {
        let sql = "SELECT * FROM usage_totals WHERE workspace = $1 AND month = $2";
        let args: [Arg<'_>; 2] = [&workspace.as_str(), &i64::from(month.index())];
        let client = self.client().await?;
        let found = first(&client, WHAT, sql, &args, usage_totals_from_row).await?;
        Ok(found.unwrap_or_default())
    }

    async fn books_purge(&self, workspace: &WorkspaceId, limit: usize) -> Result<u64> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        let sql = "DELETE FROM usage_entries WHERE workspace = $1 AND key IN \
                   (SELECT key FROM usage_entries WHERE workspace = $1 LIMIT $2)";
        let id = workspace.as_str();
        let mut gone = change(&transaction, WHAT, sql, &[&id, &to_sql_int(limit)]).await?;
        if gone == 0 {
            for sql in [
                "DELETE FROM usage_totals WHERE workspace = $1",
                "DELETE FROM budget_reservations WHERE workspace = $1",
                "DELETE FROM budget_alerts WHERE workspace = $1",
                "DELETE FROM meters_behind WHERE sandbox IN \
                 (SELECT sandbox FROM meters WHERE workspace = $1)",
                "DELETE FROM meters WHERE workspace = $1",
            ] {
                change(&transaction, WHAT, sql, &[&id]).await?;
            }
            let sql = "DELETE FROM budgets WHERE workspace = $1";
            gone = change(&transaction, WHAT, sql, &[&id]).await?;
        }
        commit(transaction, WHAT).await?;
        Ok(gone)
    }
}

/// Adds the entries whose keys are not taken, in the caller's transaction.
pub(super) async fn book(client: &impl GenericClient, entries: &[UsageEntry]) -> Result<Booked> {
    let mut booked = Booked::default();
    // By name: transactions that change the same rows do so in the same order.
    let mut months: BTreeMap<(WorkspaceId, Month), UsageTotals> = BTreeMap::new();
    for entry in entries {
        if !insert(client, entry).await? {
            continue;
        }
        booked.tokens = booked.tokens.plus(usage_columns(&entry.quantity).tokens);
        booked.cost = booked.cost.plus(entry.cost);
        let month = (entry.workspace.clone(), Month::of(entry.at));
        months.entry(month).or_default().add(entry);
    }
    for ((workspace, month), more) in months {
        let totals = add(client, &workspace, month, &more).await?;
        booked.totals.push((workspace, month, totals));
    }
    Ok(booked)
}

/// As [`book`], in the sums of the runs that the entries name as well.
pub(crate) async fn book_for_runs(
    client: &impl GenericClient,
    entries: &[UsageEntry],
) -> Result<()> {
    for entry in entries {
        let booked = book(client, std::slice::from_ref(entry)).await?;
        let Some(run) = entry.run.as_ref().filter(|_| !booked.totals.is_empty()) else {
            continue;
        };
        let sql = "UPDATE run_logs SET input_tokens = input_tokens + $2, \
                   output_tokens = output_tokens + $3, cache_read_tokens = cache_read_tokens + $4, \
                   cache_write_tokens = cache_write_tokens + $5, model_cost = model_cost + $6, \
                   compute_cost = compute_cost + $7, unpriced = GREATEST(unpriced, $8) \
                   WHERE run = $1";
        let args: [Arg<'_>; 8] = [
            &run.as_str(),
            &to_sql_int(booked.tokens.input),
            &to_sql_int(booked.tokens.output),
            &to_sql_int(booked.tokens.cache_read),
            &to_sql_int(booked.tokens.cache_write),
            &to_sql_int(booked.cost.model),
            &to_sql_int(booked.cost.compute),
            &i64::from(booked.cost.unpriced),
        ];
        change(client, WHAT, sql, &args).await?;
    }
    Ok(())
}

/// `false` if its key is taken.
async fn insert(client: &impl GenericClient, entry: &UsageEntry) -> Result<bool> {
    let columns = usage_columns(&entry.quantity);
    let sql = "INSERT INTO usage_entries (workspace, key, created_by, run, thread, agent, sandbox, \
               at, model, rung, input_tokens, output_tokens, cache_read_tokens, \
               cache_write_tokens, cpu_millis_ms, memory_mib_ms, disk_mib_ms, model_cost, \
               compute_cost, unpriced, price_version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, \
               $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21) ON CONFLICT DO NOTHING";
    let args: [Arg<'_>; 21] = [
        &entry.workspace.as_str(),
        &Text(&entry.key),
        &Text(entry.user.as_str()),
        &entry.run.as_ref().map(RunId::as_str),
        &entry.thread.as_deref().map(Text),
        &entry.agent.as_deref().map(Text),
        &entry.sandbox.as_ref().map(SandboxId::as_str),
        &entry.at.as_millis(),
        &columns.model.map(Text),
        &columns.rung,
        &to_sql_int(columns.tokens.input),
        &to_sql_int(columns.tokens.output),
        &to_sql_int(columns.tokens.cache_read),
        &to_sql_int(columns.tokens.cache_write),
        &to_sql_int(columns.cpu_millis_ms),
        &to_sql_int(columns.memory_mib_ms),
        &to_sql_int(columns.disk_mib_ms),
        &to_sql_int(entry.cost.model),
        &to_sql_int(entry.cost.compute),
        &i64::from(entry.cost.unpriced),
        &to_sql_int(entry.price_version),
    ];
    Ok(change(client, WHAT, sql, &args).await? > 0)
}

async fn add(
    client: &impl GenericClient,
    workspace: &WorkspaceId,
    month: Month,
    more: &UsageTotals,
) -> Result<UsageTotals> {
    let sql = "INSERT INTO usage_totals AS t (workspace, month, input_tokens, output_tokens, \
               cache_read_tokens, cache_write_tokens, cpu_millis_ms, memory_mib_ms, disk_mib_ms, \
               model_cost, compute_cost, unpriced, entries) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
               ON CONFLICT (workspace, month) DO UPDATE SET \
               input_tokens = t.input_tokens + $3, output_tokens = t.output_tokens + $4, \
               cache_read_tokens = t.cache_read_tokens + $5, \
               cache_write_tokens = t.cache_write_tokens + $6, \
               cpu_millis_ms = t.cpu_millis_ms + $7, memory_mib_ms = t.memory_mib_ms + $8, \
               disk_mib_ms = t.disk_mib_ms + $9, model_cost = t.model_cost + $10, \
               compute_cost = t.compute_cost + $11, unpriced = greatest(t.unpriced, $12), \
               entries = t.entries + $13 RETURNING *";
    let args: [Arg<'_>; 13] = [
        &workspace.as_str(),
        &i64::from(month.index()),
        &to_sql_int(more.tokens.input),
        &to_sql_int(more.tokens.output),
        &to_sql_int(more.tokens.cache_read),
        &to_sql_int(more.tokens.cache_write),
        &to_sql_int(more.cpu_millis_ms),
        &to_sql_int(more.memory_mib_ms),
        &to_sql_int(more.disk_mib_ms),
        &to_sql_int(more.cost.model),
        &to_sql_int(more.cost.compute),
        &i64::from(more.cost.unpriced),
        &to_sql_int(more.entries),
    ];
    let totals = first(client, WHAT, sql, &args, usage_totals_from_row).await?;
    Ok(totals.unwrap_or(*more))
}
