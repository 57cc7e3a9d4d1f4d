//! Sessions of a workspace as a whole: how long they are kept, and all of their logs.

use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_sessions::{Reader, Sessions};
use woodfrog_types::WorkspaceId;
use woodfrog_types::key::Principal;
use woodfrog_types::page::PageRequest;
use woodfrog_types::session::{Session as Record, SessionFilter, Stream};
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::session::{Retention, RetentionView, Session};

use super::log::next_lines;
use super::{App, Body, Result};

/// Sessions that are looked up at once.
const PAGE: usize = 100;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(retention, set_retention, reset_retention))
        .routes(routes!(export_all))
}

/// How long the workspace's sessions and their logs are kept.
#[utoipa::path(
    get, path = "/session-retention", operation_id = "session_retention", tag = "sessions",
    responses((status = 200, body = RetentionView), (status = "default", body = Problem))
)]
async fn retention(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<RetentionView>> {
    let own = app.retainer.own(&principal.workspace).await?;
    let server = app.retainer.server();
    Ok(Json(RetentionView {
        effective: own.unwrap_or(server).into(),
        own: own.map(Retention::from),
        server: server.into(),
    }))
}

/// Sets how long they are kept: all three at once. What is not to be kept is removed within
/// minutes; entries of a turn that goes on stay.
#[utoipa::path(
    put, path = "/session-retention", operation_id = "session_retention_set", tag = "sessions",
    request_body = Retention,
    responses((status = 204), (status = "default", body = Problem))
)]
async fn set_retention(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(request): Body<Retention>,
) -> Result<StatusCode> {
    let own = Some(request.into());
    app.retainer.set(&principal.workspace, own).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes back what the workspace set: the server's holds again.
#[utoipa::path(
    delete, path = "/session-retention", operation_id = "session_retention_reset",
    tag = "sessions",
    responses((status = 204), (status = "default", body = Problem))
)]
async fn reset_retention(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<StatusCode> {
    app.retainer.set(&principal.workspace, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// All sessions of the workspace with their logs, as they are now, newest session first: for each
/// a line `{"session": {…}}`, and then its entries as `/sessions/{id}/export` has them.
#[utoipa::path(
    get, path = "/session-export", operation_id = "session_export_all", tag = "sessions",
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson"),
        (status = "default", body = Problem)
    )
)]
async fn export_all(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Response {
    let walk = Walk {
        sessions: app.sessions,
        workspace: principal.workspace,
        waiting: Vec::new(),
        cursor: Cursor::Start,
        reader: None,
    };
    let lines = futures_util::stream::unfold(walk, |mut walk| async move {
        let lines = walk.next().await?;
        Some((lines, walk))
    });
    let kind = HeaderValue::from_static("application/x-ndjson");
    ([(header::CONTENT_TYPE, kind)], HttpBody::from_stream(lines)).into_response()
}

/// Where a walk over a list is.
enum Cursor {
    Start,
    At(String),
    End,
}

/// All sessions, one after the other, each piece by piece.
struct Walk {
    sessions: Sessions,
    workspace: WorkspaceId,
    /// Of the page that was read last, the next one at the end.
    waiting: Vec<Record>,
    cursor: Cursor,
    reader: Option<Reader>,
}

impl Walk {
    /// The next lines; `None` at the end. An error breaks the body off: the client must not take
    /// half of it for the whole.
    async fn next(&mut self) -> Option<std::result::Result<String, std::io::Error>> {
        loop {
            if let Some(reader) = &mut self.reader {
                match next_lines(reader).await {
                    Some(lines) => return Some(lines),
                    None => self.reader = None,
                }
            }
            if let Some(session) = self.waiting.pop() {
                let reader = self.sessions.follow(&session.id, Stream::Log, 0);
                self.reader = Some(reader);
                let line = json!({ "session": Session::from(session) });
                return Some(Ok(format!("{line}\n")));
            }
            let cursor = match std::mem::replace(&mut self.cursor, Cursor::End) {
                Cursor::Start => None,
                Cursor::At(cursor) => Some(cursor),
                Cursor::End => return None,
            };
            let page = PageRequest {
                limit: PAGE,
                cursor,
            };
            let filter = SessionFilter::default();
            let listed = self.sessions.list(&self.workspace, &filter, &page).await;
            match listed {
                Ok(page) => {
                    self.waiting = page.items;
                    self.waiting.reverse();
                    self.cursor = page.next.map_or(Cursor::End, Cursor::At);
                }
                Err(fault) => return Some(Err(std::io::Error::other(fault.message))),
            }
        }
    }
}
