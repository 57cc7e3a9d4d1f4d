//! API keys.

use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::NewKey;
use woodfrog_types::key::Principal;
use woodfrog_types::workspace::{Role, UserId};
use woodfrog_types::{Code, Fault, Timestamp};
use woodfrog_wire::native::key::{CreatedKey, Keys, NewKey as NewKeyBody, Rotation};
use woodfrog_wire::native::problem::Problem;

use super::extract::{Json as Body, OptionalJson, Segments};
use super::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(revoke))
        .routes(routes!(rotate))
}

/// The keys of the workspace; with admin scope, all.
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
        None => principal.workspace.clone(),
        Some(id) => id
            .parse()
            .map_err(|_| Fault::invalid("workspace", "workspace is not a workspace id"))?,
    };
    let wanted = NewKey {
        name: request.name,
        workspace,
        scope: request.scope.into(),
        user: request.user.as_deref().map(user).transpose()?,
        role: request.role.map_or(Role::Member, Into::into),
        reach: request.reach.into(),
        expires_at: request.expires_at.map(Timestamp::from_millis),
    };
    let made = app.engine.key_create(&principal, wanted).await?;
    let reply = CreatedKey::new(made.key, &made.secret_hex);
    Ok((StatusCode::CREATED, Json(reply)))
}

/// Gives a key a new secret; the one before is taken for a while. The reply is the only one that
/// has the new one.
#[utoipa::path(
    post, path = "/keys/{id}/rotate", operation_id = "key_rotate", tag = "keys",
    params(("id" = String, Path)), request_body = Rotation,
    responses((status = 200, body = CreatedKey), (status = "default", body = Problem))
)]
async fn rotate(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    OptionalJson(request): OptionalJson<Rotation>,
) -> Result<Json<CreatedKey>> {
    let id = id
        .parse()
        .map_err(|_| Fault::new(Code::KeyNotFound, "no such key"))?;
    let grace = request.grace_seconds.map_or(GRACE, Duration::from_secs);
    let made = app.engine.key_rotate(&principal, &id, grace).await?;
    Ok(Json(CreatedKey::new(made.key, &made.secret_hex)))
}

/// How long the secret before a rotation is taken if the request does not say.
const GRACE: Duration = Duration::from_secs(24 * 3600);

fn user(name: &str) -> std::result::Result<UserId, Fault> {
    let text = "a user's name has 1 to 100 printable characters";
    UserId::parse(name).ok_or_else(|| Fault::invalid("user", text))
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
