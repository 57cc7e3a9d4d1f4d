//! What a sandbox uses and what happened to it.

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_types::Timestamp;
use woodfrog_types::key::Principal;
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::sandbox::{EventQuery, Events, MetricQuery, Metrics};

use crate::native::extract::{InPath, Params};
use crate::native::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(metrics))
        .routes(routes!(events))
}

/// Resource use, oldest sample first.
#[utoipa::path(
    get, path = "/sandboxes/{id}/metrics", operation_id = "sandbox_metrics", tag = "sandboxes",
    params(("id" = String, Path), MetricQuery),
    responses((status = 200, body = Metrics), (status = "default", body = Problem))
)]
async fn metrics(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Params(query): Params<MetricQuery>,
) -> Result<Json<Metrics>> {
    let from = query.from.map(Timestamp::from_millis);
    let to = query.to.map(Timestamp::from_millis);
    let samples = app
        .engine
        .sandbox_metrics(&principal, &id, from, to)
        .await?;
    let items = samples.into_iter().map(Into::into).collect();
    Ok(Json(Metrics { items }))
}

/// The sandbox's log, oldest entry first.
#[utoipa::path(
    get, path = "/sandboxes/{id}/events", operation_id = "sandbox_events", tag = "sandboxes",
    params(("id" = String, Path), EventQuery),
    responses((status = 200, body = Events), (status = "default", body = Problem))
)]
async fn events(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Params(query): Params<EventQuery>,
) -> Result<Json<Events>> {
    let (after, limit) = (query.after.unwrap_or(0), query.limit()?);
    let events = app
        .engine
        .sandbox_events(&principal, &id, after, limit)
        .await?;
    let items = events.into_iter().map(Into::into).collect();
    Ok(Json(Events { items }))
}
