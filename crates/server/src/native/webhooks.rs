//! Webhooks of the workspace.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_core::access::{self, Action};
use woodfrog_types::Timestamp;
use woodfrog_types::key::Principal;
use woodfrog_types::page::PageRequest;
use woodfrog_wire::native::billing::{
    CreatedWebhook, Deliveries, DeliveryQuery, NewWebhook, Replay, Replayed, Webhook, WebhookPatch,
    Webhooks,
};
use woodfrog_wire::native::problem::Problem;

use super::extract::{Json as Body, Params, Segments};
use super::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, remove))
        .routes(routes!(deliveries))
        .routes(routes!(replay))
}

/// The workspace's webhooks, oldest first.
#[utoipa::path(
    get, path = "/webhooks", operation_id = "webhook_list", tag = "webhooks",
    responses((status = 200, body = Webhooks), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Webhooks>> {
    access::check(principal.role, Action::WebhookRead)?;
    let webhooks = app.billing.webhooks.list(&principal.workspace).await?;
    let items = webhooks.into_iter().map(Into::into).collect();
    Ok(Json(Webhooks { items }))
}

/// Adds a webhook. The reply is the only one that has its secret.
#[utoipa::path(
    post, path = "/webhooks", operation_id = "webhook_create", tag = "webhooks",
    request_body = NewWebhook,
    responses((status = 201, body = CreatedWebhook), (status = "default", body = Problem))
)]
async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(new): Body<NewWebhook>,
) -> Result<(StatusCode, Json<CreatedWebhook>)> {
    access::check(principal.role, Action::WebhookWrite)?;
    let new = woodfrog_billing::NewWebhook {
        url: new.url,
        description: new.description,
        events: new.events,
    };
    let made = app
        .billing
        .webhooks
        .create(&principal.workspace, new)
        .await?;
    let reply = CreatedWebhook {
        webhook: made.webhook.into(),
        secret: made.secret,
    };
    Ok((StatusCode::CREATED, Json(reply)))
}

/// One webhook.
#[utoipa::path(
    get, path = "/webhooks/{id}", operation_id = "webhook_show", tag = "webhooks",
    params(("id" = String, Path)),
    responses((status = 200, body = Webhook), (status = "default", body = Problem))
)]
async fn show(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
) -> Result<Json<Webhook>> {
    access::check(principal.role, Action::WebhookRead)?;
    let webhook = app
        .billing
        .webhooks
        .fetch(&principal.workspace, &id)
        .await?;
    Ok(Json(webhook.into()))
}

/// Changes a webhook, or switches it off or on again.
#[utoipa::path(
    patch, path = "/webhooks/{id}", operation_id = "webhook_update", tag = "webhooks",
    params(("id" = String, Path)), request_body = WebhookPatch,
    responses((status = 200, body = Webhook), (status = "default", body = Problem))
)]
async fn update(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Body(patch): Body<WebhookPatch>,
) -> Result<Json<Webhook>> {
    access::check(principal.role, Action::WebhookWrite)?;
    let change = woodfrog_billing::WebhookChange {
        url: patch.url,
        description: patch.description,
        events: patch.events,
        enabled: patch.enabled,
    };
    let webhooks = &app.billing.webhooks;
    let webhook = webhooks.update(&principal.workspace, &id, change).await?;
    Ok(Json(webhook.into()))
}

/// Removes a webhook and what is on its way to it.
#[utoipa::path(
    delete, path = "/webhooks/{id}", operation_id = "webhook_delete", tag = "webhooks",
    params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn remove(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
) -> Result<StatusCode> {
    access::check(principal.role, Action::WebhookWrite)?;
    app.billing
        .webhooks
        .delete(&principal.workspace, &id)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What was and is to be told to a webhook, the last first.
#[utoipa::path(
    get, path = "/webhooks/{id}/deliveries", operation_id = "webhook_deliveries",
    tag = "webhooks", params(("id" = String, Path), DeliveryQuery),
    responses((status = 200, body = Deliveries), (status = "default", body = Problem))
)]
async fn deliveries(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Params(query): Params<DeliveryQuery>,
) -> Result<Json<Deliveries>> {
    access::check(principal.role, Action::WebhookRead)?;
    let page = PageRequest {
        limit: query.limit.unwrap_or(100),
        cursor: query.cursor,
    };
    let webhooks = &app.billing.webhooks;
    let state = query.state.as_deref();
    let listed = webhooks.deliveries(&principal.workspace, &id, state, &page);
    let listed = listed.await?;
    Ok(Json(Deliveries {
        items: listed.items.into_iter().map(Into::into).collect(),
        next_cursor: listed.next,
    }))
}

/// Has deliveries tried again, under the ids that they had.
#[utoipa::path(
    post, path = "/webhooks/{id}/replay", operation_id = "webhook_replay", tag = "webhooks",
    params(("id" = String, Path)), request_body = Replay,
    responses((status = 200, body = Replayed), (status = "default", body = Problem))
)]
async fn replay(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Body(which): Body<Replay>,
) -> Result<Json<Replayed>> {
    access::check(principal.role, Action::WebhookWrite)?;
    let which = match which {
        Replay::Number(number) => woodfrog_billing::Replay::One(number),
        Replay::FailedSince(at) => {
            woodfrog_billing::Replay::FailedSince(Timestamp::from_millis(at))
        }
    };
    let webhooks = &app.billing.webhooks;
    let count = webhooks.replay(&principal.workspace, &id, which).await?;
    Ok(Json(Replayed { count }))
}
