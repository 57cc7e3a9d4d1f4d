//! Prices, budgets and webhooks.

mod meters;
mod webhooks;

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use woodfrog_store::{BudgetStore, PriceStore, Result, StoreError};
use woodfrog_store_rows::{
    alert_from_row, budget_from_row, id_column, prices_from_row, prices_to_json, spending_from_row,
    to_json, to_sql_int,
};
use woodfrog_types::usage::{Budget, BudgetAlert, Month, PriceTable, Reservation, Spending};
use woodfrog_types::webhook::WebhookEvent;
use woodfrog_types::{RunId, Timestamp, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, all, begin, change, commit, finds, first};
use crate::text::TextBuf;

const PRICES: &str = "price table";
const BUDGET: &str = "budget";
const ALERT: &str = "budget alert";

#[async_trait]
impl PriceStore for PostgresStore {
    async fn price_insert(&self, table: &PriceTable) -> Result<()> {
        let (version, at) = (to_sql_int(table.version), table.created_at.as_millis());
        let body = TextBuf(prices_to_json(table)?);
        let sql = "INSERT INTO price_tables (version, created_at, body) SELECT $1::BIGINT, $2::BIGINT, $3 \
                   WHERE $1 = 1 + (SELECT COALESCE(MAX(version), 0) FROM price_tables) \
                   ON CONFLICT DO NOTHING";
        match change(&self.client().await?, PRICES, sql, &[&version, &at, &body]).await? {
            0 => Err(StoreError::Conflict { what: PRICES }),
            _ => Ok(()),
        }
    }

    async fn price_fetch(&self, version: Option<u64>) -> Result<Option<PriceTable>> {
        let sql = "SELECT * FROM price_tables WHERE $1::BIGINT IS NULL OR version = $1 \
                   ORDER BY version DESC LIMIT 1";
        let version = version.map(to_sql_int);
        first(
            &self.client().await?,
            PRICES,
            sql,
            &[&version],
            prices_from_row,
        )
        .await
    }

    async fn price_list(&self, before: Option<u64>, limit: usize) -> Result<Vec<PriceTable>> {
        let sql = "SELECT * FROM price_tables WHERE version < $1 ORDER BY version DESC LIMIT $2";
        let before = before.map_or(i64::MAX, to_sql_int);
        let args: [Arg<'_>; 2] = [&before, &to_sql_int(limit)];
        all(&self.client().await?, PRICES, sql, &args, prices_from_row).await
    }
}

#[async_trait]
impl BudgetStore for PostgresStore {
    async fn budget_put(&self, budget: &Budget) -> Result<()> {
        let sql = "INSERT INTO budgets \
                   (workspace, amount, thresholds, hard, policy, reserve, generation, updated_at) \
                   SELECT $1, $2::BIGINT, $3, $4::BIGINT, $5, $6::BIGINT, $7::BIGINT, $8::BIGINT \
                   WHERE $7 = 1 OR EXISTS (SELECT 1 FROM budgets WHERE workspace = $1) \
                   ON CONFLICT (workspace) DO UPDATE SET amount = $2, thresholds = $3, hard = $4, \
                   policy = $5, reserve = $6, generation = $7, updated_at = $8 \
                   WHERE budgets.generation = $7 - 1";
        let args: [Arg<'_>; 8] = [
            &budget.workspace.as_str(),
            &to_sql_int(budget.amount),
            &to_json(BUDGET, &budget.thresholds)?,
            &i64::from(budget.hard),
            &budget.policy.as_str(),
            &to_sql_int(budget.reserve),
            &to_sql_int(budget.generation),
            &budget.updated_at.as_millis(),
        ];
        match change(&self.client().await?, BUDGET, sql, &args).await? {
            0 => Err(StoreError::Conflict { what: BUDGET }),
            _ => Ok(()),
        }
    }

    async fn budget_fetch(&self, workspace: &WorkspaceId) -> Result<Option<Budget>> {
        let sql = "SELECT * FROM budgets WHERE workspace = $1";
        let args: [Arg<'_>; 1] = [&workspace.as_str()];
        first(&self.client().await?, BUDGET, sql, &args, budget_from_row).await
    }

    async fn budget_list(&self) -> Result<Vec<Budget>> {
        let sql = "SELECT * FROM budgets ORDER BY workspace";
        all(&self.client().await?, BUDGET, sql, &[], budget_from_row).await
    }

    async fn budget_remove(&self, workspace: &WorkspaceId) -> Result<bool> {
        let sql = "DELETE FROM budgets WHERE workspace = $1";
        let args: [Arg<'_>; 1] = [&workspace.as_str()];
        Ok(change(&self.client().await?, BUDGET, sql, &args).await? > 0)
    }

    async fn budget_spending(&self, workspace: &WorkspaceId, month: Month) -> Result<Spending> {
        spending(&self.client().await?, workspace, month).await
    }

    async fn budget_reserve(
        &self,
        reservation: &Reservation,
        month: Month,
        limit: Option<u64>,
    ) -> Result<Option<Spending>> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, BUDGET).await?;
        let workspace = reservation.workspace.as_str();
        // One start of a workspace after the other.
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 7))";
        finds(&transaction, BUDGET, lock, &[&workspace]).await?;
        let known = "SELECT 1 FROM budget_reservations WHERE run = $1";
        if finds(&transaction, BUDGET, known, &[&reservation.run.as_str()]).await? {
            return Ok(None);
        }
        let now = spending(&transaction, &reservation.workspace, month).await?;
        let wanted = now.spent.saturating_add(now.reserved);
        let wanted = wanted.saturating_add(reservation.amount);
        if limit.is_some_and(|limit| now.spent >= limit || wanted > limit) {
            return Ok(Some(now));
        }
        let sql = "INSERT INTO budget_reservations (run, workspace, amount, at) \
                   VALUES ($1, $2, $3, $4)";
        let args: [Arg<'_>; 4] = [
            &reservation.run.as_str(),
            &workspace,
            &to_sql_int(reservation.amount),
            &reservation.at.as_millis(),
        ];
        change(&transaction, BUDGET, sql, &args).await?;
        commit(transaction, BUDGET).await?;
        Ok(None)
    }

    async fn budget_release(&self, run: &RunId) -> Result<()> {
        let sql = "DELETE FROM budget_reservations WHERE run = $1";
        let args: [Arg<'_>; 1] = [&run.as_str()];
        change(&self.client().await?, BUDGET, sql, &args)
            .await
            .map(drop)
    }

    async fn budget_reserved(&self, before: Timestamp, limit: usize) -> Result<Vec<RunId>> {
        let sql = "SELECT run FROM budget_reservations WHERE at < $1 ORDER BY at, run LIMIT $2";
        let args: [Arg<'_>; 2] = [&before.as_millis(), &to_sql_int(limit)];
        all(&self.client().await?, BUDGET, sql, &args, |row| {
            id_column(row, BUDGET, "run")
        })
        .await
    }

    async fn budget_alert(&self, alert: &BudgetAlert, event: WebhookEvent) -> Result<bool> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, ALERT).await?;
        let sql = "INSERT INTO budget_alerts (workspace, month, threshold, amount, spent, at) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let args: [Arg<'_>; 6] = [
            &alert.workspace.as_str(),
            &i64::from(alert.month.index()),
            &i64::from(alert.threshold),
            &to_sql_int(alert.amount),
            &to_sql_int(alert.spent),
            &alert.at.as_millis(),
        ];
        if change(&transaction, ALERT, sql, &args).await? == 0 {
            return Ok(false);
        }
        webhooks::publish(&transaction, &[event]).await?;
        commit(transaction, ALERT).await?;
        Ok(true)
    }

    async fn budget_alerts(
        &self,
        workspace: &WorkspaceId,
        month: Month,
    ) -> Result<Vec<BudgetAlert>> {
        let sql = "SELECT * FROM budget_alerts WHERE workspace = $1 AND month = $2 \
                   ORDER BY at, threshold, amount";
        let args: [Arg<'_>; 2] = [&workspace.as_str(), &i64::from(month.index())];
        all(&self.client().await?, ALERT, sql, &args, alert_from_row).await
    }
}

async fn spending(
    client: &impl GenericClient,
    workspace: &WorkspaceId,
    month: Month,
) -> Result<Spending> {
    let sql = "SELECT COALESCE((SELECT model_cost + compute_cost FROM usage_totals \
               WHERE workspace = $1 AND month = $2), 0)::BIGINT AS spent, \
               COALESCE((SELECT SUM(GREATEST(0, \
               r.amount - COALESCE(l.model_cost + l.compute_cost, 0))) \
               FROM budget_reservations r LEFT JOIN run_logs l ON l.run = r.run \
               WHERE r.workspace = $1), 0)::BIGINT AS reserved";
    let args: [Arg<'_>; 2] = [&workspace.as_str(), &i64::from(month.index())];
    let found = first(client, BUDGET, sql, &args, spending_from_row).await?;
    Ok(found.unwrap_or_default())
}
