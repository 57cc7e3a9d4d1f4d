//! Resource use.

use axum::extract::State;
use axum::{Extension, Json};
use woodfrog_types::key::Principal;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::{Fault, SandboxId, Timestamp};
use woodfrog_wire::e2b::metrics::{SandboxMetric, SandboxesWithMetrics};

use super::error::Result;
use super::extract::{InPath, Params, sandbox_id};
use super::routes::Routes;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/sandboxes/{id}/metrics", one)
        .get("/sandboxes/metrics", many)
}

async fn one(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    params: Params,
) -> Result<Json<Vec<SandboxMetric>>> {
    let at = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
    let from = params.parse("start")?.map(at);
    let to = params.parse("end")?.map(at);
    let samples = app
        .engine
        .sandbox_metrics(&principal, &id, from, to)
        .await?;
    Ok(Json(samples.into_iter().map(Into::into).collect()))
}

async fn many(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    params: Params,
) -> Result<Json<SandboxesWithMetrics>> {
    let names = params.items("sandbox_ids");
    if names.is_empty() || names.len() > PAGE_ITEMS_MAX {
        let message = format!("sandbox_ids must name 1 to {PAGE_ITEMS_MAX} sandboxes");
        return Err(Fault::invalid("sandbox_ids", message).into());
    }
    // Unknown ones are left out of the answer, so are those that cannot be ids.
    let ids: Vec<SandboxId> = names
        .iter()
        .filter_map(|name| sandbox_id(name).ok())
        .collect();
    let samples = app.engine.sandbox_metrics_latest(&principal, &ids).await?;
    let sandboxes = samples
        .into_iter()
        .map(|(id, sample)| (id.to_string(), sample.into()))
        .collect();
    Ok(Json(SandboxesWithMetrics { sandboxes }))
}
