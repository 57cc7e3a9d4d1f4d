//! What this server is.

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_types::key::Principal;
use woodfrog_types::limits;
use woodfrog_wire::e2b::ENVD_VERSION;
use woodfrog_wire::native::info::{Info, Limits};
use woodfrog_wire::native::problem::Problem;

use super::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(info))
}

/// Version and limits of the server.
#[utoipa::path(
    get, path = "/info", operation_id = "info", tag = "server",
    responses((status = 200, body = Info), (status = 401, body = Problem))
)]
async fn info(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Info>> {
    Ok(Json(Info {
        name: "woodfrog".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v1".to_owned(),
        domain: app.options.domain.clone(),
        envd_version: ENVD_VERSION.to_owned(),
        workspace: principal.workspace.to_string(),
        sandboxes_running: app.engine.sandbox_count(&principal).await?,
        limits: Limits {
            sandbox_timeout_seconds_max: limits::SANDBOX_TIMEOUT_MAX.as_secs(),
            cpu_count_max: limits::CPU_COUNT_MAX,
            memory_bytes_max: limits::MEMORY_BYTES_MAX,
            json_body_bytes_max: limits::JSON_BODY_BYTES_MAX,
            page_items_max: limits::PAGE_ITEMS_MAX,
        },
    }))
}
