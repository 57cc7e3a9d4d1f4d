//! Sessions of clients that run elsewhere: kept for them as they gave them. They are not the
//! server's own sessions; nothing here starts or ends an agent.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::persist::{Event, Session, Start};
use woodfrog_types::key::Principal;
use woodfrog_types::{Code, Fault};
use woodfrog_wire::native::persist::{
    Order, PersistEventQuery, PersistQuery, PersistedEvent, PersistedEventPage, PersistedSession,
    PersistedSessionPage, Place, check_id, cursor, limit, place,
};
use woodfrog_wire::native::problem::Problem;

use super::extract::{Params, Segments};
use super::problem::Result;
use crate::input::{json_bytes_up_to, parse_json};
use crate::state::App;

/// Bytes of a session's record.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// Bytes of an event.
const EVENT_BYTES_MAX: usize = 16 << 20;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(fetch, put, remove))
        .routes(routes!(events, add))
}

/// Sessions that clients keep here, by their time, then their id.
#[utoipa::path(
    get, path = "/persist/sessions", operation_id = "persist_session_list", tag = "persist",
    params(PersistQuery),
    responses((status = 200, body = PersistedSessionPage), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<PersistQuery>,
) -> Result<Response> {
    let start = start(query.cursor.as_deref());
    let part = app
        .engine
        .persist_list(&principal, start, limit(query.limit))
        .await?;
    let last = part.items.last().filter(|_| part.more);
    let next = last.map(|last| cursor(last.created_at, &last.id));
    let records = part.items.iter().map(|item| item.record.as_str());
    Ok(page(records, next))
}

/// One session, as it was put.
#[utoipa::path(
    get, path = "/persist/sessions/{id}", operation_id = "persist_session_fetch", tag = "persist",
    params(("id" = String, Path)),
    responses((status = 200, body = PersistedSession), (status = "default", body = Problem))
)]
async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
) -> Result<Response> {
    let found = app.engine.persist_fetch(&principal, &id).await?;
    Ok(json(found.record))
}

/// Keeps a session in place of what was kept of it before.
#[utoipa::path(
    put, path = "/persist/sessions/{id}", operation_id = "persist_session_put", tag = "persist",
    params(("id" = String, Path)), request_body = PersistedSession,
    responses((status = 204), (status = "default", body = Problem))
)]
async fn put(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    body: Body,
) -> Result<StatusCode> {
    check_id("path", &id)?;
    let (session, record) = read::<PersistedSession>(body, RECORD_BYTES_MAX).await?;
    session.check(&id)?;
    let session = Session {
        id,
        created_at: session.created_at,
        record,
    };
    app.engine.persist_put(&principal, session).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets a session and its events.
#[utoipa::path(
    delete, path = "/persist/sessions/{id}", operation_id = "persist_session_remove",
    tag = "persist", params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn remove(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
) -> Result<StatusCode> {
    app.engine.persist_remove(&principal, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Events of a session by their index; none if nothing is known of it.
#[utoipa::path(
    get, path = "/persist/sessions/{id}/events", operation_id = "persist_event_list",
    tag = "persist", params(("id" = String, Path), PersistEventQuery),
    responses((status = 200, body = PersistedEventPage), (status = "default", body = Problem))
)]
async fn events(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Params(query): Params<PersistEventQuery>,
) -> Result<Response> {
    let limit = limit(query.limit);
    if query.order == Some(Order::Desc) {
        if query.cursor.is_some() {
            let text = "`order=desc` takes no cursor";
            return Err(Fault::invalid("cursor", text).into());
        }
        let last = app.engine.persist_last(&principal, &id, limit).await?;
        return Ok(page(last.iter().map(|item| item.record.as_str()), None));
    }
    let start = start(query.cursor.as_deref());
    let part = app
        .engine
        .persist_events(&principal, &id, start, limit)
        .await?;
    let last = part.items.last().filter(|_| part.more);
    let next = last.map(|last| cursor(i64::try_from(last.index).unwrap_or(i64::MAX), &last.id));
    let records = part.items.iter().map(|item| item.record.as_str());
    Ok(page(records, next))
}

/// Keeps an event: it is on disk when the reply comes. The session need not be known.
#[utoipa::path(
    post, path = "/persist/sessions/{id}/events", operation_id = "persist_event_add",
    tag = "persist", params(("id" = String, Path)), request_body = PersistedEvent,
    responses((status = 204), (status = "default", body = Problem))
)]
async fn add(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    body: Body,
) -> Result<StatusCode> {
    check_id("path", &id)?;
    let (event, record) = read::<PersistedEvent>(body, EVENT_BYTES_MAX).await?;
    let index = event.check(&id)?;
    let event = Event {
        id: event.id,
        session: id,
        index,
        record,
    };
    app.engine.persist_add(&principal, event).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A body that was understood, and its text.
async fn read<T: DeserializeOwned>(body: Body, max: usize) -> Result<(T, String)> {
    let bytes = json_bytes_up_to(body, max).await?;
    let value = parse_json(&bytes)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Fault::new(Code::InvalidArgument, "the body is not UTF-8"))?;
    Ok((value, text.trim().to_owned()))
}

fn start(cursor: Option<&str>) -> Start {
    match place(cursor) {
        Place::Offset(skip) => Start::Offset(skip),
        Place::After { number, id } => Start::After { number, id },
    }
}

fn page<'a>(records: impl Iterator<Item = &'a str>, next: Option<String>) -> Response {
    let mut text = r#"{"items":["#.to_owned();
    for (place, record) in records.enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(record);
    }
    text.push(']');
    if let Some(next) = next {
        text.push_str(r#","nextCursor":"#);
        text.push_str(&serde_json::Value::from(next).to_string());
    }
    text.push('}');
    json(text)
}

fn json(text: String) -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
