//! The one task that tells webhooks. What is to be told is in the store: a crash between a try and
//! its record makes one more try, which has the same id.
//!
//! Deliveries of one webhook are tried one at a time, in the order in which they were recorded. One
//! that fails is tried again later and does not hold up those behind it.

use std::collections::HashSet;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use woodfrog_core::webhook::{self, Outcome};
use woodfrog_store::StoreError;
use woodfrog_types::webhook::{Attempt, Delivery, WebhookState};
use woodfrog_types::{Fault, Timestamp, WebhookId};

use crate::webhooks::Webhooks;
use crate::{fault, news};

/// Webhooks that are told at the same time.
const AT_ONCE: usize = 32;
/// Webhooks with something due that one look goes through.
const LANES: usize = 1_000;
/// Events that go from what happened to deliveries in one step.
const FAN_OUT: usize = 500;
/// The longest time without a look.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Between a failure of the store and the next look.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of one body.
const BODY_BYTES_MAX: usize = 256 << 10;
/// Characters of a recorded error.
const ERROR_CHARS_MAX: usize = 500;
/// How long what ended is shown.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Looks between two sweeps of what is old.
const SWEEP: u32 = 600;
/// Deliveries that one sweep forgets.
const SWEEP_BATCH: usize = 10_000;

/// Tells webhooks.
pub struct Dispatcher {
    webhooks: Webhooks,
}

impl Dispatcher {
    pub fn new(webhooks: Webhooks) -> Self {
        Self { webhooks }
    }

    /// Runs until `stop`. Tries that are under way then are cut and made again by the next server.
    pub async fn watch(&self, stop: &CancellationToken) {
        let mut tries: JoinSet<WebhookId> = JoinSet::new();
        let mut busy = HashSet::new();
        let mut looks = 0_u32;
        loop {
            if let Err(error) = self.look(&mut tries, &mut busy).await {
                tracing::warn!(%error, "webhooks cannot be told");
                tokio::time::sleep(PAUSE).await;
            }
            looks = looks.wrapping_add(1);
            if looks % SWEEP == 1 {
                self.sweep(Timestamp::now()).await;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.webhooks.news.notified() => {}
                Some(done) = tries.join_next() => {
                    match done {
                        Ok(id) => drop(busy.remove(&id)),
                        Err(error) => {
                            tracing::error!(%error, "a try of a webhook panicked");
                            busy.clear();
                        }
                    }
                }
                () = tokio::time::sleep(LOOK_MAX) => {}
            }
        }
    }

    async fn look(
        &self,
        tries: &mut JoinSet<WebhookId>,
        busy: &mut HashSet<WebhookId>,
    ) -> Result<(), Fault> {
        let store = &self.webhooks.store;
        while news::pass_on(&**store, FAN_OUT).await? == FAN_OUT {}
        if busy.len() >= AT_ONCE {
            return Ok(());
        }
        let due = store.delivery_lanes(Timestamp::now(), LANES).await;
        for delivery in due.map_err(fault::store)? {
            if busy.len() >= AT_ONCE || !busy.insert(delivery.webhook.clone()) {
                continue;
            }
            let webhooks = self.webhooks.clone();
            tries.spawn(async move {
                let id = delivery.webhook.clone();
                if let Err(error) = attempt(&webhooks, delivery).await {
                    tracing::warn!(webhook = %id, %error, "a try of a webhook is not recorded");
                    tokio::time::sleep(PAUSE).await;
                }
                id
            });
        }
        Ok(())
    }

    async fn sweep(&self, now: Timestamp) {
        let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(now.as_millis().saturating_sub(kept));
        let store = &self.webhooks.store;
        if let Err(error) = store.delivery_trim(before, SWEEP_BATCH).await {
            tracing::warn!(%error, "old deliveries cannot be forgotten");
        }
    }
}

/// One try, and its record.
async fn attempt(webhooks: &Webhooks, mut delivery: Delivery) -> Result<(), Fault> {
    let store = &webhooks.store;
    let found = store.webhook_fetch(&delivery.webhook).await;
    let Some(target) = found.map_err(fault::store)? else {
        // It was removed, and its deliveries with it.
        return Ok(());
    };
    let answer = match target.state {
        WebhookState::Enabled { .. } => {
            let secret = webhooks.secret(&target)?;
            let at = Timestamp::now();
            let id = delivery.event.id.clone();
            match body(&delivery) {
                Some(body) => {
                    let headers = [
                        ("webhook-id", id.clone()),
                        ("webhook-timestamp", at.as_secs().to_string()),
                        (
                            "webhook-signature",
                            webhook::sign(&secret, &id, at, body.as_bytes()),
                        ),
                    ];
                    webhooks.poster.post(&target.url, headers, body).await
                }
                None => Err(format!("the body would be over {BODY_BYTES_MAX} bytes")),
            }
        }
        WebhookState::Disabled { .. } => Err("the webhook is disabled".to_owned()),
    };
    let now = Timestamp::now();
    delivery.attempts += 1;
    let success = matches!(answer, Ok(200..=299));
    // As it is now: another try, or its owner, may have changed it meanwhile.
    let found = store.webhook_fetch(&delivery.webhook).await;
    let state = found
        .map_err(fault::store)?
        .map_or(target.state, |now| now.state);
    let Outcome {
        delivery: next,
        webhook,
    } = webhook::tried(state, delivery.attempts, success, now);
    delivery.state = next;
    delivery.last = Some(record(answer, now));
    if let (WebhookState::Enabled { .. }, WebhookState::Disabled { .. }) = (state, webhook) {
        tracing::warn!(webhook = %delivery.webhook, "a webhook failed for too long and is disabled");
    }
    match store.delivery_tried(&delivery, webhook).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(fault::store(error)),
    }
}

fn record(answer: Result<u16, String>, at: Timestamp) -> Attempt {
    match answer {
        Ok(status) => Attempt {
            at,
            status: Some(status),
            error: (!(200..300).contains(&status)).then(|| format!("answered {status}")),
        },
        Err(error) => Attempt {
            at,
            status: None,
            error: Some(error.chars().take(ERROR_CHARS_MAX).collect()),
        },
    }
}

/// `None` if it is too large.
fn body(delivery: &Delivery) -> Option<String> {
    let event = &delivery.event;
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let body = format!(
        r#"{{"id":{},"type":{},"timestamp":{},"workspace":{},"data":{}}}"#,
        text(&event.id),
        text(&event.kind),
        text(&event.at.to_rfc3339()),
        text(event.workspace.as_str()),
        event.data,
    );
    (body.len() <= BODY_BYTES_MAX).then_some(body)
}
