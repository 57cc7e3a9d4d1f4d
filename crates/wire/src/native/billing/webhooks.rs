//! Webhooks and deliveries.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use woodfrog_types::Timestamp;
use woodfrog_types::webhook as domain;

/// An address to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// `http` or `https`, without credentials.
    pub url: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// `run.failed`, `run.*`, `*`; all events if empty.
    #[serde(default)]
    pub events: Vec<String>,
}

/// What changes; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookPatch {
    pub url: Option<String>,
    pub description: Option<String>,
    pub events: Option<Vec<String>>,
    pub enabled: Option<bool>,
}

/// An address that is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Webhook {
    pub id: String,
    pub workspace: String,
    pub url: String,
    pub description: String,
    pub events: Vec<String>,
    pub enabled: bool,
    /// Since when every delivery failed; null if the last one did not.
    pub failing_since: Option<i64>,
    /// Since when it is switched off, by its owner or because it failed for too long.
    pub disabled_since: Option<i64>,
    pub created_at: i64,
}

/// A new webhook. Its secret is shown this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedWebhook {
    #[serde(flatten)]
    pub webhook: Webhook,
    /// `whsec_` and base64: the key of `webhook-signature`, as Standard Webhooks has it.
    pub secret: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Webhooks {
    pub items: Vec<Webhook>,
}

/// One event on its way to one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// Its place in the order in which they were recorded.
    pub number: u64,
    /// `webhook-id`: the same however often it is told.
    pub event_id: String,
    pub event: String,
    pub at: i64,
    /// `pending`, `delivered` or `failed`.
    pub state: String,
    pub attempts: u32,
    /// When it is tried next, if it is pending.
    pub due_at: Option<i64>,
    /// When it was delivered, or failed for the last time.
    pub ended_at: Option<i64>,
    pub last_attempt_at: Option<i64>,
    pub last_status: Option<u16>,
    pub last_error: Option<String>,
}

/// A page of deliveries, the last recorded first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deliveries {
    pub items: Vec<Delivery>,
    pub next_cursor: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeliveryQuery {
    /// `pending`, `delivered` or `failed`.
    pub state: Option<String>,
    /// 1 to 100; 100 if absent.
    pub limit: Option<usize>,
    pub cursor: Option<String>,
}

/// Which deliveries are tried anew: one, or all that failed since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Replay {
    /// A delivery's number.
    Number(u64),
    /// Milliseconds since the epoch.
    FailedSince(i64),
}

/// How many are tried anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    pub count: u64,
}

impl From<domain::Webhook> for Webhook {
    fn from(webhook: domain::Webhook) -> Self {
        let (failing, disabled) = match webhook.state {
            domain::WebhookState::Enabled { failing_since } => (failing_since, None),
            domain::WebhookState::Disabled { since } => (None, Some(since)),
        };
        Self {
            id: webhook.id.to_string(),
            workspace: webhook.workspace.to_string(),
            url: webhook.url,
            description: webhook.description,
            events: webhook.events,
            enabled: disabled.is_none(),
            failing_since: failing.map(Timestamp::as_millis),
            disabled_since: disabled.map(Timestamp::as_millis),
            created_at: webhook.created_at.as_millis(),
        }
    }
}

impl From<domain::Delivery> for Delivery {
    fn from(delivery: domain::Delivery) -> Self {
        let (due, ended) = match delivery.state {
            domain::DeliveryState::Pending { due } => (Some(due), None),
            domain::DeliveryState::Delivered { at } | domain::DeliveryState::Failed { at } => {
                (None, Some(at))
            }
        };
        let last = delivery.last;
        Self {
            number: delivery.number,
            state: delivery.state.as_str().to_owned(),
            event_id: delivery.event.id,
            event: delivery.event.kind,
            at: delivery.event.at.as_millis(),
            attempts: delivery.attempts,
            due_at: due.map(Timestamp::as_millis),
            ended_at: ended.map(Timestamp::as_millis),
            last_attempt_at: last.as_ref().map(|last| last.at.as_millis()),
            last_status: last.as_ref().and_then(|last| last.status),
            last_error: last.and_then(|last| last.error),
        }
    }
}
