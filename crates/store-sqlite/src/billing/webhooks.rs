//! Webhooks, and what is on its way to them.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{Replay, Result, StoreError, WebhookStore, moment};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::webhook::{Delivery, Happening, Webhook, WebhookEvent, WebhookState};
use woodfrog_types::{Timestamp, WebhookId, WorkspaceId};

use crate::SqliteStore;
use crate::reader::{all, first};
use crate::stored::{
    delivery_from_row, happening_from_row, time_column_opt, to_json, to_sql_int, webhook_from_row,
    webhook_state_columns,
};
use crate::writer::change;

const WEBHOOK: &str = "webhook";
const DELIVERY: &str = "delivery";
const HAPPENING: &str = "happening";
const LANES: &str = "SELECT * FROM webhook_deliveries WHERE number IN \
     (SELECT MIN(number) FROM webhook_deliveries WHERE state = 'pending' AND moment <= ?1 \
     GROUP BY webhook) ORDER BY number LIMIT ?2";

#[async_trait]
impl WebhookStore for SqliteStore {
    async fn webhook_insert(&self, webhook: &Webhook) -> Result<()> {
        if webhook.generation != 1 {
            return Err(StoreError::Conflict { what: WEBHOOK });
        }
        let webhook = webhook.clone();
        self.write(move |conn| {
            let (failing, disabled) = webhook_state_columns(webhook.state);
            let sql = "INSERT INTO webhooks (id, workspace, url, description, events, secret, \
                       failing_since, disabled_since, generation, created_at) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9)";
            let params = params![
                webhook.id.as_str(),
                webhook.workspace.as_str(),
                webhook.url,
                webhook.description,
                to_json(WEBHOOK, &webhook.events)?,
                webhook.secret.0,
                failing,
                disabled,
                webhook.created_at.as_millis(),
            ];
            change(conn, WEBHOOK, sql, params).map(drop)
        })
        .await
    }

    async fn webhook_update(&self, webhook: &Webhook) -> Result<()> {
        let webhook = webhook.clone();
        self.write(move |conn| update(conn, &webhook)).await
    }

    async fn webhook_remove(&self, id: &WebhookId) -> Result<bool> {
        let id = id.clone();
        self.write(move |conn| {
            let sql = "DELETE FROM webhook_deliveries WHERE webhook = ?1";
            change(conn, DELIVERY, sql, [id.as_str()])?;
            let sql = "DELETE FROM webhooks WHERE id = ?1";
            Ok(change(conn, WEBHOOK, sql, [id.as_str()])? > 0)
        })
        .await
    }

    async fn webhook_fetch(&self, id: &WebhookId) -> Result<Option<Webhook>> {
        let id = id.clone();
        self.read(move |conn| fetch(conn, &id)).await
    }

    async fn webhook_list(&self, workspace: &WorkspaceId) -> Result<Vec<Webhook>> {
        let workspace = workspace.clone();
        self.read(move |conn| list(conn, &workspace)).await
    }

    async fn webhook_publish(&self, events: Vec<WebhookEvent>) -> Result<u64> {
        self.write(move |conn| publish(conn, &events)).await
    }

    async fn delivery_due(&self, now: Timestamp, limit: usize) -> Result<Vec<Delivery>> {
        self.read(move |conn| {
            let sql = "SELECT * FROM webhook_deliveries WHERE state = 'pending' AND moment <= ?1 \
                       ORDER BY number LIMIT ?2";
            let params = params![now.as_millis(), to_sql_int(limit)];
            all(conn, DELIVERY, sql, params, delivery_from_row)
        })
        .await
    }

    async fn delivery_lanes(&self, now: Timestamp, limit: usize) -> Result<Vec<Delivery>> {
        self.read(move |conn| {
            let params = params![now.as_millis(), to_sql_int(limit)];
            all(conn, DELIVERY, LANES, params, delivery_from_row)
        })
        .await
    }

    async fn happening_list(&self, limit: usize) -> Result<Vec<Happening>> {
        self.read(move |conn| {
            let sql = "SELECT * FROM happenings ORDER BY number LIMIT ?1";
            all(
                conn,
                HAPPENING,
                sql,
                [to_sql_int(limit)],
                happening_from_row,
            )
        })
        .await
    }

    async fn happening_publish(&self, numbers: Vec<u64>, events: Vec<WebhookEvent>) -> Result<u64> {
        self.write(move |conn| {
            for number in numbers {
                let sql = "DELETE FROM happenings WHERE number = ?1";
                change(conn, HAPPENING, sql, [to_sql_int(number)])?;
            }
            publish(conn, &events)
        })
        .await
    }

    async fn delivery_next(&self) -> Result<Option<Timestamp>> {
        self.read(|conn| {
            let sql = "SELECT MIN(moment) AS due FROM webhook_deliveries WHERE state = 'pending'";
            let due = first(conn, DELIVERY, sql, [], |row| {
                time_column_opt(row, DELIVERY, "due")
            })?;
            Ok(due.flatten())
        })
        .await
    }

    async fn delivery_tried(&self, delivery: &Delivery, webhook: WebhookState) -> Result<()> {
        let delivery = delivery.clone();
        self.write(move |conn| tried(conn, &delivery, webhook))
            .await
    }

    async fn delivery_list(
        &self,
        webhook: &WebhookId,
        state: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<Delivery>> {
        let cursor = page.cursor.as_deref();
        let before = cursor.map(|cursor| cursor::decode_time(List::Deliveries, cursor));
        let before = before.transpose()?.map_or(i64::MAX, |(number, _)| number);
        let limit = cursor::page_items(page);
        let (webhook, state) = (webhook.clone(), state.map(str::to_owned));
        self.read(move |conn| {
            let sql = "SELECT * FROM webhook_deliveries WHERE webhook = ?1 AND number < ?2 \
                       AND (?3 IS NULL OR state = ?3) ORDER BY number DESC LIMIT ?4";
            let params = params![webhook.as_str(), before, state, to_sql_int(limit + 1)];
            let mut items = all(conn, DELIVERY, sql, params, delivery_from_row)?;
            let more = items.len() > limit;
            items.truncate(limit);
            let next = items.last().filter(|_| more).map(|last: &Delivery| {
                cursor::encode(List::Deliveries, &last.number.to_string(), "")
            });
            Ok(Page { items, next })
        })
        .await
    }

    async fn delivery_replay(
        &self,
        webhook: &WebhookId,
        which: Replay,
        due: Timestamp,
    ) -> Result<u64> {
        let webhook = webhook.clone();
        self.write(move |conn| {
            let (clause, value) = match which {
                Replay::One(number) => ("number = ?3", to_sql_int(number)),
                Replay::FailedSince(since) => ("state = 'failed' AND at >= ?3", since.as_millis()),
            };
            let sql = format!(
                "UPDATE webhook_deliveries SET state = 'pending', moment = ?2, attempts = 0 \
                 WHERE webhook = ?1 AND {clause}"
            );
            let params = params![webhook.as_str(), due.as_millis(), value];
            let count = change(conn, DELIVERY, &sql, params)?;
            Ok(u64::try_from(count).unwrap_or(u64::MAX))
        })
        .await
    }

    async fn delivery_trim(&self, before: Timestamp, limit: usize) -> Result<u64> {
        self.write(move |conn| {
            let sql = "DELETE FROM webhook_deliveries WHERE number IN \
                       (SELECT number FROM webhook_deliveries \
                       WHERE state != 'pending' AND moment < ?1 ORDER BY moment, number LIMIT ?2)";
            let params = params![before.as_millis(), to_sql_int(limit)];
            let count = change(conn, DELIVERY, sql, params)?;
            Ok(u64::try_from(count).unwrap_or(u64::MAX))
        })
        .await
    }
}

fn fetch(conn: &Connection, id: &WebhookId) -> Result<Option<Webhook>> {
    let sql = "SELECT * FROM webhooks WHERE id = ?1";
    first(conn, WEBHOOK, sql, [id.as_str()], webhook_from_row)
}

fn list(conn: &Connection, workspace: &WorkspaceId) -> Result<Vec<Webhook>> {
    let sql = "SELECT * FROM webhooks WHERE workspace = ?1 ORDER BY id";
    all(conn, WEBHOOK, sql, [workspace.as_str()], webhook_from_row)
}

fn update(conn: &Connection, webhook: &Webhook) -> Result<()> {
    let (failing, disabled) = webhook_state_columns(webhook.state);
    let sql = "UPDATE webhooks SET url = ?2, description = ?3, events = ?4, secret = ?5, \
               failing_since = ?6, disabled_since = ?7, generation = ?8 \
               WHERE id = ?1 AND generation = ?8 - 1";
    let params = params![
        webhook.id.as_str(),
        webhook.url,
        webhook.description,
        to_json(WEBHOOK, &webhook.events)?,
        webhook.secret.0,
        failing,
        disabled,
        to_sql_int(webhook.generation),
    ];
    if change(conn, WEBHOOK, sql, params)? > 0 {
        return Ok(());
    }
    match fetch(conn, &webhook.id)? {
        Some(_) => Err(StoreError::Conflict { what: WEBHOOK }),
        None => Err(StoreError::NotFound { what: WEBHOOK }),
    }
}

/// Records deliveries in the caller's transaction; returns how many are new.
pub(crate) fn publish(conn: &Connection, events: &[WebhookEvent]) -> Result<u64> {
    let mut new = 0;
    for event in events {
        for webhook in list(conn, &event.workspace)? {
            let enabled = matches!(webhook.state, WebhookState::Enabled { .. });
            if !enabled || !webhook.wants(&event.kind) {
                continue;
            }
            let sql = "INSERT INTO webhook_deliveries \
                       (webhook, event, workspace, kind, at, data, state, moment, attempts) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'pending', ?5, 0) ON CONFLICT DO NOTHING";
            let params = params![
                webhook.id.as_str(),
                event.id,
                event.workspace.as_str(),
                event.kind,
                event.at.as_millis(),
                event.data,
            ];
            new += u64::try_from(change(conn, DELIVERY, sql, params)?).unwrap_or(0);
        }
    }
    Ok(new)
}

fn tried(conn: &Connection, delivery: &Delivery, webhook: WebhookState) -> Result<()> {
    let last = delivery.last.as_ref();
    let sql = "UPDATE webhook_deliveries SET state = ?2, moment = ?3, attempts = ?4, \
               last_at = ?5, last_status = ?6, last_error = ?7 WHERE number = ?1";
    let params = params![
        to_sql_int(delivery.number),
        delivery.state.as_str(),
        moment(delivery.state).as_millis(),
        delivery.attempts,
        last.map(|last| last.at.as_millis()),
        last.and_then(|last| last.status),
        last.and_then(|last| last.error.as_deref()),
    ];
    if change(conn, DELIVERY, sql, params)? == 0 {
        return Err(StoreError::NotFound { what: DELIVERY });
    }
    let (failing, disabled) = webhook_state_columns(webhook);
    let sql = "UPDATE webhooks SET failing_since = ?2, disabled_since = ?3 WHERE id = ?1";
    let id = delivery.webhook.as_str();
    change(conn, WEBHOOK, sql, params![id, failing, disabled])?;
    if let WebhookState::Disabled { since } = webhook {
        let sql = "UPDATE webhook_deliveries SET state = 'failed', moment = ?2 \
                   WHERE webhook = ?1 AND state = 'pending'";
        change(conn, DELIVERY, sql, params![id, since.as_millis()])?;
    }
    Ok(())
}
