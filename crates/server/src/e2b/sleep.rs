//! Pausing, connecting, resuming, copying.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use woodfrog_engine::{DeadlineChange, ForkRequest, HibernateRequest, ResumeRequest, SandboxView};
use woodfrog_types::key::Principal;
use woodfrog_types::sandbox::SandboxState;
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Code, Fault, SandboxId};
use woodfrog_wire::e2b::ErrorBody;
use woodfrog_wire::e2b::sandbox::{Connect, Generation, Sandbox};
use woodfrog_wire::e2b::sleep::{Fork, Forked, Pause, Resume};

use super::error::{E2bError, Result};
use super::extract::{InPath, OptionalBody};
use super::routes::Routes;
use super::sandboxes::reply;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .post("/sandboxes/{id}/pause", pause)
        .post("/sandboxes/{id}/connect", connect_v1)
        .post("/v2/sandboxes/{id}/connect", connect_v2)
        .post("/sandboxes/{id}/resume", resume)
        .post("/sandboxes/{id}/fork", fork)
}

/// Whether the sandbox is paused, as this face's clients see it: one that dozes by itself is not.
pub(super) fn is_paused(view: &SandboxView) -> bool {
    view.e2b_state() == "paused"
}

/// The sandbox, if it is not paused; 409 if it is.
pub(super) async fn running(
    app: &App,
    principal: &Principal,
    id: &SandboxId,
) -> std::result::Result<SandboxView, Fault> {
    let view = app.engine.sandbox_fetch(principal, id).await?;
    if is_paused(&view) {
        let message = format!("Sandbox \"{id}\" is paused: connect to it first");
        return Err(Fault::new(Code::Asleep, message));
    }
    Ok(view)
}

async fn pause(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    OptionalBody(request): OptionalBody<Pause>,
) -> Result<StatusCode> {
    let wanted = HibernateRequest {
        content: request.content(),
        cause: SleepCause::Held,
    };
    let slept = app.engine.sandbox_hibernate(&principal, &id, wanted).await;
    match slept {
        Ok(slept) if slept.already => {
            let message = format!("Sandbox \"{id}\" is already paused");
            Err(E2bError::plain(StatusCode::CONFLICT, message))
        }
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(fault) => Err(not_conflict(fault)),
    }
}

/// Clients read 409 as "paused already, all is well": whatever else went wrong has another status.
fn not_conflict(fault: Fault) -> E2bError {
    let status = match fault.code {
        Code::Transitioning | Code::Conflict => StatusCode::SERVICE_UNAVAILABLE,
        code if code.http_status() == 409 => StatusCode::INTERNAL_SERVER_ERROR,
        _ => return fault.into(),
    };
    E2bError::from(fault).with_status(status)
}

async fn connect_v1(
    state: State<App>,
    principal: Extension<Principal>,
    id: InPath,
    OptionalBody(request): OptionalBody<Connect>,
) -> Result<(StatusCode, Json<Sandbox>)> {
    connect(state, principal, id, request, Generation::V1).await
}

async fn connect_v2(
    state: State<App>,
    principal: Extension<Principal>,
    id: InPath,
    OptionalBody(request): OptionalBody<Connect>,
) -> Result<(StatusCode, Json<Sandbox>)> {
    connect(state, principal, id, request, Generation::V2).await
}

/// 201 if it was paused and runs again, 200 if it ran; its end only ever moves away.
async fn connect(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    request: Connect,
    generation: Generation,
) -> Result<(StatusCode, Json<Sandbox>)> {
    let extend = DeadlineChange::Extend(request.timeout(generation)?);
    let before = app.engine.sandbox_fetch(&principal, &id).await?;
    if matches!(before.sandbox.state, SandboxState::Running { .. }) {
        let view = app.engine.sandbox_deadline(&principal, &id, extend).await?;
        return Ok((StatusCode::OK, Json(reply(&app, &view))));
    }
    let paused = is_paused(&before);
    let wanted = ResumeRequest {
        // One that runs, as far as its client knows, has nothing to boot from.
        content: match paused {
            true => request.content(),
            false => SnapshotContent::Memory,
        },
        deadline: Some(extend),
        on_timeout: None,
    };
    let resumed = app.engine.sandbox_resume(&principal, &id, wanted).await?;
    let status = match paused && resumed.woke {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Json(reply(&app, &resumed.view))))
}

async fn resume(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    OptionalBody(request): OptionalBody<Resume>,
) -> Result<(StatusCode, Json<Sandbox>)> {
    let wanted = ResumeRequest {
        content: request.content(),
        deadline: Some(DeadlineChange::Extend(request.timeout()?)),
        on_timeout: request.on_timeout(),
    };
    let before = app.engine.sandbox_fetch(&principal, &id).await?;
    if !is_paused(&before) {
        return Err(already_running(&id));
    }
    let resumed = app.engine.sandbox_resume(&principal, &id, wanted).await?;
    if !resumed.woke {
        return Err(already_running(&id));
    }
    Ok((StatusCode::CREATED, Json(reply(&app, &resumed.view))))
}

fn already_running(id: &SandboxId) -> E2bError {
    let message = format!("Sandbox \"{id}\" is already running");
    E2bError::plain(StatusCode::CONFLICT, message)
}

/// Each copy succeeds or fails by itself; the source goes on with its id and its end.
async fn fork(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    OptionalBody(request): OptionalBody<Fork>,
) -> Result<(StatusCode, Json<Vec<Forked>>)> {
    let wanted = ForkRequest {
        count: request.count()?,
        timeout: Some(request.timeout()?),
    };
    running(&app, &principal, &id).await?;
    let copies = app.engine.sandbox_fork(&principal, &id, wanted).await?;
    let copies = copies.into_iter().map(|copy| match copy {
        Ok(view) => Forked::Sandbox(reply(&app, &view)),
        Err(fault) => {
            crate::input::log(&fault);
            Forked::Error(ErrorBody {
                code: fault.code.http_status(),
                message: fault.message,
                error_code: Some(fault.code.as_str().to_owned()),
            })
        }
    });
    Ok((StatusCode::CREATED, Json(copies.collect())))
}
