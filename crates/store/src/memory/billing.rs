//! Prices, budgets and webhooks in memory.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::run::{Run, RunState};
use woodfrog_types::session::{Session, SessionState};
use woodfrog_types::usage::{
    Budget, BudgetAlert, Meter, Month, PriceTable, Reservation, Spending, UsageEntry,
};
use woodfrog_types::webhook::{
    Delivery, DeliveryState, Happening, SANDBOX_KINDS, Webhook, WebhookEvent, WebhookState,
};
use woodfrog_types::{RunId, SandboxId, Timestamp, WebhookId, WorkspaceId};

use super::{MemoryStore, State, cut_page};
use crate::billing::{BudgetStore, MeterStore, PriceStore, Replay, WebhookStore, moment};
use crate::cursor::{self, List};
use crate::{Result, StoreError};

const PRICES: &str = "price table";
const BUDGET: &str = "budget";
const WEBHOOK: &str = "webhook";
const DELIVERY: &str = "delivery";

/// What this file keeps.
#[derive(Debug, Default)]
pub(super) struct Money {
    prices: BTreeMap<u64, PriceTable>,
    budgets: BTreeMap<WorkspaceId, Budget>,
    reservations: BTreeMap<RunId, Reservation>,
    alerts: BTreeMap<(WorkspaceId, Month, u16, u64), BudgetAlert>,
    webhooks: BTreeMap<WebhookId, Webhook>,
    deliveries: BTreeMap<u64, Delivery>,
    /// The number of the last one that was recorded.
    numbered: u64,
    happenings: Vec<Happening>,
    /// The number of the last thing that was noted.
    happened: u64,
    meters: BTreeMap<SandboxId, Meter>,
    /// Of workspaces that are gone: their logs are of no interest any more.
    unmetered: BTreeSet<SandboxId>,
}

#[async_trait]
impl PriceStore for MemoryStore {
    async fn price_insert(&self, table: &PriceTable) -> Result<()> {
        let prices = &mut self.lock().money.prices;
        let latest = prices.last_key_value().map_or(0, |(version, _)| *version);
        if table.version != latest + 1 {
            return Err(StoreError::Conflict { what: PRICES });
        }
        prices.insert(table.version, table.clone());
        Ok(())
    }

    async fn price_fetch(&self, version: Option<u64>) -> Result<Option<PriceTable>> {
        let prices = &self.lock().money.prices;
        Ok(match version {
            Some(version) => prices.get(&version).cloned(),
            None => prices.last_key_value().map(|(_, table)| table.clone()),
        })
    }

    async fn price_list(&self, before: Option<u64>, limit: usize) -> Result<Vec<PriceTable>> {
        let prices = &self.lock().money.prices;
        let below = prices.range(..before.unwrap_or(u64::MAX));
        Ok(below
            .rev()
            .take(limit)
            .map(|(_, one)| one.clone())
            .collect())
    }
}

/// What is spent and set aside, under the caller's lock.
fn spending(state: &State, workspace: &WorkspaceId, month: Month) -> Spending {
    let reservations = state.money.reservations.values();
    let left = |one: &Reservation| one.amount.saturating_sub(state.run_cost(&one.run));
    Spending {
        spent: state.month_cost(workspace, month),
        reserved: reservations
            .filter(|one| one.workspace == *workspace)
            .map(left)
            .fold(0, u64::saturating_add),
    }
}

#[async_trait]
impl BudgetStore for MemoryStore {
    async fn budget_put(&self, budget: &Budget) -> Result<()> {
        let budgets = &mut self.lock().money.budgets;
        let stored = budgets.get(&budget.workspace);
        if budget.generation != stored.map_or(0, |stored| stored.generation) + 1 {
            return Err(StoreError::Conflict { what: BUDGET });
        }
        budgets.insert(budget.workspace.clone(), budget.clone());
        Ok(())
    }

    async fn budget_fetch(&self, workspace: &WorkspaceId) -> Result<Option<Budget>> {
        Ok(self.lock().money.budgets.get(workspace).cloned())
    }

    async fn budget_list(&self) -> Result<Vec<Budget>> {
        Ok(self.lock().money.budgets.values().cloned().collect())
    }

    async fn budget_remove(&self, workspace: &WorkspaceId) -> Result<bool> {
        Ok(self.lock().money.budgets.remove(workspace).is_some())
    }

    async fn budget_spending(&self, workspace: &WorkspaceId, month: Month) -> Result<Spending> {
        Ok(spending(&self.lock(), workspace, month))
    }

    async fn budget_reserve(
        &self,
        reservation: &Reservation,
        month: Month,
        limit: Option<u64>,
    ) -> Result<Option<Spending>> {
        let mut state = self.lock();
        if state.money.reservations.contains_key(&reservation.run) {
            return Ok(None);
        }
        let now = spending(&state, &reservation.workspace, month);
        let wanted = now.spent.saturating_add(now.reserved);
        let wanted = wanted.saturating_add(reservation.amount);
        if limit.is_some_and(|limit| now.spent >= limit || wanted > limit) {
            return Ok(Some(now));
        }
        let reservations = &mut state.money.reservations;
        reservations.insert(reservation.run.clone(), reservation.clone());
        Ok(None)
    }

    async fn budget_release(&self, run: &RunId) -> Result<()> {
        self.lock().money.reservations.remove(run);
        Ok(())
    }

    async fn budget_reserved(&self, before: Timestamp, limit: usize) -> Result<Vec<RunId>> {
        let state = self.lock();
        let all = state.money.reservations.values();
        let mut old: Vec<_> = all
            .filter(|one| one.at < before)
            .map(|one| (one.at, one.run.clone()))
            .collect();
        old.sort();
        Ok(old.into_iter().take(limit).map(|(_, run)| run).collect())
    }

    async fn budget_alert(&self, alert: &BudgetAlert, event: WebhookEvent) -> Result<bool> {
        let mut state = self.lock();
        let BudgetAlert {
            workspace,
            month,
            threshold,
            amount,
            ..
        } = alert;
        let key = (workspace.clone(), *month, *threshold, *amount);
        if state.money.alerts.contains_key(&key) {
            return Ok(false);
        }
        state.money.alerts.insert(key, alert.clone());
        state.money.publish(event);
        Ok(true)
    }

    async fn budget_alerts(
        &self,
        workspace: &WorkspaceId,
        month: Month,
    ) -> Result<Vec<BudgetAlert>> {
        let state = self.lock();
        let all = state.money.alerts.values();
        let mut alerts: Vec<_> = all
            .filter(|alert| alert.workspace == *workspace && alert.month == month)
            .cloned()
            .collect();
        alerts.sort_by_key(|alert| (alert.at, alert.threshold, alert.amount));
        Ok(alerts)
    }
}

impl Money {
    /// Records deliveries of an event; returns how many are new.
    fn publish(&mut self, event: WebhookEvent) -> u64 {
        let mut new = 0;
        let enabled = self.webhooks.values().filter(|webhook| {
            webhook.workspace == event.workspace
                && matches!(webhook.state, WebhookState::Enabled { .. })
                && webhook.wants(&event.kind)
        });
        for webhook in enabled {
            let known = self
                .deliveries
                .values()
                .any(|one| one.webhook == webhook.id && one.event.id == event.id);
            if known {
                continue;
            }
            self.numbered += 1;
            let delivery = Delivery {
                number: self.numbered,
                webhook: webhook.id.clone(),
                event: event.clone(),
                state: DeliveryState::Pending { due: event.at },
                attempts: 0,
                last: None,
            };
            self.deliveries.insert(self.numbered, delivery);
            new += 1;
        }
        new
    }
}

#[async_trait]
impl WebhookStore for MemoryStore {
    async fn webhook_insert(&self, webhook: &Webhook) -> Result<()> {
        let webhooks = &mut self.lock().money.webhooks;
        if webhook.generation != 1 {
            return Err(StoreError::Conflict { what: WEBHOOK });
        }
        if webhooks.contains_key(&webhook.id) {
            return Err(StoreError::Constraint { what: WEBHOOK });
        }
        webhooks.insert(webhook.id.clone(), webhook.clone());
        Ok(())
    }

    async fn webhook_update(&self, webhook: &Webhook) -> Result<()> {
        let webhooks = &mut self.lock().money.webhooks;
        let stored = webhooks.get_mut(&webhook.id);
        let stored = stored.ok_or(StoreError::NotFound { what: WEBHOOK })?;
        if stored.generation + 1 != webhook.generation {
            return Err(StoreError::Conflict { what: WEBHOOK });
        }
        *stored = webhook.clone();
        Ok(())
    }

    async fn webhook_remove(&self, id: &WebhookId) -> Result<bool> {
        let money = &mut self.lock().money;
        money.deliveries.retain(|_, one| one.webhook != *id);
        Ok(money.webhooks.remove(id).is_some())
    }

    async fn webhook_fetch(&self, id: &WebhookId) -> Result<Option<Webhook>> {
        Ok(self.lock().money.webhooks.get(id).cloned())
    }

    async fn webhook_list(&self, workspace: &WorkspaceId) -> Result<Vec<Webhook>> {
        let state = self.lock();
        let all = state.money.webhooks.values();
        Ok(all
            .filter(|webhook| webhook.workspace == *workspace)
            .cloned()
            .collect())
    }

    async fn webhook_publish(&self, events: Vec<WebhookEvent>) -> Result<u64> {
        let money = &mut self.lock().money;
        Ok(events.into_iter().map(|event| money.publish(event)).sum())
    }

    async fn delivery_due(&self, now: Timestamp, limit: usize) -> Result<Vec<Delivery>> {
        let state = self.lock();
        let all = state.money.deliveries.values();
        let due =
            |one: &&Delivery| matches!(one.state, DeliveryState::Pending { due } if due <= now);
        Ok(all.filter(due).take(limit).cloned().collect())
    }

    async fn delivery_lanes(&self, now: Timestamp, limit: usize) -> Result<Vec<Delivery>> {
        let due = self.delivery_due(now, usize::MAX).await?;
        let mut seen = std::collections::BTreeSet::new();
        let first = due
            .into_iter()
            .filter(|one| seen.insert(one.webhook.clone()));
        Ok(first.take(limit).collect())
    }

    async fn happening_list(&self, limit: usize) -> Result<Vec<Happening>> {
        let state = self.lock();
        Ok(state.money.happenings.iter().take(limit).cloned().collect())
    }

    async fn happening_publish(&self, numbers: Vec<u64>, events: Vec<WebhookEvent>) -> Result<u64> {
        let money = &mut self.lock().money;
        money
            .happenings
            .retain(|one| !numbers.contains(&one.number));
        Ok(events.into_iter().map(|event| money.publish(event)).sum())
    }

    async fn delivery_next(&self) -> Result<Option<Timestamp>> {
        let state = self.lock();
        let all = state.money.deliveries.values();
        let due = |one: &Delivery| match one.state {
            DeliveryState::Pending { due } => Some(due),
            DeliveryState::Delivered { .. } | DeliveryState::Failed { .. } => None,
        };
        Ok(all.filter_map(due).min())
    }

    async fn delivery_tried(&self, delivery: &Delivery, webhook: WebhookState) -> Result<()> {
        let money = &mut self.lock().money;
        let stored = money.deliveries.get_mut(&delivery.number);
        let stored = stored.ok_or(StoreError::NotFound { what: DELIVERY })?;
        stored.state = delivery.state;
        stored.attempts = delivery.attempts;
        stored.last.clone_from(&delivery.last);
        if let Some(stored) = money.webhooks.get_mut(&delivery.webhook) {
            stored.state = webhook;
        }
        if let WebhookState::Disabled { since } = webhook {
            let all = money.deliveries.values_mut();
            for one in all.filter(|one| one.webhook == delivery.webhook) {
                if matches!(one.state, DeliveryState::Pending { .. }) {
                    one.state = DeliveryState::Failed { at: since };
                }
            }
        }
        Ok(())
    }

    async fn delivery_list(
        &self,
        webhook: &WebhookId,
        wanted: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<Delivery>> {
        let cursor = page.cursor.as_deref();
        let before = cursor.map(|cursor| cursor::decode_time(List::Deliveries, cursor));
        let before = before.transpose()?.map_or(i64::MAX, |(number, _)| number);
        let state = self.lock();
        let all = state.money.deliveries.values().rev();
        let matching = all
            .filter(|one| one.webhook == *webhook)
            .filter(|one| i64::try_from(one.number).is_ok_and(|number| number < before))
            .filter(|one| wanted.is_none_or(|wanted| one.state.as_str() == wanted))
            .cloned();
        Ok(cut_page(matching, cursor::page_items(page), |one| {
            cursor::encode(List::Deliveries, &one.number.to_string(), "")
        }))
    }

    async fn delivery_replay(
        &self,
        webhook: &WebhookId,
        which: Replay,
        due: Timestamp,
    ) -> Result<u64> {
        let money = &mut self.lock().money;
        let all = money.deliveries.values_mut();
        let mut count = 0;
        for one in all.filter(|one| one.webhook == *webhook) {
            let meant = match which {
                Replay::One(number) => one.number == number,
                Replay::FailedSince(since) => {
                    one.event.at >= since && matches!(one.state, DeliveryState::Failed { .. })
                }
            };
            if meant {
                one.state = DeliveryState::Pending { due };
                one.attempts = 0;
                count += 1;
            }
        }
        Ok(count)
    }

    async fn delivery_trim(&self, before: Timestamp, limit: usize) -> Result<u64> {
        let deliveries = &mut self.lock().money.deliveries;
        let ended = |one: &Delivery| !matches!(one.state, DeliveryState::Pending { .. });
        let mut old: Vec<_> = deliveries
            .values()
            .filter(|one| ended(one) && moment(one.state) < before)
            .map(|one| (moment(one.state), one.number))
            .collect();
        old.sort_unstable();
        old.truncate(limit);
        for (_, number) in &old {
            deliveries.remove(number);
        }
        Ok(u64::try_from(old.len()).unwrap_or(u64::MAX))
    }
}

#[async_trait]
impl MeterStore for MemoryStore {
    async fn meter_fetch(&self, sandbox: &SandboxId) -> Result<Option<Meter>> {
        Ok(self.lock().money.meters.get(sandbox).cloned())
    }

    async fn meter_behind(&self, limit: usize) -> Result<Vec<SandboxId>> {
        let state = self.lock();
        let seen = |id: &SandboxId| state.money.meters.get(id).map_or(0, |meter| meter.seq);
        let behind = state
            .logs
            .iter()
            .filter(|(id, _)| !state.money.unmetered.contains(id))
            .filter(|(id, log)| log.last().is_some_and(|last| last.seq > seen(id)));
        Ok(behind.take(limit).map(|(id, _)| id.clone()).collect())
    }

    async fn meter_on(&self, after: Option<&SandboxId>, limit: usize) -> Result<Vec<Meter>> {
        let state = self.lock();
        let all = state.money.meters.values();
        Ok(all
            .filter(|meter| meter.on.is_some())
            .filter(|meter| after.is_none_or(|after| meter.sandbox > *after))
            .take(limit)
            .cloned()
            .collect())
    }

    async fn meter_put(&self, meter: &Meter, entries: Vec<UsageEntry>) -> Result<()> {
        let mut state = self.lock();
        for entry in &entries {
            state.book(entry);
        }
        let meters = &mut state.money.meters;
        meters.insert(meter.sandbox.clone(), meter.clone());
        Ok(())
    }
}

/// Notes that something happened, if anybody is to be told.
fn note(
    state: &mut State,
    workspace: &WorkspaceId,
    kind: &str,
    subject: &str,
    place: u64,
    at: Timestamp,
) {
    let mut webhooks = state.money.webhooks.values();
    if !webhooks.any(|webhook| webhook.workspace == *workspace) {
        return;
    }
    state.money.happened += 1;
    let happening = Happening {
        number: state.money.happened,
        workspace: workspace.clone(),
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        place,
        at,
    };
    state.money.happenings.push(happening);
}

/// A run was written; `old` is what it was before.
pub(super) fn note_run(state: &mut State, old: Option<&Run>, new: &Run) {
    let held = |run: &Run| match &run.state {
        RunState::Running { held, .. } => held.as_ref().map(|held| held.since),
        RunState::Booting(_) | RunState::Ended { .. } => None,
    };
    let (kind, at) = match (&new.state, old) {
        (RunState::Booting(_), None) => ("run.queued", new.created_at),
        (RunState::Running { since, .. }, old)
            if old.is_none_or(|old| old.state.as_str() != "running") =>
        {
            ("run.started", *since)
        }
        (RunState::Running { .. }, Some(old)) => match (held(old), held(new)) {
            (None, Some(at)) => ("run.held", at),
            (Some(_), None) => ("run.continued", Timestamp::now()),
            _ => return,
        },
        (RunState::Ended { at, .. }, old) if old.is_none_or(|old| !old.state.is_terminal()) => {
            match new.state.as_str() {
                "succeeded" => ("run.succeeded", *at),
                "failed" => ("run.failed", *at),
                _ => ("run.canceled", *at),
            }
        }
        _ => return,
    };
    let id = new.id.to_string();
    note(state, &new.workspace, kind, &id, new.generation, at);
}

/// A session was written; `old` is what it was before.
pub(super) fn note_session(state: &mut State, old: Option<&Session>, new: &Session) {
    let id = new.id.to_string();
    if old.is_none() {
        let at = new.created_at;
        note(state, &new.workspace, "session.created", &id, 1, at);
    }
    let ended = |session: &Session| match &session.state {
        SessionState::Active => None,
        SessionState::Ended { at, .. } => Some(*at),
    };
    if let (None, Some(at)) = (old.and_then(ended), ended(new)) {
        note(state, &new.workspace, "session.ended", &id, 2, at);
    }
}

/// The log of a sandbox has a new entry.
pub(super) fn note_sandbox(
    state: &mut State,
    id: &SandboxId,
    kind: &str,
    place: u64,
    at: Timestamp,
) {
    let workspace = state.sandboxes.get(id).map(|one| one.workspace.clone());
    if let Some(workspace) = workspace.filter(|_| SANDBOX_KINDS.contains(&kind)) {
        note(state, &workspace, kind, id.as_str(), place, at);
    }
}

impl State {
    /// Removes a workspace's budget with all around it; says whether there was one.
    pub(super) fn forget_money(&mut self, workspace: &WorkspaceId) -> bool {
        let money = &mut self.money;
        money
            .reservations
            .retain(|_, one| one.workspace != *workspace);
        money.alerts.retain(|(of, ..), _| of != workspace);
        let of = money
            .meters
            .values()
            .filter(|one| one.workspace == *workspace);
        money.unmetered.extend(of.map(|one| one.sandbox.clone()));
        money
            .meters
            .retain(|_, meter| meter.workspace != *workspace);
        money.budgets.remove(workspace).is_some()
    }
}
