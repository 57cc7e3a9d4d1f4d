//! What runs ask of those who know about money.

use async_trait::async_trait;
use woodfrog_types::run::Run;
use woodfrog_types::trace::Span;
use woodfrog_types::usage::{Cost, Month, Quantity, UsageTotals};
use woodfrog_types::{Fault, RunId, WorkspaceId};

/// Whether a run may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    Go,
    /// It stops where it is, its sandbox asleep, until this is asked again and the answer is
    /// another.
    Hold {
        reason: String,
    },
    End {
        reason: String,
    },
}

/// What a quantity costs.
pub trait Prices: Send + Sync + 'static {
    /// The cost, and the version of the price table that gave it.
    fn cost(&self, quantity: &Quantity) -> (Cost, u64);
}

/// Who pays.
#[async_trait]
pub trait Purse: Send + Sync + 'static {
    /// Whether the run may start; sets aside what it may use. Asked again for the same run, it
    /// answers the same.
    async fn admit(&self, run: &Run) -> Result<(), Fault>;
    /// Whether runs of the workspace may go on. `totals` is what it used in the months that
    /// something was booked in just now; empty if nothing was.
    async fn judge(
        &self,
        workspace: &WorkspaceId,
        totals: &[(Month, UsageTotals)],
    ) -> Result<Judgement, Fault>;
    /// The run is over: what was set aside for it is free.
    async fn release(&self, run: &RunId);
}

/// Nothing costs anything, and nobody counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Free;

impl Prices for Free {
    fn cost(&self, quantity: &Quantity) -> (Cost, u64) {
        let unpriced = matches!(quantity, Quantity::Tokens { .. });
        let cost = Cost {
            unpriced,
            ..Cost::default()
        };
        (cost, 0)
    }
}

#[async_trait]
impl Purse for Free {
    async fn admit(&self, _: &Run) -> Result<(), Fault> {
        Ok(())
    }

    async fn judge(&self, _: &WorkspaceId, _: &[(Month, UsageTotals)]) -> Result<Judgement, Fault> {
        Ok(Judgement::Go)
    }

    async fn release(&self, _: &RunId) {}
}

/// Who is told what runs did, as spans of traces.
pub trait Traces: Send + Sync + 'static {
    /// How many of the runs, 0 to 1; those that fail are told of anyway.
    fn rate(&self) -> f64;
    fn pace(&self) -> Pace;
    /// Takes spans, or drops them; never waits.
    fn take(&self, spans: Vec<Span>);
}

/// When spans are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// All together, once the run is over.
    AtEnd,
    /// Each when it has ended.
    AtOnce,
}
