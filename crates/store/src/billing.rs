//! Prices, budgets and webhooks.

use async_trait::async_trait;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::usage::{
    Budget, BudgetAlert, Meter, Month, PriceTable, Reservation, Spending, UsageEntry,
};
use woodfrog_types::webhook::{
    Delivery, DeliveryState, Happening, Webhook, WebhookEvent, WebhookState,
};
use woodfrog_types::{RunId, SandboxId, Timestamp, WebhookId, WorkspaceId};

use crate::Result;

/// Price tables. None ever changes.
#[async_trait]
pub trait PriceStore: Send + Sync {
    /// Adds a table. `Conflict` unless its version is the one after the latest (1 if there is
    /// none).
    async fn price_insert(&self, table: &PriceTable) -> Result<()>;
    /// A version; the latest if none is named.
    async fn price_fetch(&self, version: Option<u64>) -> Result<Option<PriceTable>>;
    /// Tables of a version below `before`, the latest first.
    async fn price_list(&self, before: Option<u64>, limit: usize) -> Result<Vec<PriceTable>>;
}

/// Budgets, what is set aside under them, and their alerts.
#[async_trait]
pub trait BudgetStore: Send + Sync {
    /// Sets the workspace's budget. `Conflict` unless its generation is the one after the stored
    /// one's (1 if there is none).
    async fn budget_put(&self, budget: &Budget) -> Result<()>;
    async fn budget_fetch(&self, workspace: &WorkspaceId) -> Result<Option<Budget>>;
    /// Every workspace's, by workspace.
    async fn budget_list(&self) -> Result<Vec<Budget>>;
    /// `false` if there was none. Reservations and alerts stay.
    async fn budget_remove(&self, workspace: &WorkspaceId) -> Result<bool>;
    /// What the workspace spent in the month, and what is set aside and not yet spent.
    async fn budget_spending(&self, workspace: &WorkspaceId, month: Month) -> Result<Spending>;
    /// Sets money aside unless that is too much, in one transaction: `None` if it is set aside
    /// now or was before for the same run, else what stands against it. It is too much if
    /// `limit` is spent, or less than what is spent, set aside and wanted together.
    async fn budget_reserve(
        &self,
        reservation: &Reservation,
        month: Month,
        limit: Option<u64>,
    ) -> Result<Option<Spending>>;
    /// Gives back what was set aside for a run. Giving back what is not there is `Ok`.
    async fn budget_release(&self, run: &RunId) -> Result<()>;
    /// Runs that have something set aside since before that time, oldest first.
    async fn budget_reserved(&self, before: Timestamp, limit: usize) -> Result<Vec<RunId>>;
    /// Records an alert and tells of it, in one transaction. `false`, and nothing is told, if
    /// this threshold of this amount was recorded for the month before.
    async fn budget_alert(&self, alert: &BudgetAlert, event: WebhookEvent) -> Result<bool>;
    /// The month's alerts, by time, then by threshold.
    async fn budget_alerts(
        &self,
        workspace: &WorkspaceId,
        month: Month,
    ) -> Result<Vec<BudgetAlert>>;
}

/// Webhooks, and what is on its way to them.
#[async_trait]
pub trait WebhookStore: Send + Sync {
    /// Adds a webhook. `Conflict` if its generation is not 1, `Constraint` if the id is taken.
    async fn webhook_insert(&self, webhook: &Webhook) -> Result<()>;
    /// Replaces the record whose generation is one lower. `Conflict` if the stored generation is
    /// another, `NotFound` if it is gone.
    async fn webhook_update(&self, webhook: &Webhook) -> Result<()>;
    /// Removes it and its deliveries; `false` if there was none.
    async fn webhook_remove(&self, id: &WebhookId) -> Result<bool>;
    /// One webhook, of whatever workspace.
    async fn webhook_fetch(&self, id: &WebhookId) -> Result<Option<Webhook>>;
    /// A workspace's, oldest first (by id).
    async fn webhook_list(&self, workspace: &WorkspaceId) -> Result<Vec<Webhook>>;
    /// Records a delivery, due when the event happened, for each webhook that is enabled and wants
    /// the event, all in one transaction. An event that a webhook has a delivery of is passed over.
    /// Returns how many are new.
    async fn webhook_publish(&self, events: Vec<WebhookEvent>) -> Result<u64>;
    /// Deliveries that are due, those that were recorded first at the beginning.
    async fn delivery_due(&self, now: Timestamp, limit: usize) -> Result<Vec<Delivery>>;
    /// The first delivery that is due of each webhook that has one; at most `limit`.
    async fn delivery_lanes(&self, now: Timestamp, limit: usize) -> Result<Vec<Delivery>>;
    /// What happened to runs, sessions and sandboxes of workspaces that have a webhook, noted in
    /// the transactions that it happened in; the oldest first, at most `limit`.
    async fn happening_list(&self, limit: usize) -> Result<Vec<Happening>>;
    /// As [`WebhookStore::webhook_publish`], and forgets what was noted under these numbers, in one
    /// transaction.
    async fn happening_publish(&self, numbers: Vec<u64>, events: Vec<WebhookEvent>) -> Result<u64>;
    /// When the next one is due.
    async fn delivery_next(&self) -> Result<Option<Timestamp>>;
    /// Writes what became of a try: the delivery's state, attempts and last, and the webhook's
    /// state. Disabling one fails all that is on its way to it. `NotFound` if it is gone.
    async fn delivery_tried(&self, delivery: &Delivery, webhook: WebhookState) -> Result<()>;
    /// A webhook's deliveries, the last recorded first; of one state if it is named
    /// ([`DeliveryState::as_str`]).
    async fn delivery_list(
        &self,
        webhook: &WebhookId,
        state: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<Delivery>>;
    /// Has deliveries tried anew from `due` on, with all attempts before them: that one, or every
    /// failed one whose event happened at `since` or later. Returns how many.
    async fn delivery_replay(
        &self,
        webhook: &WebhookId,
        which: Replay,
        due: Timestamp,
    ) -> Result<u64>;
    /// Forgets deliveries that ended before `before`; returns how many, at most `limit`.
    async fn delivery_trim(&self, before: Timestamp, limit: usize) -> Result<u64>;
}

/// How far the time of sandboxes is booked.
#[async_trait]
pub trait MeterStore: Send + Sync {
    async fn meter_fetch(&self, sandbox: &SandboxId) -> Result<Option<Meter>>;
    /// Sandboxes whose log has entries that their meter has not seen; at most `limit`.
    async fn meter_behind(&self, limit: usize) -> Result<Vec<SandboxId>>;
    /// Meters that are on a rung, of sandboxes after `after`, by sandbox; at most `limit`.
    async fn meter_on(&self, after: Option<&SandboxId>, limit: usize) -> Result<Vec<Meter>>;
    /// Moves the meter and books its entries in one transaction, each run's in its sums as well.
    /// Entries whose key the workspace has are passed over.
    async fn meter_put(&self, meter: &Meter, entries: Vec<UsageEntry>) -> Result<()>;
}

/// Which deliveries are tried anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// [`Delivery::number`].
    One(u64),
    FailedSince(Timestamp),
}

/// When a delivery is due, or ended: what lists and indexes go by.
pub const fn moment(state: DeliveryState) -> Timestamp {
    match state {
        DeliveryState::Pending { due } => due,
        DeliveryState::Delivered { at } | DeliveryState::Failed { at } => at,
    }
}
