//! Layers that nothing needs.

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_types::key::Principal;
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::template::LayersGone;

use super::super::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(gc))
}

/// Removes from the server's disk the layers that nothing needs, whosever they were.
#[utoipa::path(
    post, path = "/layers/gc", operation_id = "layer_gc", tag = "templates",
    responses((status = 200, body = LayersGone), (status = "default", body = Problem))
)]
async fn gc(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<LayersGone>> {
    let gone = app.engine.layers_collect(&principal).await?;
    Ok(Json(LayersGone {
        layers: gone.layers,
        bytes: gone.bytes,
        cached_bytes: gone.cached_bytes,
    }))
}
