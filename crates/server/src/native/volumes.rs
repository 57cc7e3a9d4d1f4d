//! Volumes. Their content is at E2B's routes, see [`crate::e2b`].

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::VolumeView;
use woodfrog_types::key::Principal;
use woodfrog_wire::native::page::{Page, PageQuery};
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::volume::{NewVolume, Volume};

use super::extract::{Json as Body, Params, Segments};
use super::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(fetch, delete))
}

/// Volumes of the workspace, by name.
#[utoipa::path(
    get, path = "/volumes", operation_id = "volume_list", tag = "volumes",
    params(PageQuery),
    responses((status = 200, body = Page<Volume>), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<Volume>>> {
    let page = query.request()?;
    let page = app.engine.volume_page(&principal, &page).await?;
    Ok(Json(Page {
        items: page.items.into_iter().map(reply).collect(),
        next: page.next,
    }))
}

/// Makes a volume.
#[utoipa::path(
    post, path = "/volumes", operation_id = "volume_create", tag = "volumes",
    request_body = NewVolume,
    responses((status = 201, body = Volume), (status = "default", body = Problem))
)]
async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(request): Body<NewVolume>,
) -> Result<(StatusCode, Json<Volume>)> {
    let made = app
        .engine
        .volume_create(&principal, &request.name, request.size_bytes)
        .await?;
    Ok((StatusCode::CREATED, Json(reply(made))))
}

/// One volume, by id or name.
#[utoipa::path(
    get, path = "/volumes/{volume}", operation_id = "volume_fetch", tag = "volumes",
    params(("volume" = String, Path)),
    responses((status = 200, body = Volume), (status = "default", body = Problem))
)]
async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(reference): Segments<String>,
) -> Result<Json<Volume>> {
    let found = app.engine.volume_find(&principal, &reference).await?;
    Ok(Json(reply(found)))
}

/// Removes a volume with its files; refused while a sandbox, awake or asleep, has it.
#[utoipa::path(
    delete, path = "/volumes/{volume}", operation_id = "volume_delete", tag = "volumes",
    params(("volume" = String, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(reference): Segments<String>,
) -> Result<StatusCode> {
    let found = app.engine.volume_find(&principal, &reference).await?;
    app.engine
        .volume_delete(&principal, &found.volume.id)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn reply(view: VolumeView) -> Volume {
    Volume {
        used_bytes: view.used,
        ..Volume::from(view.volume).with_token(view.token)
    }
}
