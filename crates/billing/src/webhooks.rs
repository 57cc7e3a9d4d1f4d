//! Webhooks as their owners manage them.

use std::sync::Arc;

use tokio::sync::Notify;
use woodfrog_core::webhook;
use woodfrog_engine::Engine;
use woodfrog_store::{Replay, Store};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::webhook::{Delivery, Webhook, WebhookEvent, WebhookState};
use woodfrog_types::{Code, Fault, Timestamp, WebhookId, WorkspaceId};

use crate::client::{Poster, Reach, check_url};
use crate::fault;

/// An address to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewWebhook {
    pub url: String,
    pub description: String,
    /// Empty: all events.
    pub events: Vec<String>,
}

/// What changes; `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookChange {
    pub url: Option<String>,
    pub description: Option<String>,
    pub events: Option<Vec<String>>,
    /// `true` also forgets how long it failed.
    pub enabled: Option<bool>,
}

/// A new webhook: the only time its secret is seen.
#[derive(Clone)]
pub struct CreatedWebhook {
    pub webhook: Webhook,
    /// `whsec_` and base64.
    pub secret: String,
}

/// All webhooks. A cheap clone.
#[derive(Clone)]
pub struct Webhooks {
    engine: Engine,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) poster: Poster,
    reach: Reach,
    pub(crate) news: Arc<Notify>,
}

impl Webhooks {
    pub fn new(engine: Engine, reach: Reach) -> Self {
        Self {
            store: engine.store(),
            engine,
            poster: Poster::new(reach),
            reach,
            news: Arc::default(),
        }
    }

    /// Adds one. Events from now on are told.
    pub async fn create(
        &self,
        workspace: &WorkspaceId,
        new: NewWebhook,
    ) -> Result<CreatedWebhook, Fault> {
        check_url(&new.url, self.reach)?;
        check_description(&new.description)?;
        webhook::validate_kinds(&new.events)?;
        let there = self.list(workspace).await?.len();
        if there >= webhook::WEBHOOKS_MAX {
            let text = format!("a workspace has at most {} webhooks", webhook::WEBHOOKS_MAX);
            return Err(Fault::new(Code::QuotaExceeded, text));
        }
        let mut secret = [0; webhook::SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(|error| Fault::internal(error.to_string()))?;
        let id = WebhookId::generate();
        let webhook = Webhook {
            secret: self.engine.seal(id.as_str(), &secret)?,
            id,
            workspace: workspace.clone(),
            url: new.url,
            description: new.description,
            events: new.events,
            state: WebhookState::Enabled {
                failing_since: None,
            },
            generation: 1,
            created_at: Timestamp::now(),
        };
        let stored = self.store.webhook_insert(&webhook).await;
        stored.map_err(fault::store)?;
        Ok(CreatedWebhook {
            webhook,
            secret: webhook::show_secret(&secret),
        })
    }

    /// The workspace's, oldest first.
    pub async fn list(&self, workspace: &WorkspaceId) -> Result<Vec<Webhook>, Fault> {
        let listed = self.store.webhook_list(workspace).await;
        listed.map_err(fault::store)
    }

    /// One of the workspace's.
    pub async fn fetch(&self, workspace: &WorkspaceId, id: &str) -> Result<Webhook, Fault> {
        let missing = || Fault::new(Code::WebhookNotFound, "there is no such webhook");
        let id: WebhookId = id.parse().map_err(|_| missing())?;
        let found = self.store.webhook_fetch(&id).await.map_err(fault::store)?;
        found
            .filter(|webhook| webhook.workspace == *workspace)
            .ok_or_else(missing)
    }

    /// Changes one; what is on its way already goes to the new address.
    pub async fn update(
        &self,
        workspace: &WorkspaceId,
        id: &str,
        change: WebhookChange,
    ) -> Result<Webhook, Fault> {
        let mut webhook = self.fetch(workspace, id).await?;
        if let Some(url) = change.url {
            check_url(&url, self.reach)?;
            webhook.url = url;
        }
        if let Some(description) = change.description {
            check_description(&description)?;
            webhook.description = description;
        }
        if let Some(events) = change.events {
            webhook::validate_kinds(&events)?;
            webhook.events = events;
        }
        match change.enabled {
            None => {}
            Some(true) => {
                webhook.state = WebhookState::Enabled {
                    failing_since: None,
                };
            }
            Some(false) => {
                let since = Timestamp::now();
                webhook.state = WebhookState::Disabled { since };
            }
        }
        webhook.generation += 1;
        let stored = self.store.webhook_update(&webhook).await;
        stored.map_err(fault::store)?;
        Ok(webhook)
    }

    /// Removes one, and what is on its way to it.
    pub async fn delete(&self, workspace: &WorkspaceId, id: &str) -> Result<(), Fault> {
        let webhook = self.fetch(workspace, id).await?;
        let removed = self.store.webhook_remove(&webhook.id).await;
        removed.map(drop).map_err(fault::store)
    }

    /// What was and is to be told to one, the last first; of one state if it is named.
    pub async fn deliveries(
        &self,
        workspace: &WorkspaceId,
        id: &str,
        state: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<Delivery>, Fault> {
        let webhook = self.fetch(workspace, id).await?;
        if state.is_some_and(|state| !["pending", "delivered", "failed"].contains(&state)) {
            let text = "state is `pending`, `delivered` or `failed`";
            return Err(Fault::invalid("state", text));
        }
        let listed = self.store.delivery_list(&webhook.id, state, page).await;
        listed.map_err(fault::store)
    }

    /// Has deliveries tried again; returns how many.
    pub async fn replay(
        &self,
        workspace: &WorkspaceId,
        id: &str,
        which: Replay,
    ) -> Result<u64, Fault> {
        let webhook = self.fetch(workspace, id).await?;
        if let WebhookState::Disabled { .. } = webhook.state {
            let text = "the webhook is disabled: enable it first";
            return Err(Fault::new(Code::Conflict, text));
        }
        let now = Timestamp::now();
        let replayed = self.store.delivery_replay(&webhook.id, which, now).await;
        let count = replayed.map_err(fault::store)?;
        if count == 0 && matches!(which, Replay::One(_)) {
            return Err(Fault::new(
                Code::NotFound,
                "the webhook has no such delivery",
            ));
        }
        self.news.notify_one();
        Ok(count)
    }

    /// Tells of events, each once per webhook however often it is published.
    pub async fn publish(&self, events: Vec<WebhookEvent>) -> Result<u64, Fault> {
        let published = self.store.webhook_publish(events).await;
        let new = published.map_err(fault::store)?;
        if new > 0 {
            self.news.notify_one();
        }
        Ok(new)
    }

    /// What a webhook's deliveries are signed with.
    pub(crate) fn secret(&self, webhook: &Webhook) -> Result<Vec<u8>, Fault> {
        self.engine.unseal(webhook.id.as_str(), &webhook.secret)
    }
}

fn check_description(text: &str) -> Result<(), Fault> {
    let most = webhook::DESCRIPTION_CHARS_MAX;
    if text.chars().count() > most {
        let text = format!("description has at most {most} characters");
        return Err(Fault::invalid("description", text));
    }
    Ok(())
}
