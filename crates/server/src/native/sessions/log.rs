//! A session's log: pieces of it, and as a stream.

use std::ops::ControlFlow;

use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_sessions::{Batch, Ephemeral, Reader};
use woodfrog_types::key::Principal;
use woodfrog_types::session::{SessionEvent as Event, Stream};
use woodfrog_types::{Fault, session};
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::session::{
    LogQuery, SessionEvent, SessionEvents, Turn, Turns, event_line,
};

use super::{App, Params, Result, Segments, view};
use crate::session_stream::{self, Shape, frame};

/// Entries of one answer.
const EVENTS_MAX: usize = 1000;
const EVENTS_DEFAULT: usize = 100;
/// Bytes of payload of one answer.
const BYTES_MAX: usize = 16 << 20;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(events))
        .routes(routes!(turns))
        .routes(routes!(export))
}

/// Entries of the log after a place, oldest first. With `Accept: text/event-stream` a stream of
/// them that goes on with what comes, each with its place as `id`; `Last-Event-ID` is where it
/// begins after a reconnect. Places that are no longer held are a 410 here and an event `gap`
/// there.
#[utoipa::path(
    get, path = "/sessions/{id}/events", operation_id = "session_events", tag = "sessions",
    params(("id" = String, Path), LogQuery),
    responses(
        (status = 200, content((SessionEvents = "application/json"), (SessionEvent = "text/event-stream"))),
        (status = "default", body = Problem)
    )
)]
async fn events(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Params(query): Params<LogQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let session = view(&app, &principal, &id).await?.session;
    let after = match session_stream::last_event_id(&headers)? {
        Some(after) => after,
        None => query.after.unwrap_or(0),
    };
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        app.sessions.attend(&session).await;
        let reader = app
            .sessions
            .follow(&session.id, Stream::Log, after)
            .with_ephemeral();
        return Ok(session_stream::respond(reader, Lines));
    }
    let limit = query.limit.unwrap_or(EVENTS_DEFAULT);
    if !(1..=EVENTS_MAX).contains(&limit) {
        let text = format!("limit must be between 1 and {EVENTS_MAX}");
        return Err(Fault::invalid("limit", text).into());
    }
    let slice = app
        .sessions
        .read(&session.id, Stream::Log, after, limit, BYTES_MAX)
        .await?;
    let mut body = String::from(r#"{"items":["#);
    for (number, event) in slice.events.iter().enumerate() {
        if number > 0 {
            body.push(',');
        }
        event_line(event, &mut body);
    }
    let (last, earliest) = (slice.end.log, slice.end.log_first);
    body.push_str(&format!(r#"],"last":{last},"earliest":{earliest}}}"#));
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], body).into_response())
}

/// The session's turns, oldest first: who prompted, where in the log it began and ended, and the
/// snapshot of the sandbox that was taken then.
#[utoipa::path(
    get, path = "/sessions/{id}/turns", operation_id = "session_turns", tag = "sessions",
    params(("id" = String, Path), LogQuery),
    responses((status = 200, body = Turns), (status = "default", body = Problem))
)]
async fn turns(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Params(query): Params<LogQuery>,
) -> Result<Json<Turns>> {
    let session = view(&app, &principal, &id).await?.session;
    let limit = query.limit.unwrap_or(EVENTS_DEFAULT).clamp(1, EVENTS_MAX);
    let after = query.after.unwrap_or(0);
    let turns = app.sessions.turns(&session.id, after, limit).await?;
    let items = turns.into_iter().map(Turn::from).collect();
    Ok(Json(Turns { items }))
}

/// The whole log as lines of JSON, as it is now.
#[utoipa::path(
    get, path = "/sessions/{id}/export", operation_id = "session_export", tag = "sessions",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = SessionEvent, content_type = "application/x-ndjson"),
        (status = "default", body = Problem)
    )
)]
async fn export(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
) -> Result<Response> {
    let session = view(&app, &principal, &id).await?.session;
    let reader = app.sessions.follow(&session.id, Stream::Log, 0);
    let lines = futures_util::stream::unfold(reader, |mut reader| async move {
        let lines = next_lines(&mut reader).await?;
        Some((lines, reader))
    });
    let kind = HeaderValue::from_static("application/x-ndjson");
    Ok(([(header::CONTENT_TYPE, kind)], HttpBody::from_stream(lines)).into_response())
}

/// What is there of the log, a piece at a time. `None` at its end.
pub(super) async fn next_lines(
    reader: &mut Reader,
) -> Option<std::result::Result<String, std::io::Error>> {
    loop {
        match reader.ready().await {
            Ok(None) => return None,
            Ok(Some(Batch::Events(events))) => {
                let mut lines = String::new();
                for event in events {
                    event_line(&event, &mut lines);
                    lines.push('\n');
                }
                return Some(Ok(lines));
            }
            Ok(Some(Batch::Gap { .. } | Batch::Ephemeral(_))) => {}
            // The client must not take half of it for the whole.
            Err(fault) => return Some(Err(std::io::Error::other(fault.message))),
        }
    }
}

/// Entries as this API shows them.
struct Lines;

impl Shape for Lines {
    const SAME_FOR_ALL: bool = true;

    fn event(&mut self, event: &Event, frames: &mut String) -> ControlFlow<()> {
        let mut line = String::new();
        event_line(event, &mut line);
        frame(frames, &event.event.kind, Some(event.sequence), &line);
        ControlFlow::Continue(())
    }

    fn gap(&mut self, from: u64, to: u64, frames: &mut String) -> ControlFlow<()> {
        let data = json!({"from": from, "to": to}).to_string();
        frame(frames, session::kind::GAP, Some(to), &data);
        ControlFlow::Continue(())
    }

    fn ephemeral(&mut self, said: &Ephemeral, frames: &mut String) {
        let data: serde_json::Value = serde_json::from_str(&said.payload).unwrap_or_default();
        let data = json!({"at": said.at.as_millis(), "author": said.author, "data": data});
        frame(frames, &said.kind, None, &data.to_string());
    }
}
