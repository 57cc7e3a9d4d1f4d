//! Prices, budgets, usage and webhooks. Money is whole micro-dollars: 1,000,000 are a dollar.

mod analytics;
mod usage;
mod webhooks;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use woodfrog_types::Timestamp;
use woodfrog_types::usage as domain;

pub use analytics::{
    RunAnalytics, RunAnalyticsQuery, RunBucket, RunErrors, RunGroup, RunSums, ToolUse, Tools,
};
pub use usage::{UsageEntry, UsageQuery, UsageRow, UsageShow};
pub use webhooks::{
    CreatedWebhook, Deliveries, Delivery, DeliveryQuery, NewWebhook, Replay, Replayed, Webhook,
    WebhookPatch, Webhooks,
};

/// What a model's tokens cost: micro-dollars for a million tokens of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelPrice {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    /// Null: not known; tokens that were written into a cache are flagged as unpriced.
    pub cache_write: Option<u64>,
}

/// What a sandbox costs: micro-dollars for a million seconds of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ComputePrice {
    /// A million seconds of one CPU.
    pub cpu: u64,
    /// A million seconds of a GiB of memory.
    pub memory: u64,
    /// A million seconds of a GiB of disk.
    pub disk: u64,
}

/// Sandboxes' prices by rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ComputePrices {
    pub running: ComputePrice,
    pub paused: ComputePrice,
    pub hibernated: ComputePrice,
    pub archived: ComputePrice,
}

/// All prices of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Prices {
    pub version: u64,
    pub created_at: i64,
    /// Null: built in.
    pub created_by: Option<String>,
    pub models: BTreeMap<String, ModelPrice>,
    pub compute: ComputePrices,
}

/// All prices, to replace those that hold now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPrices {
    pub models: BTreeMap<String, ModelPrice>,
    pub compute: ComputePrices,
}

/// Changes of the prices that hold now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PricesPatch {
    /// Added, or replaced.
    #[serde(default)]
    pub models: BTreeMap<String, ModelPrice>,
    /// Models whose tokens are flagged as unpriced from now on.
    #[serde(default)]
    pub remove_models: Vec<String>,
    /// By rung: `running`, `paused`, `hibernated`, `archived`.
    #[serde(default)]
    pub compute: BTreeMap<String, ComputePrice>,
}

/// Versions of the prices, the latest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PriceVersions {
    pub items: Vec<Prices>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PriceQuery {
    /// The latest if absent.
    pub version: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PriceVersionQuery {
    /// Versions below this one.
    pub before: Option<u64>,
    /// 1 to 100; 100 if absent.
    pub limit: Option<usize>,
}

/// What becomes of running runs once a hard limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPolicy {
    /// They stop where they are and go on when the limit is raised.
    Freeze,
    /// They end.
    End,
}

/// A change of a budget; what is absent stays, or takes the default of a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetPatch {
    /// Micro-dollars in a calendar month, UTC.
    pub amount_micros: Option<u64>,
    /// Percent of the amount, rising; 50, 80 and 100 if absent.
    pub thresholds: Option<Vec<u16>>,
    /// Whether nothing starts once it is spent; true if absent.
    pub hard: Option<bool>,
    /// `freeze` if absent.
    pub policy: Option<BudgetPolicy>,
    /// Micro-dollars that are set aside for a run without a cost limit of its own; 0 if absent.
    pub reserve_micros: Option<u64>,
}

/// That a threshold was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BudgetAlert {
    pub threshold: u16,
    pub amount_micros: u64,
    pub spent_micros: u64,
    pub at: i64,
}

/// A budget and where it stands this month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Budget {
    pub workspace: String,
    pub amount_micros: u64,
    pub thresholds: Vec<u16>,
    pub hard: bool,
    pub policy: BudgetPolicy,
    pub reserve_micros: u64,
    pub updated_at: i64,
    /// `2026-11`.
    pub month: String,
    pub spent_micros: u64,
    /// Set aside for runs that go on, and not yet spent.
    pub reserved_micros: u64,
    /// This month's.
    pub alerts: Vec<BudgetAlert>,
}

/// Budgets of every workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Budgets {
    pub items: Vec<Budget>,
}

impl From<domain::ModelPrice> for ModelPrice {
    fn from(price: domain::ModelPrice) -> Self {
        Self {
            input: price.input,
            output: price.output,
            cache_read: price.cache_read,
            cache_write: price.cache_write,
        }
    }
}

impl From<ModelPrice> for domain::ModelPrice {
    fn from(price: ModelPrice) -> Self {
        Self {
            input: price.input,
            output: price.output,
            cache_read: price.cache_read,
            cache_write: price.cache_write,
        }
    }
}

impl From<domain::ComputePrice> for ComputePrice {
    fn from(domain::ComputePrice { cpu, memory, disk }: domain::ComputePrice) -> Self {
        Self { cpu, memory, disk }
    }
}

impl From<ComputePrice> for domain::ComputePrice {
    fn from(ComputePrice { cpu, memory, disk }: ComputePrice) -> Self {
        Self { cpu, memory, disk }
    }
}

impl From<&domain::PriceTable> for Prices {
    fn from(table: &domain::PriceTable) -> Self {
        let models = table.models.iter();
        Self {
            version: table.version,
            created_at: table.created_at.as_millis(),
            created_by: table.created_by.as_ref().map(ToString::to_string),
            models: models
                .map(|(name, price)| (name.clone(), (*price).into()))
                .collect(),
            compute: ComputePrices {
                running: table.rung(domain::Rung::Running).into(),
                paused: table.rung(domain::Rung::Paused).into(),
                hibernated: table.rung(domain::Rung::Hibernated).into(),
                archived: table.rung(domain::Rung::Archived).into(),
            },
        }
    }
}

impl From<NewPrices> for domain::PriceTable {
    /// Version and time are the store's concern.
    fn from(prices: NewPrices) -> Self {
        let ComputePrices {
            running,
            paused,
            hibernated,
            archived,
        } = prices.compute;
        Self {
            version: 0,
            created_at: Timestamp::from_millis(0),
            created_by: None,
            models: prices
                .models
                .into_iter()
                .map(|(name, price)| (name, price.into()))
                .collect(),
            compute: [running, paused, hibernated, archived].map(Into::into),
        }
    }
}

impl From<domain::OverBudget> for BudgetPolicy {
    fn from(policy: domain::OverBudget) -> Self {
        match policy {
            domain::OverBudget::Freeze => Self::Freeze,
            domain::OverBudget::End => Self::End,
        }
    }
}

impl From<BudgetPolicy> for domain::OverBudget {
    fn from(policy: BudgetPolicy) -> Self {
        match policy {
            BudgetPolicy::Freeze => Self::Freeze,
            BudgetPolicy::End => Self::End,
        }
    }
}

impl Budget {
    /// The reply for a budget and where it stands.
    pub fn new(
        budget: domain::Budget,
        month: domain::Month,
        spending: domain::Spending,
        alerts: &[domain::BudgetAlert],
    ) -> Self {
        let alert = |alert: &domain::BudgetAlert| BudgetAlert {
            threshold: alert.threshold,
            amount_micros: alert.amount,
            spent_micros: alert.spent,
            at: alert.at.as_millis(),
        };
        Self {
            workspace: budget.workspace.to_string(),
            amount_micros: budget.amount,
            thresholds: budget.thresholds,
            hard: budget.hard,
            policy: budget.policy.into(),
            reserve_micros: budget.reserve,
            updated_at: budget.updated_at.as_millis(),
            month: month.to_string(),
            spent_micros: spending.spent,
            reserved_micros: spending.reserved,
            alerts: alerts.iter().map(alert).collect(),
        }
    }
}
