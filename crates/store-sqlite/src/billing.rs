//! Prices, budgets and webhooks.

mod meters;
mod webhooks;

use async_trait::async_trait;
use rusqlite::{Connection, params};
use woodfrog_store::{BudgetStore, PriceStore, Result, StoreError};
use woodfrog_types::usage::{Budget, BudgetAlert, Month, PriceTable, Reservation, Spending};
use woodfrog_types::webhook::WebhookEvent;
use woodfrog_types::{RunId, Timestamp, WorkspaceId};

use crate::SqliteStore;
use crate::reader::{all, first};
use crate::stored::{
    alert_from_row, budget_from_row, id_column, prices_from_row, prices_to_json, spending_from_row,
    to_json, to_sql_int,
};
use crate::writer::change;

const PRICES: &str = "price table";
const BUDGET: &str = "budget";
const ALERT: &str = "budget alert";

#[async_trait]
impl PriceStore for SqliteStore {
    async fn price_insert(&self, table: &PriceTable) -> Result<()> {
        let body = prices_to_json(table)?;
        let (version, at) = (to_sql_int(table.version), table.created_at.as_millis());
        self.write(move |conn| {
            let sql = "INSERT INTO price_tables (version, created_at, body) SELECT ?1, ?2, ?3 \
                       WHERE ?1 = 1 + (SELECT COALESCE(MAX(version), 0) FROM price_tables)";
            match change(conn, PRICES, sql, params![version, at, body])? {
                0 => Err(StoreError::Conflict { what: PRICES }),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn price_fetch(&self, version: Option<u64>) -> Result<Option<PriceTable>> {
        self.read(move |conn| {
            let sql = "SELECT * FROM price_tables WHERE ?1 IS NULL OR version = ?1 \
                       ORDER BY version DESC LIMIT 1";
            let version = version.map(to_sql_int);
            first(conn, PRICES, sql, [version], prices_from_row)
        })
        .await
    }

    async fn price_list(&self, before: Option<u64>, limit: usize) -> Result<Vec<PriceTable>> {
        self.read(move |conn| {
            let sql = "SELECT * FROM price_tables WHERE version < ?1 \
                       ORDER BY version DESC LIMIT ?2";
            let before = before.map_or(i64::MAX, to_sql_int);
            let params = params![before, to_sql_int(limit)];
            all(conn, PRICES, sql, params, prices_from_row)
        })
        .await
    }
}

#[async_trait]
impl BudgetStore for SqliteStore {
    async fn budget_put(&self, budget: &Budget) -> Result<()> {
        let budget = budget.clone();
        self.write(move |conn| put(conn, &budget)).await
    }

    async fn budget_fetch(&self, workspace: &WorkspaceId) -> Result<Option<Budget>> {
        let workspace = workspace.clone();
        self.read(move |conn| {
            let sql = "SELECT * FROM budgets WHERE workspace = ?1";
            first(conn, BUDGET, sql, [workspace.as_str()], budget_from_row)
        })
        .await
    }

    async fn budget_list(&self) -> Result<Vec<Budget>> {
        self.read(|conn| {
            let sql = "SELECT * FROM budgets ORDER BY workspace";
            all(conn, BUDGET, sql, [], budget_from_row)
        })
        .await
    }

    async fn budget_remove(&self, workspace: &WorkspaceId) -> Result<bool> {
        let workspace = workspace.clone();
        self.write(move |conn| {
            let sql = "DELETE FROM budgets WHERE workspace = ?1";
            Ok(change(conn, BUDGET, sql, [workspace.as_str()])? > 0)
        })
        .await
    }

    async fn budget_spending(&self, workspace: &WorkspaceId, month: Month) -> Result<Spending> {
        let workspace = workspace.clone();
        self.read(move |conn| spending(conn, &workspace, month))
            .await
    }

    async fn budget_reserve(
        &self,
        reservation: &Reservation,
        month: Month,
        limit: Option<u64>,
    ) -> Result<Option<Spending>> {
        let reservation = reservation.clone();
        self.write(move |conn| reserve(conn, &reservation, month, limit))
            .await
    }

    async fn budget_release(&self, run: &RunId) -> Result<()> {
        let run = run.clone();
        self.write(move |conn| {
            let sql = "DELETE FROM budget_reservations WHERE run = ?1";
            change(conn, BUDGET, sql, [run.as_str()]).map(drop)
        })
        .await
    }

    async fn budget_reserved(&self, before: Timestamp, limit: usize) -> Result<Vec<RunId>> {
        self.read(move |conn| {
            let sql = "SELECT run FROM budget_reservations WHERE at < ?1 ORDER BY at, run LIMIT ?2";
            let params = params![before.as_millis(), to_sql_int(limit)];
            all(conn, BUDGET, sql, params, |row| {
                id_column(row, BUDGET, "run")
            })
        })
        .await
    }

    async fn budget_alert(&self, alert: &BudgetAlert, event: WebhookEvent) -> Result<bool> {
        let alert = alert.clone();
        self.write(move |conn| {
            let sql = "INSERT INTO budget_alerts (workspace, month, threshold, amount, spent, at) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
            let params = params![
                alert.workspace.as_str(),
                alert.month.index(),
                alert.threshold,
                to_sql_int(alert.amount),
                to_sql_int(alert.spent),
                alert.at.as_millis(),
            ];
            if change(conn, ALERT, sql, params)? == 0 {
                return Ok(false);
            }
            webhooks::publish(conn, &[event])?;
            Ok(true)
        })
        .await
    }

    async fn budget_alerts(
        &self,
        workspace: &WorkspaceId,
        month: Month,
    ) -> Result<Vec<BudgetAlert>> {
        let workspace = workspace.clone();
        self.read(move |conn| {
            let sql = "SELECT * FROM budget_alerts WHERE workspace = ?1 AND month = ?2 \
                       ORDER BY at, threshold, amount";
            let params = params![workspace.as_str(), month.index()];
            all(conn, ALERT, sql, params, alert_from_row)
        })
        .await
    }
}

fn put(conn: &Connection, budget: &Budget) -> Result<()> {
    let sql = "INSERT INTO budgets \
               (workspace, amount, thresholds, hard, policy, reserve, generation, updated_at) \
               SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 \
               WHERE ?7 = 1 OR EXISTS (SELECT 1 FROM budgets WHERE workspace = ?1) \
               ON CONFLICT (workspace) DO UPDATE SET amount = ?2, thresholds = ?3, hard = ?4, \
               policy = ?5, reserve = ?6, generation = ?7, updated_at = ?8 \
               WHERE budgets.generation = ?7 - 1";
    let params = params![
        budget.workspace.as_str(),
        to_sql_int(budget.amount),
        to_json(BUDGET, &budget.thresholds)?,
        budget.hard,
        budget.policy.as_str(),
        to_sql_int(budget.reserve),
        to_sql_int(budget.generation),
        budget.updated_at.as_millis(),
    ];
    match change(conn, BUDGET, sql, params)? {
        0 => Err(StoreError::Conflict { what: BUDGET }),
        _ => Ok(()),
    }
}

fn spending(conn: &Connection, workspace: &WorkspaceId, month: Month) -> Result<Spending> {
    let sql = "SELECT COALESCE((SELECT model_cost + compute_cost FROM usage_totals \
               WHERE workspace = ?1 AND month = ?2), 0) AS spent, \
               COALESCE((SELECT SUM(MAX(0, r.amount - COALESCE(l.model_cost + l.compute_cost, 0))) \
               FROM budget_reservations r LEFT JOIN run_logs l ON l.run = r.run \
               WHERE r.workspace = ?1), 0) AS reserved";
    let params = params![workspace.as_str(), month.index()];
    let found = first(conn, BUDGET, sql, params, spending_from_row)?;
    Ok(found.unwrap_or_default())
}

fn reserve(
    conn: &Connection,
    reservation: &Reservation,
    month: Month,
    limit: Option<u64>,
) -> Result<Option<Spending>> {
    let sql = "SELECT run FROM budget_reservations WHERE run = ?1";
    let known = first(conn, BUDGET, sql, [reservation.run.as_str()], |row| {
        id_column::<RunId>(row, BUDGET, "run")
    })?;
    if known.is_some() {
        return Ok(None);
    }
    let now = spending(conn, &reservation.workspace, month)?;
    let wanted = now.spent.saturating_add(now.reserved);
    let wanted = wanted.saturating_add(reservation.amount);
    if limit.is_some_and(|limit| now.spent >= limit || wanted > limit) {
        return Ok(Some(now));
    }
    let sql = "INSERT INTO budget_reservations (run, workspace, amount, at) \
               VALUES (?1, ?2, ?3, ?4)";
    let params = params![
        reservation.run.as_str(),
        reservation.workspace.as_str(),
        to_sql_int(reservation.amount),
        reservation.at.as_millis(),
    ];
    change(conn, BUDGET, sql, params)?;
    Ok(None)
}
