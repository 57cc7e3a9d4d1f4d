//! Making, finding and ending sandboxes.

use axum::extract::State;
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use woodfrog_engine::{CreateSandbox, DeadlineChange, SandboxView};
use woodfrog_types::key::Principal;
use woodfrog_types::sleep::SleepChanges;
use woodfrog_wire::e2b::sandbox::{
    self as wire, Generation, NewSandbox, Refresh, Sandbox, SandboxDetail, SetTimeout, Tokens,
};

use super::error::Result;
use super::extract::{Body, InPath, OptionalBody};
use super::routes::Routes;
use super::sleep::running;
use super::snapshots::source;
use crate::input::idempotency_key;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .post("/sandboxes", create_v1)
        .post("/v2/sandboxes", create_v2)
        .get("/sandboxes/{id}", fetch)
        .delete("/sandboxes/{id}", delete)
        .post("/sandboxes/{id}/timeout", set_timeout)
        .post("/sandboxes/{id}/refreshes", refresh)
}

async fn create_v1(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Body(request): Body<NewSandbox>,
) -> Result<(StatusCode, Json<Sandbox>)> {
    create(&app, &principal, &headers, request, Generation::V1).await
}

async fn create_v2(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Body(request): Body<NewSandbox>,
) -> Result<(StatusCode, Json<Sandbox>)> {
    create(&app, &principal, &headers, request, Generation::V2).await
}

async fn create(
    app: &App,
    principal: &Principal,
    headers: &HeaderMap,
    mut request: NewSandbox,
    generation: Generation,
) -> Result<(StatusCode, Json<Sandbox>)> {
    request.check(generation)?;
    let wanted = CreateSandbox {
        timeout: Some(request.timeout(generation)?),
        on_timeout: request.on_timeout(),
        auto_resume: request.auto_resume(),
        sleep: SleepChanges::default(),
        network: request.take_network()?,
        secure: request.is_secure(generation),
        volumes: request.take_volumes(),
        resources: None,
        idempotency_key: idempotency_key(headers)?,
        template: source(principal, request.template_id),
        metadata: request.metadata.unwrap_or_default(),
        env: request.env_vars.unwrap_or_default(),
    };
    let began = std::time::Instant::now();
    let view = app.engine.sandbox_create(principal, wanted).await;
    app.telemetry.created(began.elapsed(), &view);
    Ok((StatusCode::CREATED, Json(reply(app, &view?))))
}

async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
) -> Result<Json<SandboxDetail>> {
    let view = app.engine.sandbox_fetch(&principal, &id).await?;
    Ok(Json(SandboxDetail::new(&view.sandbox, tokens(&app, &view))))
}

async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
) -> Result<StatusCode> {
    app.engine.sandbox_delete(&principal, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_timeout(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Body(request): Body<SetTimeout>,
) -> Result<StatusCode> {
    let change = DeadlineChange::Set(wire::timeout_or_now(request.timeout)?);
    running(&app, &principal, &id).await?;
    app.engine.sandbox_deadline(&principal, &id, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn refresh(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    OptionalBody(request): OptionalBody<Refresh>,
) -> Result<StatusCode> {
    let change = DeadlineChange::Extend(request.duration()?);
    running(&app, &principal, &id).await?;
    app.engine.sandbox_deadline(&principal, &id, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn reply(app: &App, view: &SandboxView) -> Sandbox {
    Sandbox::new(&view.sandbox, tokens(app, view))
}

fn tokens(app: &App, view: &SandboxView) -> Tokens {
    Tokens {
        access: view.access_token.clone(),
        traffic: view.traffic_token.clone(),
        domain: app.options.domain.clone(),
    }
}
