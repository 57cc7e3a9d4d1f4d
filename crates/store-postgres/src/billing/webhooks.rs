//! Webhooks, and what is on its way to them.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{Replay, Result, StoreError, WebhookStore, moment};
use woodfrog_store_rows::{
    delivery_from_row, happening_from_row, time_column_opt, to_json, to_sql_int, webhook_from_row,
    webhook_state_columns,
};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::webhook::{Delivery, Happening, Webhook, WebhookEvent, WebhookState};
use woodfrog_types::{Timestamp, WebhookId, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, all, begin, change, commit, first, generation, refused};
use crate::text::{Text, TextBuf};

const WEBHOOK: &str = "webhook";
const DELIVERY: &str = "delivery";
const HAPPENING: &str = "happening";

#[async_trait]
impl WebhookStore for PostgresStore {
    async fn webhook_insert(&self, webhook: &Webhook) -> Result<()> {
        if webhook.generation != 1 {
            return Err(StoreError::Conflict { what: WEBHOOK });
        }
        let (failing, disabled) = webhook_state_columns(webhook.state);
        let sql = "INSERT INTO webhooks (id, workspace, url, description, events, secret, \
                   failing_since, disabled_since, generation, created_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9)";
        let args: [Arg<'_>; 9] = [
            &webhook.id.as_str(),
            &webhook.workspace.as_str(),
            &Text(&webhook.url),
            &Text(&webhook.description),
            &TextBuf(to_json(WEBHOOK, &webhook.events)?),
            &webhook.secret.0,
            &failing,
            &disabled,
            &webhook.created_at.as_millis(),
        ];
        change(&self.client().await?, WEBHOOK, sql, &args)
            .await
            .map(drop)
    }

    async fn webhook_update(&self, webhook: &Webhook) -> Result<()> {
        let (failing, disabled) = webhook_state_columns(webhook.state);
        let sql = "UPDATE webhooks SET url = $2, description = $3, events = $4, secret = $5, \
                   failing_since = $6, disabled_since = $7, generation = $8::BIGINT \
                   WHERE id = $1 AND generation = $8::BIGINT - 1";
        let args: [Arg<'_>; 8] = [
            &webhook.id.as_str(),
            &Text(&webhook.url),
            &Text(&webhook.description),
            &TextBuf(to_json(WEBHOOK, &webhook.events)?),
            &webhook.secret.0,
            &failing,
            &disabled,
            &generation(WEBHOOK, webhook.generation)?,
        ];
        let client = self.client().await?;
        if change(&client, WEBHOOK, sql, &args).await? > 0 {
            return Ok(());
        }
        let look = "SELECT 1 FROM webhooks WHERE id = $1";
        Err(refused(&client, WEBHOOK, look, webhook.id.as_str()).await)
    }

    async fn webhook_remove(&self, id: &WebhookId) -> Result<bool> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WEBHOOK).await?;
        let args: [Arg<'_>; 1] = [&id.as_str()];
        let sql = "DELETE FROM webhooks WHERE id = $1";
        let there = change(&transaction, WEBHOOK, sql, &args).await? > 0;
        let sql = "DELETE FROM webhook_deliveries WHERE webhook = $1";
        change(&transaction, DELIVERY, sql, &args).await?;
        commit(transaction, WEBHOOK).await?;
        Ok(there)
    }

    async fn webhook_fetch(&self, id: &WebhookId) -> Result<Option<Webhook>> {
        let sql = "SELECT * FROM webhooks WHERE id = $1";
        let args: [Arg<'_>; 1] = [&id.as_str()];
        first(&self.client().await?, WEBHOOK, sql, &args, webhook_from_row).await
    }

    async fn webhook_list(&self, workspace: &WorkspaceId) -> Result<Vec<Webhook>> {
        list(&self.client().await?, workspace).await
    }

    async fn webhook_publish(&self, events: Vec<WebhookEvent>) -> Result<u64> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, DELIVERY).await?;
        let new = publish(&transaction, &events).await?;
        commit(transaction, DELIVERY).await?;
        Ok(new)
    }

    async fn delivery_due(&self, now: Timestamp, limit: usize) -> Result<Vec<Delivery>> {
        let sql = "SELECT * FROM webhook_deliveries WHERE state = 'pending' AND moment <= $1 \
                   ORDER BY number LIMIT $2";
        let args: [Arg<'_>; 2] = [&now.as_millis(), &to_sql_int(limit)];
        all(
            &self.client().await?,
            DELIVERY,
            sql,
            &args,
            delivery_from_row,
        )
        .await
    }

    async fn delivery_lanes(&self, now: Timestamp, limit: usize) -> Result<Vec<Delivery>> {
        let sql = "SELECT * FROM webhook_deliveries WHERE number IN \
                   (SELECT MIN(number) FROM webhook_deliveries \
                   WHERE state = 'pending' AND moment <= $1 GROUP BY webhook) \
                   ORDER BY number LIMIT $2";
        let args: [Arg<'_>; 2] = [&now.as_millis(), &to_sql_int(limit)];
        all(
            &self.client().await?,
            DELIVERY,
            sql,
            &args,
            delivery_from_row,
        )
        .await
    }

    async fn happening_list(&self, limit: usize) -> Result<Vec<Happening>> {
        let sql = "SELECT * FROM happenings ORDER BY number LIMIT $1";
        let args: [Arg<'_>; 1] = [&to_sql_int(limit)];
        all(
            &self.client().await?,
            HAPPENING,
            sql,
            &args,
            happening_from_row,
        )
        .await
    }

    async fn happening_publish(&self, numbers: Vec<u64>, events: Vec<WebhookEvent>) -> Result<u64> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, HAPPENING).await?;
        let numbers: Vec<i64> = numbers.into_iter().map(to_sql_int).collect();
        let sql = "DELETE FROM happenings WHERE number = ANY($1)";
        change(&transaction, HAPPENING, sql, &[&numbers]).await?;
        let new = publish(&transaction, &events).await?;
        commit(transaction, HAPPENING).await?;
        Ok(new)
    }

    async fn delivery_next(&self) -> Result<Option<Timestamp>> {
        let sql = "SELECT MIN(moment) AS due FROM webhook_deliveries WHERE state = 'pending'";
        let due = first(&self.client().await?, DELIVERY, sql, &[], |row| {
            time_column_opt(row, DELIVERY, "due")
        })
        .await?;
        Ok(due.flatten())
    }

    async fn delivery_tried(&self, delivery: &Delivery, webhook: WebhookState) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, DELIVERY).await?;
        tried(&transaction, delivery, webhook).await?;
        commit(transaction, DELIVERY).await
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
        let sql = "SELECT * FROM webhook_deliveries WHERE webhook = $1 AND number < $2 \
                   AND ($3::TEXT IS NULL OR state = $3) ORDER BY number DESC LIMIT $4";
        let args: [Arg<'_>; 4] = [&webhook.as_str(), &before, &state, &to_sql_int(limit + 1)];
        let client = self.client().await?;
        let mut items = all(&client, DELIVERY, sql, &args, delivery_from_row).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more);
        let next = next
            .map(|last: &Delivery| cursor::encode(List::Deliveries, &last.number.to_string(), ""));
        Ok(Page { items, next })
    }

    async fn delivery_replay(
        &self,
        webhook: &WebhookId,
        which: Replay,
        due: Timestamp,
    ) -> Result<u64> {
        let (clause, value) = match which {
            Replay::One(number) => ("number = $3", to_sql_int(number)),
            Replay::FailedSince(since) => ("state = 'failed' AND at >= $3", since.as_millis()),
        };
        let sql = format!(
            "UPDATE webhook_deliveries SET state = 'pending', moment = $2, attempts = 0 \
             WHERE webhook = $1 AND {clause}"
        );
        let args: [Arg<'_>; 3] = [&webhook.as_str(), &due.as_millis(), &value];
        change(&self.client().await?, DELIVERY, &sql, &args).await
    }

    async fn delivery_trim(&self, before: Timestamp, limit: usize) -> Result<u64> {
        let sql = "DELETE FROM webhook_deliveries WHERE number IN \
                   (SELECT number FROM webhook_deliveries \
                   WHERE state != 'pending' AND moment < $1 ORDER BY moment, number LIMIT $2)";
        let args: [Arg<'_>; 2] = [&before.as_millis(), &to_sql_int(limit)];
        change(&self.client().await?, DELIVERY, sql, &args).await
    }
}

async fn list(client: &impl GenericClient, workspace: &WorkspaceId) -> Result<Vec<Webhook>> {
    let sql = "SELECT * FROM webhooks WHERE workspace = $1 ORDER BY id";
    all(
        client,
        WEBHOOK,
        sql,
        &[&workspace.as_str()],
        webhook_from_row,
    )
    .await
}

/// Records deliveries in the caller's transaction; returns how many are new.
pub(crate) async fn publish(client: &impl GenericClient, events: &[WebhookEvent]) -> Result<u64> {
    let mut new = 0;
    for event in events {
        for webhook in list(client, &event.workspace).await? {
            let enabled = matches!(webhook.state, WebhookState::Enabled { .. });
            if !enabled || !webhook.wants(&event.kind) {
                continue;
            }
            let sql = "INSERT INTO webhook_deliveries \
                       (webhook, event, workspace, kind, at, data, state, moment, attempts) \
                       VALUES ($1, $2, $3, $4, $5, $6, 'pending', $5, 0) ON CONFLICT DO NOTHING";
            let args: [Arg<'_>; 6] = [
                &webhook.id.as_str(),
                &Text(&event.id),
                &event.workspace.as_str(),
                &Text(&event.kind),
                &event.at.as_millis(),
                &Text(&event.data),
            ];
            new += change(client, DELIVERY, sql, &args).await?;
        }
    }
    Ok(new)
}

async fn tried(
    client: &impl GenericClient,
    delivery: &Delivery,
    webhook: WebhookState,
) -> Result<()> {
    let last = delivery.last.as_ref();
    let error = last.and_then(|last| last.error.clone()).map(TextBuf);
    let sql = "UPDATE webhook_deliveries SET state = $2, moment = $3, attempts = $4, \
               last_at = $5, last_status = $6, last_error = $7 WHERE number = $1";
    let args: [Arg<'_>; 7] = [
        &to_sql_int(delivery.number),
        &delivery.state.as_str(),
        &moment(delivery.state).as_millis(),
        &i64::from(delivery.attempts),
        &last.map(|last| last.at.as_millis()),
        &last.and_then(|last| last.status).map(i64::from),
        &error,
    ];
    if change(client, DELIVERY, sql, &args).await? == 0 {
        return Err(StoreError::NotFound { what: DELIVERY });
    }
    let (failing, disabled) = webhook_state_columns(webhook);
    let sql = "UPDATE webhooks SET failing_since = $2, disabled_since = $3 WHERE id = $1";
    let id = delivery.webhook.as_str();
    let args: [Arg<'_>; 3] = [&id, &failing, &disabled];
    change(client, WEBHOOK, sql, &args).await?;
    if let WebhookState::Disabled { since } = webhook {
        let sql = "UPDATE webhook_deliveries SET state = 'failed', moment = $2 \
                   WHERE webhook = $1 AND state = 'pending'";
        let args: [Arg<'_>; 2] = [&id, &since.as_millis()];
        change(client, DELIVERY, sql, &args).await?;
    }
    Ok(())
}
