//! Snapshots.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_types::Fault;
use woodfrog_types::key::Principal;
use woodfrog_types::snapshot::SnapshotFilter;
use woodfrog_wire::native::page::{Page, PageQuery};
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::snapshot::{GcReport, SetLabels, Snapshot, SnapshotQuery};

use super::extract::{Json as Body, Params, Segments, pairs, sandbox_id};
use super::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(fetch, delete))
        .routes(routes!(label))
        .routes(routes!(verify))
        .routes(routes!(gc))
}

/// Snapshots of the workspace, newest first.
#[utoipa::path(
    get, path = "/snapshots", operation_id = "snapshot_list", tag = "snapshots",
    params(SnapshotQuery),
    responses((status = 200, body = Page<Snapshot>), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<SnapshotQuery>,
) -> Result<Json<Page<Snapshot>>> {
    let paging = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    };
    let page = paging.request()?;
    let filter = SnapshotFilter {
        source: query.source.as_deref().map(sandbox_id).transpose()?,
        name: query.name,
        labels: pairs("labels", query.labels.as_deref().unwrap_or_default())?,
        internal: query.internal.unwrap_or(false),
    };
    let page = app.engine.snapshot_list(&principal, filter, page).await?;
    Ok(Json(page.into()))
}

/// One snapshot, by id or name.
#[utoipa::path(
    get, path = "/snapshots/{snapshot}", operation_id = "snapshot_fetch", tag = "snapshots",
    params(("snapshot" = String, Path)),
    responses((status = 200, body = Snapshot), (status = "default", body = Problem))
)]
async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(reference): Segments<String>,
) -> Result<Json<Snapshot>> {
    let found = app.engine.snapshot_fetch(&principal, &reference).await?;
    Ok(Json(found.into()))
}

/// Removes a snapshot; refused while a sandbox sleeps in it. What was made from it stays.
#[utoipa::path(
    delete, path = "/snapshots/{snapshot}", operation_id = "snapshot_delete", tag = "snapshots",
    params(("snapshot" = String, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(reference): Segments<String>,
) -> Result<StatusCode> {
    app.engine.snapshot_delete(&principal, &reference).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Labels that one request may change.
const LABELS_MAX: usize = 100;

/// Sets labels, or removes those that are `null`.
#[utoipa::path(
    patch, path = "/snapshots/{snapshot}/labels", operation_id = "snapshot_label",
    tag = "snapshots", request_body = SetLabels, params(("snapshot" = String, Path)),
    responses((status = 200, body = Snapshot), (status = "default", body = Problem))
)]
async fn label(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(reference): Segments<String>,
    Body(request): Body<SetLabels>,
) -> Result<Json<Snapshot>> {
    let labels = request.labels;
    if labels.is_empty() || labels.len() > LABELS_MAX {
        let message = format!("1 to {LABELS_MAX} labels are needed");
        return Err(Fault::invalid("labels", message).into());
    }
    let labeled = app
        .engine
        .snapshot_label(&principal, &reference, labels)
        .await?;
    Ok(Json(labeled.into()))
}

/// Reads a snapshot and compares it with its checksums. One that is not what was written is
/// `damaged` from then on: it is kept, and nothing is made from it.
#[utoipa::path(
    post, path = "/snapshots/{snapshot}/verify", operation_id = "snapshot_verify",
    tag = "snapshots", params(("snapshot" = String, Path)),
    responses((status = 200, body = Snapshot), (status = "default", body = Problem))
)]
async fn verify(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(reference): Segments<String>,
) -> Result<Json<Snapshot>> {
    let checked = app.engine.snapshot_verify(&principal, &reference).await?;
    Ok(Json(checked.into()))
}

/// Removes snapshots that nothing refers to. Needs a key with admin scope.
#[utoipa::path(
    post, path = "/snapshots/gc", operation_id = "snapshot_gc", tag = "snapshots",
    responses((status = 200, body = GcReport), (status = "default", body = Problem))
)]
async fn gc(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<GcReport>> {
    let report = app.engine.snapshot_gc(&principal).await?;
    Ok(Json(GcReport {
        removed: report.removed.iter().map(ToString::to_string).collect(),
        bytes: report.bytes,
        archive_bytes: report.archive_bytes,
    }))
}
