//! Money around the books: prices, budgets, the meter of sandboxes, and webhooks.
//!
//! Decisions are in `core::{price, budget, meter, webhook}`; this crate asks the store and the
//! clock. Each of its tasks is an idempotent look at what is stored: what a crash interrupts, the
//! next look goes on with.
#![forbid(unsafe_code)]

mod budgets;
mod client;
mod dispatch;
mod fault;
mod meter;
mod news;
mod prices;
mod removal;
mod usage;
mod webhooks;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use woodfrog_engine::Engine;
use woodfrog_store::Store;

pub use budgets::{BudgetChange, BudgetView, Budgets};
pub use client::Reach;
pub use dispatch::Dispatcher;
pub use meter::Meters;
pub use prices::{PriceEdit, Prices};
pub use usage::{BUCKETS_MAX, Period, Usage};
pub use webhooks::{CreatedWebhook, NewWebhook, WebhookChange, Webhooks};
pub use woodfrog_store::Replay;

/// All of it. A cheap clone.
#[derive(Clone)]
pub struct Billing {
    store: Arc<dyn Store>,
    pub prices: Prices,
    pub budgets: Budgets,
    pub webhooks: Webhooks,
    pub meters: Meters,
    pub usage: Usage,
}

impl Billing {
    /// Over the engine's store. Nothing runs until [`Billing::run`].
    pub fn new(engine: &Engine, reach: Reach) -> Self {
        let store = engine.store();
        let prices = Prices::new(Arc::clone(&store));
        Self {
            budgets: Budgets::new(Arc::clone(&store)),
            webhooks: Webhooks::new(engine.clone(), reach),
            meters: Meters::new(Arc::clone(&store), prices.clone()),
            usage: Usage::new(Arc::clone(&store)),
            prices,
            store,
        }
    }

    /// Meters sandboxes, looks after budgets and tells webhooks, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let dispatcher = Dispatcher::new(self.webhooks.clone());
        tokio::join!(
            self.prices.watch(&stop),
            self.meters.watch(&stop),
            self.budgets.watch(&stop),
            dispatcher.watch(&stop),
        );
    }
}
