//! Going back to the end of a turn.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_types::key::Principal;
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::session::{ForkSession, Session, ToTurn};

use super::{App, Body, Result, Segments, session_id};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(rewind))
        .routes(routes!(fork))
}

/// The session goes on from the end of a turn, in a new sandbox made from the snapshot that was
/// taken then. What came after stays in its log, and the agent is told nothing of it; the entry
/// `session.rewound` says to which place. The sandbox that it had stays as it is. Refused while a
/// turn goes on, and for turns without a snapshot.
#[utoipa::path(
    post, path = "/sessions/{id}/rewind", operation_id = "session_rewind", tag = "sessions",
    params(("id" = String, Path)), request_body = ToTurn,
    responses((status = 200, body = Session), (status = "default", body = Problem))
)]
async fn rewind(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Body(request): Body<ToTurn>,
) -> Result<Json<Session>> {
    let id = session_id(&id)?;
    let rewound = app.sessions.rewind(&principal.workspace, &id, request.turn);
    Ok(Json(rewound.await?.into()))
}

/// Makes another session that begins as a copy of this one up to the end of a turn, in a new
/// sandbox made from the snapshot that was taken then. This one goes on as it was.
#[utoipa::path(
    post, path = "/sessions/{id}/fork", operation_id = "session_fork", tag = "sessions",
    params(("id" = String, Path)), request_body = ForkSession,
    responses((status = 201, body = Session), (status = "default", body = Problem))
)]
async fn fork(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Body(request): Body<ForkSession>,
) -> Result<(StatusCode, Json<Session>)> {
    let id = session_id(&id)?;
    let forked = app
        .sessions
        .fork(&principal.workspace, &id, request.turn, request.name);
    Ok((StatusCode::CREATED, Json(forked.await?.into())))
}
