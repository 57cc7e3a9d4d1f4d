//! Secrets: accepted, never given out.

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use woodfrog_engine::SecretValue;
use woodfrog_types::Fault;
use woodfrog_types::key::Principal;
use woodfrog_wire::e2b::secret::{NewSecret, Secret, SecretUpdate};

use super::error::{E2bError, Result};
use super::extract::{Params, Segment, next_token};
use super::routes::Routes;
use crate::input::json_bytes;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/secrets", list)
        .post("/secrets", create)
        .get("/secrets/{id}", fetch)
        .post("/secrets/{id}", update)
        .delete("/secrets/{id}", delete)
}

/// A JSON body of which no part is told back or logged, not even in an error.
struct Silent<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Silent<T> {
    type Rejection = E2bError;

    async fn from_request(request: Request<Body>, _: &S) -> std::result::Result<Self, E2bError> {
        let bytes = json_bytes(request.into_body()).await?;
        match serde_json::from_slice(&bytes) {
            Ok(body) => Ok(Self(body)),
            Err(_) => {
                let text = "the body is not what this route takes: {name, value, metadata?}";
                Err(Fault::invalid("body", text).into())
            }
        }
    }
}

async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    params: Params,
) -> Result<(HeaderMap, Json<Vec<Secret>>)> {
    let page = app.engine.secret_list(&principal, params.page()?).await?;
    let mut headers = HeaderMap::new();
    next_token(&mut headers, page.next.as_deref())?;
    let items = page.items.into_iter().map(Into::into).collect();
    Ok((headers, Json(items)))
}

async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Silent(request): Silent<NewSecret>,
) -> Result<(StatusCode, Json<Secret>)> {
    let metadata = request.metadata.unwrap_or_default();
    let value = SecretValue::new(request.value);
    let made = app
        .engine
        .secret_create(&principal, &request.name, &value, metadata)
        .await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segment(name): Segment,
) -> Result<Json<Secret>> {
    let found = app.engine.secret_fetch(&principal, &name).await?;
    Ok(Json(found.into()))
}

async fn update(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segment(name): Segment,
    Silent(request): Silent<SecretUpdate>,
) -> Result<Json<Secret>> {
    let value = SecretValue::new(request.value);
    let updated = app
        .engine
        .secret_update(&principal, &name, &value, request.metadata)
        .await?;
    Ok(Json(updated.into()))
}

async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segment(name): Segment,
) -> Result<StatusCode> {
    app.engine.secret_delete(&principal, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
