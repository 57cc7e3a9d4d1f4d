//! Runs are paid for: by the prices that hold and the budget of their workspace.

use async_trait::async_trait;
use woodfrog_billing::Billing;
use woodfrog_core::budget::Verdict;
use woodfrog_runs::{Judgement, Prices, Purse};
use woodfrog_types::run::Run;
use woodfrog_types::usage::{Cost, Month, Quantity, UsageTotals};
use woodfrog_types::{Fault, RunId, WorkspaceId};

/// What runs are held or ended for.
const REASON: &str = "budget";

/// Billing, as runs ask it.
pub(crate) struct Paying(pub(crate) Billing);

impl Prices for Paying {
    fn cost(&self, quantity: &Quantity) -> (Cost, u64) {
        self.0.prices.cost(quantity)
    }
}

#[async_trait]
impl Purse for Paying {
    async fn admit(&self, run: &Run) -> Result<(), Fault> {
        let budgets = &self.0.budgets;
        budgets
            .admit(&run.workspace, &run.id, run.limits.cost)
            .await
    }

    async fn judge(
        &self,
        workspace: &WorkspaceId,
        _: &[(Month, UsageTotals)],
    ) -> Result<Judgement, Fault> {
        let reason = REASON.to_owned();
        Ok(match self.0.budgets.verdict(workspace).await? {
            Verdict::Go => Judgement::Go,
            Verdict::Hold => Judgement::Hold { reason },
            Verdict::End => Judgement::End { reason },
        })
    }

    async fn release(&self, run: &RunId) {
        // What is not given back now is found by a later look.
        if let Err(error) = self.0.budgets.release(run).await {
            tracing::warn!(%run, %error, "what was set aside for a run is not given back yet");
        }
    }
}
