//! API keys: for principals with the admin scope.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::NewKey;
use woodfrog_types::key::Principal;
use woodfrog_types::{Code, Fault, Timestamp, WorkspaceId};
use woodfrog_wire::native::key::{CreatedKey, Keys, NewKey as NewKeyBody};
use woodfrog_wire::native::problem::Problem;

use super::extract::{Json as Body, Segments};
use super::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(revoke))
}

/// All keys.
#[utoipa::path(
    get, path = "/keys", operation_id = "key_list", tag = "keys",
    responses((status = 200, body = Keys), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Keys>> {
    let keys = app.engine.key_list(&principal).await?;
    let items = keys.into_iter().map(Into::into).collect();
    Ok(Json(Keys { items }))
}

/// Makes a key. The reply is the only one that has its secret.
#[utoipa::path(
    post, path = "/keys", operation_id = "key_create", tag = "keys", request_body = NewKeyBody,
    responses((status = 201, body = CreatedKey), (status = "default", body = Problem))
)]
async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(request): Body<NewKeyBody>,
) -> Result<(StatusCode, Json<CreatedKey>)> {
    let workspace = match request.workspace {
        None => WorkspaceId::default_workspace(),
        Some(id) => id
            .parse()
            .map_err(|_| Fault::invalid("workspace", "workspace is not a workspace id"))?,
    };
    let wanted = NewKey {
        name: request.name,
        workspace,
        scope: request.scope.into(),
        expires_at: request.expires_at.map(Timestamp::from_millis),
    };
    let made = app.engine.key_create(&principal, wanted).await?;
    let reply = CreatedKey::new(made.key, &made.secret_hex);
    Ok((StatusCode::CREATED, Json(reply)))
}

/// Revokes a key; requests with it fail from now on.
#[utoipa::path(
    delete, path = "/keys/{id}", operation_id = "key_revoke", tag = "keys",
    params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn revoke(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
) -> Result<StatusCode> {
    let id = id
        .parse()
        .map_err(|_| Fault::new(Code::KeyNotFound, "no such key"))?;
    app.engine.key_revoke(&principal, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
