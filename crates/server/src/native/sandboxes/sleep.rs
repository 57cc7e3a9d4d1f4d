//! Putting sandboxes to sleep, waking them, and what keeps them awake.

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::{DeadlineChange, Hold as EngineHold, ResumeRequest};
use woodfrog_engine::{HibernateRequest, Wakefulness as EngineWakefulness};
use woodfrog_types::Fault;
use woodfrog_types::key::Principal;
use woodfrog_types::sleep::SleepCause;
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::sandbox::Sandbox;
use woodfrog_wire::native::sleep::{
    Activity, Hibernate, Hold, Holds, NewHold, NextRung, Resume, Resumed, SetSleepPolicy,
    Wakefulness,
};

use super::reply;
use crate::native::extract::{InPath, Json as Body, OptionalJson, Segments, sandbox_id};
use crate::native::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(pause))
        .routes(routes!(hibernate))
        .routes(routes!(resume))
        .routes(routes!(archive))
        .routes(routes!(activity))
        .routes(routes!(hold, unhold))
        .routes(routes!(wakefulness))
        .routes(routes!(sleep_policy))
}

/// Freezes a sandbox in place: its processes stand still and keep their memory. Any access wakes
/// it. One that sleeps already stays as it is.
#[utoipa::path(
    post, path = "/sandboxes/{id}/pause", operation_id = "sandbox_pause", tag = "sleep",
    params(("id" = String, Path)),
    responses((status = 200, body = Sandbox), (status = "default", body = Problem))
)]
async fn pause(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
) -> Result<Json<Sandbox>> {
    let view = app.engine.sandbox_pause(&principal, &id).await?;
    Ok(Json(reply(view)))
}

/// Puts a sandbox to sleep on disk, where it is safe when the reply comes. Any access wakes it. If
/// its memory cannot be saved it goes on as before.
#[utoipa::path(
    post, path = "/sandboxes/{id}/hibernate", operation_id = "sandbox_hibernate", tag = "sleep",
    request_body = Option<Hibernate>, params(("id" = String, Path)),
    responses((status = 200, body = Sandbox), (status = "default", body = Problem))
)]
async fn hibernate(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    OptionalJson(request): OptionalJson<Hibernate>,
) -> Result<Json<Sandbox>> {
    let wanted = HibernateRequest {
        content: request.content.into(),
        cause: SleepCause::Requested,
    };
    let slept = app
        .engine
        .sandbox_hibernate(&principal, &id, wanted)
        .await?;
    Ok(Json(reply(slept.view)))
}

/// Wakes a sandbox, from whatever rung; its guest answers when the reply comes. A new deadline
/// only ever extends that of one that runs.
#[utoipa::path(
    post, path = "/sandboxes/{id}/resume", operation_id = "sandbox_resume", tag = "sleep",
    request_body = Option<Resume>, params(("id" = String, Path)),
    responses((status = 200, body = Resumed), (status = "default", body = Problem))
)]
async fn resume(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    OptionalJson(request): OptionalJson<Resume>,
) -> Result<Json<Resumed>> {
    let wanted = ResumeRequest {
        content: request.content.into(),
        deadline: request.timeout()?.map(DeadlineChange::Extend),
        on_timeout: None,
    };
    let resumed = app.engine.sandbox_resume(&principal, &id, wanted).await?;
    Ok(Json(Resumed {
        woke: resumed.woke,
        sandbox: reply(resumed.view),
    }))
}

/// Moves a sandbox's snapshot to the archive; it is hibernated first if need be.
#[utoipa::path(
    post, path = "/sandboxes/{id}/archive", operation_id = "sandbox_archive", tag = "sleep",
    params(("id" = String, Path)),
    responses((status = 200, body = Sandbox), (status = "default", body = Problem))
)]
async fn archive(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
) -> Result<Json<Sandbox>> {
    let view = app.engine.sandbox_archive(&principal, &id).await?;
    Ok(Json(reply(view)))
}

/// Says that a sandbox is in use, which no request of it shows. Wakes one that sleeps.
#[utoipa::path(
    post, path = "/sandboxes/{id}/activity", operation_id = "sandbox_activity", tag = "sleep",
    params(("id" = String, Path)),
    responses((status = 200, body = Activity), (status = "default", body = Problem))
)]
async fn activity(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
) -> Result<Json<Activity>> {
    let touched = app.engine.sandbox_touch(&principal, &id).await?;
    Ok(Json(Activity {
        last_activity: touched.last_activity.as_millis(),
        sandbox: reply(touched.view),
    }))
}

/// Keeps a sandbox awake under a name, until that is released or its time is over. The same name
/// again moves its end.
#[utoipa::path(
    put, path = "/sandboxes/{id}/holds/{name}", operation_id = "sandbox_hold", tag = "sleep",
    request_body = Option<NewHold>, params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Holds), (status = "default", body = Problem))
)]
async fn hold(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments((id, name)): Segments<(String, String)>,
    OptionalJson(request): OptionalJson<NewHold>,
) -> Result<Json<Holds>> {
    let (id, ttl) = (sandbox_id(&id)?, request.ttl()?);
    check_name(&name)?;
    let held = app.engine.sandbox_hold(&principal, &id, &name, ttl).await?;
    Ok(Json(holds(held)))
}

/// Releases a hold; one that is not there is no error.
#[utoipa::path(
    delete, path = "/sandboxes/{id}/holds/{name}", operation_id = "sandbox_unhold", tag = "sleep",
    params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Holds), (status = "default", body = Problem))
)]
async fn unhold(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments((id, name)): Segments<(String, String)>,
) -> Result<Json<Holds>> {
    let id = sandbox_id(&id)?;
    check_name(&name)?;
    let held = app.engine.sandbox_unhold(&principal, &id, &name).await?;
    Ok(Json(holds(held)))
}

/// Bytes of a hold's name.
const HOLD_NAME_BYTES_MAX: usize = 128;

fn check_name(name: &str) -> std::result::Result<(), Fault> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
    if (1..=HOLD_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let message = format!("a hold's name is 1 to {HOLD_NAME_BYTES_MAX} of A-Z a-z 0-9 . _ - : /");
    Err(Fault::invalid("name", message))
}

fn holds(held: Vec<EngineHold>) -> Holds {
    let hold = |hold: EngineHold| Hold::new(hold.name, hold.expires_at);
    Holds {
        items: held.into_iter().map(hold).collect(),
    }
}

/// Why a sandbox is awake or asleep, and when it goes to the next rung. Never wakes it.
#[utoipa::path(
    get, path = "/sandboxes/{id}/wakefulness", operation_id = "sandbox_wakefulness",
    tag = "sleep", params(("id" = String, Path)),
    responses((status = 200, body = Wakefulness), (status = "default", body = Problem))
)]
async fn wakefulness(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
) -> Result<Json<Wakefulness>> {
    let EngineWakefulness {
        state,
        reasons,
        last_activity,
        holds: held,
        next,
    } = app.engine.sandbox_wakefulness(&principal, &id).await?;
    Ok(Json(Wakefulness {
        state: state.to_owned(),
        reasons,
        last_activity: last_activity.as_millis(),
        holds: holds(held).items,
        next: next.map(|next| NextRung {
            state: next.state.to_owned(),
            at: next.at.as_millis(),
        }),
    }))
}

/// Changes the times after which a sandbox goes to sleep by itself. What is absent stays.
#[utoipa::path(
    put, path = "/sandboxes/{id}/sleep-policy", operation_id = "sandbox_sleep_policy",
    tag = "sleep", request_body = SetSleepPolicy, params(("id" = String, Path)),
    responses((status = 200, body = Sandbox), (status = "default", body = Problem))
)]
async fn sleep_policy(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Body(request): Body<SetSleepPolicy>,
) -> Result<Json<Sandbox>> {
    let view = app.engine.sandbox_fetch(&principal, &id).await?;
    let policy = request.over(view.sandbox.sleep)?;
    let view = app
        .engine
        .sandbox_sleep_policy(&principal, &id, policy)
        .await?;
    Ok(Json(reply(view)))
}
