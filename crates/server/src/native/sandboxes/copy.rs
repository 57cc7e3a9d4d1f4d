//! Snapshots of a sandbox that goes on, and copies of it.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::{CheckpointRequest, ForkRequest};
use woodfrog_types::key::Principal;
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::sleep::{Checkpoint, Fork, Forked, Forks};
use woodfrog_wire::native::snapshot::Snapshot;

use super::reply;
use crate::native::extract::{InPath, OptionalJson};
use crate::native::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(checkpoint))
        .routes(routes!(fork))
}

/// Takes a snapshot of a sandbox, which goes on as it is (one that sleeps is not woken).
#[utoipa::path(
    post, path = "/sandboxes/{id}/checkpoint", operation_id = "sandbox_checkpoint",
    tag = "snapshots", request_body = Option<Checkpoint>, params(("id" = String, Path)),
    responses((status = 201, body = Snapshot), (status = "default", body = Problem))
)]
async fn checkpoint(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    OptionalJson(request): OptionalJson<Checkpoint>,
) -> Result<(StatusCode, Json<Snapshot>)> {
    let wanted = CheckpointRequest {
        name: request.name,
        content: request.content.into(),
        labels: request.labels,
    };
    let taken = app
        .engine
        .sandbox_checkpoint(&principal, &id, wanted)
        .await?;
    Ok((StatusCode::CREATED, Json(taken.into())))
}

/// Copies a sandbox with its memory, which itself goes on. Each copy has its own id, network and
/// files; each succeeds or fails by itself.
#[utoipa::path(
    post, path = "/sandboxes/{id}/fork", operation_id = "sandbox_fork", tag = "snapshots",
    request_body = Option<Fork>, params(("id" = String, Path)),
    responses((status = 201, body = Forks), (status = "default", body = Problem))
)]
async fn fork(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    OptionalJson(request): OptionalJson<Fork>,
) -> Result<(StatusCode, Json<Forks>)> {
    let wanted = ForkRequest {
        count: request.count()?,
        timeout: request.timeout()?,
    };
    let copies = app.engine.sandbox_fork(&principal, &id, wanted).await?;
    let items = copies.into_iter().map(|copy| match copy {
        Ok(view) => Forked {
            sandbox: Some(reply(view)),
            error: None,
        },
        Err(fault) => {
            crate::input::log(&fault);
            Forked {
                sandbox: None,
                error: Some(Problem::from(&fault)),
            }
        }
    });
    let items = items.collect();
    Ok((StatusCode::CREATED, Json(Forks { items })))
}
