//! Sandbox sessions.

use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::NewSandboxSession as Wanted;
use woodfrog_types::Code;
use woodfrog_types::key::Principal;
use woodfrog_types::sandbox_session::SandboxSessionFilter;
use woodfrog_wire::native::page::{Page, PageQuery};
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::sandbox::{EventQuery, Events};
use woodfrog_wire::native::sandbox_session::{
    NewSandboxSession, SandboxSession, SandboxSessionQuery, StateChange,
};

use super::extract::{Json as Body, Params, Segments};
use super::problem::Result;
use crate::sessions::{caller, record};
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(fetch, delete))
        .routes(routes!(change))
        .routes(routes!(activity))
        .routes(routes!(events))
        .routes(routes!(fetch_of, delete_of))
        .routes(routes!(activity_of))
}

/// Remembers a session of a sandbox and pauses the sandbox after the session's time of idleness.
/// A sandbox has at most one session.
#[utoipa::path(
    post, path = "/sandbox-sessions", operation_id = "sandbox_session_create",
    tag = "sandbox sessions", request_body = NewSandboxSession,
    responses((status = 201, body = SandboxSession), (status = "default", body = Problem))
)]
async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Body(request): Body<NewSandboxSession>,
) -> Result<(StatusCode, Json<SandboxSession>)> {
    let caller = caller(principal, &headers)?;
    let wanted = Wanted {
        sandbox: request.sandbox_id,
        project: request.project_id,
        user: request.user_id,
        framework: request.framework.into(),
        auto_pause: request.auto_pause_timeout.map(Duration::from_millis),
    };
    let made = app.engine.sandbox_session_create(&caller, wanted).await?;
    Ok((StatusCode::CREATED, Json(record(made))))
}

/// Sessions of the workspace, oldest first; of one project, user or state if asked for.
#[utoipa::path(
    get, path = "/sandbox-sessions", operation_id = "sandbox_session_list",
    tag = "sandbox sessions", params(SandboxSessionQuery),
    responses((status = 200, body = Page<SandboxSession>), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Params(query): Params<SandboxSessionQuery>,
) -> Result<Json<Page<SandboxSession>>> {
    let caller = caller(principal, &headers)?;
    let paging = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    };
    let filter = SandboxSessionFilter {
        project: query.project_id,
        user: query.user_id,
        state: query.state.map(Into::into),
    };
    let page = paging.request()?;
    let listed = app.engine.sandbox_session_list(&caller, filter, page);
    Ok(Json(listed.await?.map(record).into()))
}

/// One session.
#[utoipa::path(
    get, path = "/sandbox-sessions/{id}", operation_id = "sandbox_session_fetch",
    tag = "sandbox sessions", params(("id" = String, Path)),
    responses((status = 200, body = SandboxSession), (status = "default", body = Problem))
)]
async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Segments(id): Segments<String>,
) -> Result<Json<SandboxSession>> {
    let caller = caller(principal, &headers)?;
    let view = app.engine.sandbox_session_fetch(&caller, &id).await?;
    Ok(Json(record(view)))
}

/// Forgets a session; its sandbox stays as it is.
#[utoipa::path(
    delete, path = "/sandbox-sessions/{id}", operation_id = "sandbox_session_delete",
    tag = "sandbox sessions", params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Segments(id): Segments<String>,
) -> Result<StatusCode> {
    let caller = caller(principal, &headers)?;
    app.engine.sandbox_session_delete(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Pauses, resumes or ends the session's sandbox; it is done when the reply comes. `KILLED` is
/// final.
#[utoipa::path(
    put, path = "/sandbox-sessions/{id}/state", operation_id = "sandbox_session_state",
    tag = "sandbox sessions", request_body = StateChange, params(("id" = String, Path)),
    responses((status = 200, body = SandboxSession), (status = "default", body = Problem))
)]
async fn change(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Segments(id): Segments<String>,
    Body(request): Body<StateChange>,
) -> Result<Json<SandboxSession>> {
    let caller = caller(principal, &headers)?;
    let state = request.state.into();
    let view = app
        .engine
        .sandbox_session_state(&caller, &id, state)
        .await?;
    Ok(Json(record(view)))
}

/// Says that the session's sandbox is in use; wakes it if it sleeps.
#[utoipa::path(
    post, path = "/sandbox-sessions/{id}/activity", operation_id = "sandbox_session_activity",
    tag = "sandbox sessions", params(("id" = String, Path)),
    responses((status = 200, body = SandboxSession), (status = "default", body = Problem))
)]
async fn activity(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Segments(id): Segments<String>,
) -> Result<Json<SandboxSession>> {
    let caller = caller(principal, &headers)?;
    let view = app.engine.sandbox_session_activity(&caller, &id).await?;
    Ok(Json(record(view)))
}

/// What happened to the session's sandbox, oldest entry first; also after its end, while its log
/// is kept.
#[utoipa::path(
    get, path = "/sandbox-sessions/{id}/events", operation_id = "sandbox_session_events",
    tag = "sandbox sessions", params(("id" = String, Path), EventQuery),
    responses((status = 200, body = Events), (status = "default", body = Problem))
)]
async fn events(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Segments(id): Segments<String>,
    Params(query): Params<EventQuery>,
) -> Result<Json<Events>> {
    let caller = caller(principal, &headers)?;
    let (after, limit) = (query.after.unwrap_or(0), query.limit()?);
    let events = app
        .engine
        .sandbox_session_events(&caller, &id, after, limit);
    let items = events.await?.into_iter().map(Into::into).collect();
    Ok(Json(Events { items }))
}

/// The session that a sandbox has, or had while it was there.
#[utoipa::path(
    get, path = "/sandbox-sessions/by-sandbox/{id}", operation_id = "sandbox_session_of",
    tag = "sandbox sessions", params(("id" = String, Path, description = "The sandbox's id")),
    responses((status = 200, body = SandboxSession), (status = "default", body = Problem))
)]
async fn fetch_of(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Segments(sandbox): Segments<String>,
) -> Result<Json<SandboxSession>> {
    let caller = caller(principal, &headers)?;
    let view = app.engine.sandbox_session_of(&caller, &sandbox).await?;
    Ok(Json(record(view)))
}

/// Forgets the session of a sandbox. That it has none is no error.
#[utoipa::path(
    delete, path = "/sandbox-sessions/by-sandbox/{id}", operation_id = "sandbox_session_delete_of",
    tag = "sandbox sessions", params(("id" = String, Path, description = "The sandbox's id")),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn delete_of(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Segments(sandbox): Segments<String>,
) -> Result<StatusCode> {
    let caller = caller(principal, &headers)?;
    match app
        .engine
        .sandbox_session_delete_of(&caller, &sandbox)
        .await
    {
        Err(none) if none.code == Code::SandboxSessionNotFound => {}
        other => other?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Says that a sandbox that has a session is in use; wakes it if it sleeps.
#[utoipa::path(
    post, path = "/sandbox-sessions/by-sandbox/{id}/activity",
    operation_id = "sandbox_session_activity_of", tag = "sandbox sessions",
    params(("id" = String, Path, description = "The sandbox's id")),
    responses((status = 200, body = SandboxSession), (status = "default", body = Problem))
)]
async fn activity_of(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Segments(sandbox): Segments<String>,
) -> Result<Json<SandboxSession>> {
    let caller = caller(principal, &headers)?;
    let view = app.engine.sandbox_session_activity_of(&caller, &sandbox);
    Ok(Json(record(view.await?)))
}
