//! The books.

use std::collections::BTreeSet;

use async_trait::async_trait;
use rusqlite::{Connection, ToSql, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{Result, UsageStore};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::usage::{Cost, Month, Tokens, UsageEntry, UsageTotals};
use woodfrog_types::{RunId, SandboxId, Timestamp, WorkspaceId};

use super::cut_list;
use crate::SqliteStore;
use crate::reader::first;
use crate::stored::{to_sql_int, usage_columns, usage_from_row, usage_totals_from_row};
use crate::writer::change;

const WHAT: &str = "usage entry";

/// What was booked now, and was not there before.
#[derive(Debug, Default)]
pub(super) struct Booked {
    pub(super) tokens: Tokens,
    pub(super) cost: Cost,
    pub(super) months: BTreeSet<(WorkspaceId, Month)>,
}

#[async_trait]
impl UsageStore for SqliteStore {
    async fn usage_book(
        &self,
        entries: Vec<UsageEntry>,
    ) -> Result<Vec<(WorkspaceId, Month, UsageTotals)>> {
        self.write(move |conn| {
            let booked = book(conn, &entries)?;
            let months = booked.months.into_iter();
            months
                .map(|(workspace, month)| {
                    let totals = totals(conn, &workspace, month)?;
                    Ok((workspace, month, totals))
                })
                .collect()
        })
        .await
    }

    async fn usage_list(
        &self,
        workspace: &WorkspaceId,
        from: Timestamp,
        until: Timestamp,
        page: &PageRequest,
    ) -> Result<Page<UsageEntry>> {
        let (workspace, page) = (workspace.clone(), page.clone());
        self.read(move |conn| {
            let mut sql = String::from(
                "SELECT * FROM usage_entries WHERE workspace = ? AND at >= ? AND at < ?",
            );
            let mut params: Vec<Box<dyn ToSql>> = vec![
                Box::new(workspace.as_str().to_owned()),
                Box::new(from.as_millis()),
                Box::new(until.as_millis()),
            ];
            if let Some(cursor) = &page.cursor {
                let (at, key) = cursor::decode_time(List::Usage, cursor)?;
                sql.push_str(" AND (at, key) > (?, ?)");
                params.push(Box::new(at));
                params.push(Box::new(key));
            }
            sql.push_str(" ORDER BY at, key");
            cut_list(conn, WHAT, &sql, &params, &page, usage_from_row, |last| {
                let at = last.at.as_millis().to_string();
                cursor::encode(List::Usage, &at, &last.key)
            })
        })
        .await
    }

    async fn usage_totals(&self, workspace: &WorkspaceId, month: Month) -> Result<UsageTotals> {
        let workspace = workspace.clone();
        self.read(move |conn| totals(conn, &workspace, month)).await
    }

    async fn books_purge(&self, workspace: &WorkspaceId, limit: usize) -> Result<u64> {
        let workspace = workspace.clone();
        self.write(move |conn| purge(conn, &workspace, limit)).await
    }
}

fn purge(conn: &Connection, workspace: &WorkspaceId, limit: usize) -> Result<u64> {
    let sql = "DELETE FROM usage_entries WHERE workspace = ?1 AND key IN \
               (SELECT key FROM usage_entries WHERE workspace = ?1 LIMIT ?2)";
    let params = params![workspace.as_str(), to_sql_int(limit)];
    let gone = change(conn, WHAT, sql, params)?;
    if gone > 0 {
        return Ok(u64::try_from(gone).unwrap_or(u64::MAX));
    }
    for sql in [
        "DELETE FROM usage_totals WHERE workspace = ?1",
        "DELETE FROM budget_reservations WHERE workspace = ?1",
        "DELETE FROM budget_alerts WHERE workspace = ?1",
        "DELETE FROM meters_behind WHERE sandbox IN \
         (SELECT sandbox FROM meters WHERE workspace = ?1)",
        "DELETE FROM meters WHERE workspace = ?1",
    ] {
        change(conn, WHAT, sql, [workspace.as_str()])?;
    }
    let sql = "DELETE FROM budgets WHERE workspace = ?1";
    let gone = change(conn, WHAT, sql, [workspace.as_str()])?;
    Ok(u64::try_from(gone).unwrap_or(u64::MAX))
}

pub(super) fn totals(
    conn: &Connection,
    workspace: &WorkspaceId,
    month: Month,
) -> Result<UsageTotals> {
    let sql = "SELECT * FROM usage_totals WHERE workspace = ?1 AND month = ?2";
    let params = params![workspace.as_str(), month.index()];
    let found = first(conn, WHAT, sql, params, usage_totals_from_row)?;
    Ok(found.unwrap_or_default())
}

/// Adds the entries whose keys are not taken, in the caller's transaction.
pub(super) fn book(conn: &Connection, entries: &[UsageEntry]) -> Result<Booked> {
    let mut booked = Booked::default();
    for entry in entries {
        if !insert(conn, entry)? {
            continue;
        }
        let columns = usage_columns(&entry.quantity);
        booked.tokens = booked.tokens.plus(columns.tokens);
        booked.cost = booked.cost.plus(entry.cost);
        let month = Month::of(entry.at);
        add(conn, entry, month)?;
        booked.months.insert((entry.workspace.clone(), month));
    }
    Ok(booked)
}

/// As [`book`], in the sums of the runs that the entries name as well.
pub(crate) fn book_for_runs(conn: &Connection, entries: &[UsageEntry]) -> Result<()> {
    for entry in entries {
        let booked = book(conn, std::slice::from_ref(entry))?;
        let Some(run) = entry.run.as_ref().filter(|_| !booked.months.is_empty()) else {
            continue;
        };
        let sql = "UPDATE run_logs SET input_tokens = input_tokens + ?2, \
                   output_tokens = output_tokens + ?3, cache_read_tokens = cache_read_tokens + ?4, \
                   cache_write_tokens = cache_write_tokens + ?5, model_cost = model_cost + ?6, \
                   compute_cost = compute_cost + ?7, unpriced = max(unpriced, ?8) WHERE run = ?1";
        let params = params![
            run.as_str(),
            to_sql_int(booked.tokens.input),
            to_sql_int(booked.tokens.output),
            to_sql_int(booked.tokens.cache_read),
            to_sql_int(booked.tokens.cache_write),
            to_sql_int(booked.cost.model),
            to_sql_int(booked.cost.compute),
            booked.cost.unpriced,
        ];
        change(conn, WHAT, sql, params)?;
    }
    Ok(())
}

/// `false` if its key is taken.
fn insert(conn: &Connection, entry: &UsageEntry) -> Result<bool> {
    let columns = usage_columns(&entry.quantity);
    let sql = "INSERT INTO usage_entries (workspace, key, created_by, run, thread, agent, sandbox, \
               at, model, rung, input_tokens, output_tokens, cache_read_tokens, \
               cache_write_tokens, cpu_millis_ms, memory_mib_ms, disk_mib_ms, model_cost, \
               compute_cost, unpriced, price_version) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, \
               ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21) ON CONFLICT DO NOTHING";
    let params = params![
        entry.workspace.as_str(),
        entry.key,
        entry.user.as_str(),
        entry.run.as_ref().map(RunId::as_str),
        entry.thread,
        entry.agent,
        entry.sandbox.as_ref().map(SandboxId::as_str),
        entry.at.as_millis(),
        columns.model,
        columns.rung,
        to_sql_int(columns.tokens.input),
        to_sql_int(columns.tokens.output),
        to_sql_int(columns.tokens.cache_read),
        to_sql_int(columns.tokens.cache_write),
        to_sql_int(columns.cpu_millis_ms),
        to_sql_int(columns.memory_mib_ms),
        to_sql_int(columns.disk_mib_ms),
        to_sql_int(entry.cost.model),
        to_sql_int(entry.cost.compute),
        entry.cost.unpriced,
        to_sql_int(entry.price_version),
    ];
    Ok(change(conn, WHAT, sql, params)? > 0)
}

fn add(conn: &Connection, entry: &UsageEntry, month: Month) -> Result<()> {
    let columns = usage_columns(&entry.quantity);
    let sql = "INSERT INTO usage_totals (workspace, month, input_tokens, output_tokens, \
               cache_read_tokens, cache_write_tokens, cpu_millis_ms, memory_mib_ms, disk_mib_ms, \
               model_cost, compute_cost, unpriced, entries) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 1) \
               ON CONFLICT (workspace, month) DO UPDATE SET \
               input_tokens = input_tokens + ?3, output_tokens = output_tokens + ?4, \
               cache_read_tokens = cache_read_tokens + ?5, \
               cache_write_tokens = cache_write_tokens + ?6, \
               cpu_millis_ms = cpu_millis_ms + ?7, memory_mib_ms = memory_mib_ms + ?8, \
               disk_mib_ms = disk_mib_ms + ?9, model_cost = model_cost + ?10, \
               compute_cost = compute_cost + ?11, unpriced = max(unpriced, ?12), \
               entries = entries + 1";
    let params = params![
        entry.workspace.as_str(),
        month.index(),
        to_sql_int(columns.tokens.input),
        to_sql_int(columns.tokens.output),
        to_sql_int(columns.tokens.cache_read),
        to_sql_int(columns.tokens.cache_write),
        to_sql_int(columns.cpu_millis_ms),
        to_sql_int(columns.memory_mib_ms),
        to_sql_int(columns.disk_mib_ms),
        to_sql_int(entry.cost.model),
        to_sql_int(entry.cost.compute),
        entry.cost.unpriced,
    ];
    change(conn, WHAT, sql, params).map(drop)
}
