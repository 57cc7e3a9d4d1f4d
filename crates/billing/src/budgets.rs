//! Budgets of workspaces: what may start, what may go on, and who is told.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use woodfrog_core::budget::{self, Refusal, Verdict};
use woodfrog_store::{Store, StoreError};
use woodfrog_types::usage::{Budget, BudgetAlert, Month, OverBudget, Reservation, Spending};
use woodfrog_types::webhook::WebhookEvent;
use woodfrog_types::{Code, Fault, RunId, Timestamp, WorkspaceId};

use crate::fault;

/// Between two looks at all budgets: bookings outside of runs are noticed so late at most.
const LOOK: Duration = Duration::from_secs(5);
/// What is set aside for a run is looked at once it is so old: by then the run is recorded.
const RESERVED_MIN: Duration = Duration::from_secs(60);
/// Reservations that one look goes through.
const RESERVED_BATCH: usize = 500;
/// How often a change is tried anew because another one was first.
const RETRIES: usize = 5;

/// What a budget is to be. `None` leaves what is there, or takes the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BudgetChange {
    pub amount: Option<u64>,
    pub thresholds: Option<Vec<u16>>,
    pub hard: Option<bool>,
    pub policy: Option<OverBudget>,
    pub reserve: Option<u64>,
}

/// A budget and where it stands this month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetView {
    pub budget: Budget,
    pub month: Month,
    pub spending: Spending,
    pub alerts: Vec<BudgetAlert>,
}

/// All budgets. A cheap clone.
#[derive(Clone)]
pub struct Budgets {
    store: Arc<dyn Store>,
}

impl Budgets {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Sets the workspace's budget. A raised one lets what is held go on.
    pub async fn set(
        &self,
        workspace: &WorkspaceId,
        change: &BudgetChange,
    ) -> Result<BudgetView, Fault> {
        for _ in 0..RETRIES {
            let stored = self.fetch(workspace).await?;
            let budget = changed(workspace, stored, change)?;
            budget::validate(&budget)?;
            match self.store.budget_put(&budget).await {
                Ok(()) => {
                    self.alert(&budget, Timestamp::now()).await?;
                    return self.view(budget).await;
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(fault::store(error)),
            }
        }
        Err(Fault::new(
            Code::Conflict,
            "the budget is being changed by others; try again",
        ))
    }

    /// The workspace's budget, if it has one, and where it stands.
    pub async fn show(&self, workspace: &WorkspaceId) -> Result<BudgetView, Fault> {
        match self.fetch(workspace).await? {
            Some(budget) => self.view(budget).await,
            None => Err(Fault::new(Code::NotFound, "the workspace has no budget")),
        }
    }

    /// Every workspace's.
    pub async fn list(&self) -> Result<Vec<BudgetView>, Fault> {
        let mut views = Vec::new();
        for budget in self.store.budget_list().await.map_err(fault::store)? {
            views.push(self.view(budget).await?);
        }
        Ok(views)
    }

    /// Removes it: nothing is limited any more.
    pub async fn clear(&self, workspace: &WorkspaceId) -> Result<(), Fault> {
        match self
            .store
            .budget_remove(workspace)
            .await
            .map_err(fault::store)?
        {
            true => Ok(()),
            false => Err(Fault::new(Code::NotFound, "the workspace has no budget")),
        }
    }

    /// Sets aside what a run may cost (`limit`, or what the budget says for runs without one), or
    /// refuses it with [`Code::BudgetExceeded`]. Asking twice sets aside once.
    pub async fn admit(
        &self,
        workspace: &WorkspaceId,
        run: &RunId,
        limit: Option<u64>,
    ) -> Result<(), Fault> {
        let Some(budget) = self.fetch(workspace).await? else {
            return Ok(());
        };
        let at = Timestamp::now();
        let month = Month::of(at);
        let reservation = Reservation {
            workspace: workspace.clone(),
            run: run.clone(),
            amount: limit.unwrap_or(budget.reserve),
            at,
        };
        let amount = budget.hard.then_some(budget.amount);
        let refused = self.store.budget_reserve(&reservation, month, amount).await;
        match refused.map_err(fault::store)? {
            None => Ok(()),
            Some(spending) => {
                let refusal = Refusal {
                    amount: budget.amount,
                    spending,
                    wanted: reservation.amount,
                };
                Err(refusal.fault(month))
            }
        }
    }

    /// Whether the workspace's runs may go on now. Tells of thresholds that are reached.
    pub async fn verdict(&self, workspace: &WorkspaceId) -> Result<Verdict, Fault> {
        let Some(budget) = self.fetch(workspace).await? else {
            return Ok(Verdict::Go);
        };
        let spent = self.alert(&budget, Timestamp::now()).await?;
        Ok(budget::judge(Some(&budget), spent))
    }

    /// Gives back what was set aside for a run that ended.
    pub async fn release(&self, run: &RunId) -> Result<(), Fault> {
        self.store.budget_release(run).await.map_err(fault::store)
    }

    async fn fetch(&self, workspace: &WorkspaceId) -> Result<Option<Budget>, Fault> {
        let fetched = self.store.budget_fetch(workspace).await;
        fetched.map_err(fault::store)
    }

    async fn view(&self, budget: Budget) -> Result<BudgetView, Fault> {
        let month = Month::of(Timestamp::now());
        let spending = self.store.budget_spending(&budget.workspace, month).await;
        let alerts = self.store.budget_alerts(&budget.workspace, month).await;
        Ok(BudgetView {
            month,
            spending: spending.map_err(fault::store)?,
            alerts: alerts.map_err(fault::store)?,
            budget,
        })
    }

    /// Tells of the thresholds that are reached, each once; returns what is spent.
    async fn alert(&self, budget: &Budget, now: Timestamp) -> Result<u64, Fault> {
        let month = Month::of(now);
        let spending = self.store.budget_spending(&budget.workspace, month).await;
        let spent = spending.map_err(fault::store)?.spent;
        for threshold in budget::reached(budget, spent) {
            let alert = BudgetAlert {
                workspace: budget.workspace.clone(),
                month,
                threshold,
                amount: budget.amount,
                spent,
                at: now,
            };
            let told = self.store.budget_alert(&alert, event(budget, &alert)).await;
            if told.map_err(fault::store)? {
                let workspace = &budget.workspace;
                tracing::warn!(%workspace, threshold, spent, "a threshold of a budget is reached");
            }
        }
        Ok(spent)
    }

    /// Looks at every budget, and at what is set aside for runs that ended unseen.
    pub(crate) async fn watch(&self, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.look(Timestamp::now()).await {
                tracing::warn!(%error, "the budgets cannot be looked at");
            }
        }
    }

    async fn look(&self, now: Timestamp) -> Result<(), Fault> {
        for budget in self.store.budget_list().await.map_err(fault::store)? {
            self.alert(&budget, now).await?;
        }
        let old = i64::try_from(RESERVED_MIN.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(now.as_millis().saturating_sub(old));
        let reserved = self.store.budget_reserved(before, RESERVED_BATCH).await;
        for run in reserved.map_err(fault::store)? {
            let record = self.store.run_fetch(&run).await.map_err(fault::store)?;
            if record.is_none_or(|record| record.state.is_terminal()) {
                self.release(&run).await?;
            }
        }
        Ok(())
    }
}

fn changed(
    workspace: &WorkspaceId,
    stored: Option<Budget>,
    change: &BudgetChange,
) -> Result<Budget, Fault> {
    let mut budget = match stored {
        Some(stored) => stored,
        None => Budget {
            workspace: workspace.clone(),
            amount: change
                .amount
                .ok_or_else(|| Fault::invalid("amount", "a new budget needs an amount"))?,
            thresholds: vec![50, 80, 100],
            hard: true,
            policy: OverBudget::default(),
            reserve: 0,
            generation: 0,
            updated_at: Timestamp::now(),
        },
    };
    let BudgetChange {
        amount,
        thresholds,
        hard,
        policy,
        reserve,
    } = change.clone();
    budget.amount = amount.unwrap_or(budget.amount);
    budget.thresholds = thresholds.unwrap_or(budget.thresholds);
    budget.hard = hard.unwrap_or(budget.hard);
    budget.policy = policy.unwrap_or(budget.policy);
    budget.reserve = reserve.unwrap_or(budget.reserve);
    budget.generation += 1;
    budget.updated_at = Timestamp::now();
    Ok(budget)
}

/// The same threshold of the same amount in the same month is the same event.
fn event(budget: &Budget, alert: &BudgetAlert) -> WebhookEvent {
    let BudgetAlert {
        workspace,
        month,
        threshold,
        amount,
        spent,
        at,
    } = alert;
    let data = serde_json::json!({
        "workspace": workspace.as_str(),
        "month": month.to_string(),
        "threshold_percent": threshold,
        "amount_micros": amount,
        "spent_micros": spent,
        "hard": budget.hard,
        "policy": budget.policy.as_str(),
    });
    WebhookEvent {
        id: format!("budget/{workspace}/{month}/{amount}/{threshold}"),
        workspace: workspace.clone(),
        kind: "budget.threshold_reached".to_owned(),
        at: *at,
        data: data.to_string(),
    }
}
