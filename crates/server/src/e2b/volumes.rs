//! Volumes: made, listed and removed with an API key.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use woodfrog_engine::VolumeView;
use woodfrog_types::key::Principal;
use woodfrog_types::{Code, Fault, VolumeId};
use woodfrog_wire::e2b::volume::{NewVolume, Volume, VolumeAndToken};

use super::error::Result;
use super::extract::{Body, Segment};
use super::routes::Routes;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/volumes", list)
        .post("/volumes", create)
        .get("/volumes/{id}", fetch)
        .delete("/volumes/{id}", delete)
}

/// The volume that the path names; what cannot be an id is a volume that does not exist.
pub(super) fn volume_id(text: &str) -> std::result::Result<VolumeId, Fault> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Fault::new(Code::NotFound, format!("volume '{shown}' not found"))
    })
}

async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Vec<Volume>>> {
    let volumes = app.engine.volume_list(&principal).await?;
    Ok(Json(volumes.into_iter().map(Into::into).collect()))
}

async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(request): Body<NewVolume>,
) -> Result<(StatusCode, Json<VolumeAndToken>)> {
    let made = app
        .engine
        .volume_create(&principal, &request.name, None)
        .await?;
    Ok((StatusCode::CREATED, Json(reply(made))))
}

async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segment(id): Segment,
) -> Result<Json<VolumeAndToken>> {
    let found = app
        .engine
        .volume_fetch(&principal, &volume_id(&id)?)
        .await?;
    Ok(Json(reply(found)))
}

async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segment(id): Segment,
) -> Result<StatusCode> {
    app.engine
        .volume_delete(&principal, &volume_id(&id)?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn reply(view: VolumeView) -> VolumeAndToken {
    VolumeAndToken {
        volume: view.volume.into(),
        token: view.token,
    }
}
