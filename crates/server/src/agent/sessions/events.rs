//! Events of a session: in pages, and as they come.

use std::ops::ControlFlow;

use axum::extract::{Path, Query};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use woodfrog_sessions::acp::universal::Universal;
use woodfrog_types::session::{SessionEvent, Source, Stream};

use super::{AgentHost, JsonBody, Message, Response, Result, begin, find};
use crate::agent::problem::Failure;
use crate::session_stream::{self, Shape, frame};

/// Events of one page, and bytes of it; `hasMore` says that there are more.
const PAGE_EVENTS_MAX: usize = 10_000;
const PAGE_BYTES_MAX: usize = 16 << 20;

#[derive(Deserialize)]
pub(super) struct EventsQuery {
    #[serde(default)]
    offset: u64,
    limit: Option<usize>,
    #[serde(default, alias = "includeRaw")]
    include_raw: bool,
}

#[derive(Deserialize)]
pub(super) struct StreamQuery {
    offset: Option<u64>,
    #[serde(default, alias = "includeRaw")]
    include_raw: bool,
}

pub(super) async fn list(
    Extension(host): Extension<AgentHost>,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<Json<Value>> {
    let session = find(&host, &id).await?;
    let limit = query.limit.unwrap_or(PAGE_EVENTS_MAX).min(PAGE_EVENTS_MAX);
    if limit == 0 {
        return Err(Failure::invalid("limit must be 1 or more"));
    }
    let sessions = &host.sessions.sessions;
    let (stream, after) = (Stream::Universal, query.offset);
    let slice = sessions.read(&session.id, stream, after, limit, PAGE_BYTES_MAX);
    let slice = slice.await?;
    let last = slice.events.last().map_or(after, |event| event.sequence);
    let shown = slice.events.iter();
    let shown: Vec<Value> = shown
        .map(|event| shape(event, &session.name, query.include_raw))
        .collect();
    Ok(Json(json!({
        "events": shown,
        "hasMore": last < slice.end.universal,
    })))
}

pub(super) async fn stream(
    Extension(host): Extension<AgentHost>,
    Path(id): Path<String>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let session = find(&host, &id).await?;
    // A client that comes back knows better than the address that it was given.
    let after = session_stream::last_event_id(&headers)?;
    let after = after.or(query.offset).unwrap_or(0);
    let sessions = &host.sessions.sessions;
    let reader = sessions.follow(&session.id, Stream::Universal, after);
    let events = Events {
        session: session.name,
        raw: query.include_raw,
        turn: None,
        running: false,
        waits: false,
    };
    Ok(session_stream::respond(reader, events).into_response())
}

/// Prompts, and answers with the events up to the end of that turn, or until somebody must answer.
pub(super) async fn turn(
    Extension(host): Extension<AgentHost>,
    Path(id): Path<String>,
    Query(query): Query<StreamQuery>,
    JsonBody(request): JsonBody<Message>,
) -> Result<Response> {
    let (session, after, turn) = begin(&host, &id, request).await?;
    let sessions = &host.sessions.sessions;
    let reader = sessions.follow(&session.id, Stream::Universal, after);
    let events = Events {
        session: session.name.clone(),
        raw: query.include_raw,
        turn: Some(format!("turn_{turn}")),
        running: false,
        waits: asks(&session.settings),
    };
    Ok(session_stream::respond(reader, events).into_response())
}

/// Events as frames.
struct Events {
    session: String,
    raw: bool,
    /// The turn with which the stream ends; `None`: with the session.
    turn: Option<String>,
    /// Whether that turn has begun.
    running: bool,
    /// Whether a client must answer what the agent asks.
    waits: bool,
}

impl Events {
    fn is_last(&mut self, kind: &str, data: &Value) -> bool {
        let Some(turn) = &self.turn else {
            return kind == "session.ended";
        };
        let own = data["turn_id"] == turn.as_str();
        match kind {
            "session.ended" => true,
            "turn.started" => {
                self.running |= own;
                false
            }
            "turn.ended" => own,
            // An agent that cannot be started fails every turn, also before it begins.
            "error" => self.running || data["code"] == "agent_exited",
            "agent.unparsed" => self.running,
            "permission.requested" | "question.requested" => self.running && self.waits,
            _ => false,
        }
    }
}

impl Shape for Events {
    fn event(&mut self, event: &SessionEvent, frames: &mut String) -> ControlFlow<()> {
        let shown = shape(event, &self.session, self.raw);
        let text = shown.to_string();
        frame(frames, "message", Some(event.sequence), &text);
        match self.is_last(&event.event.kind, &shown["data"]) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    /// Sequences say what is missing.
    fn gap(&mut self, _: u64, _: u64, _: &mut String) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Whether somebody is asked for permissions.
fn asks(settings: &str) -> bool {
    let settings: Value = serde_json::from_str(settings).unwrap_or_default();
    settings["permissions"] != "bypass"
}

/// An event as clients know it.
fn shape(event: &SessionEvent, session: &str, raw: bool) -> Value {
    let stored: Option<Universal> = serde_json::from_str(&event.event.payload).ok();
    let source = match event.event.source {
        Source::Agent => "agent",
        Source::Client | Source::Server => "daemon",
    };
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    put("event_id", event.id().into());
    put("sequence", event.sequence.into());
    put("time", event.event.at.to_rfc3339().into());
    put("session_id", session.into());
    put("source", source.into());
    put("type", event.event.kind.as_str().into());
    let Some(stored) = stored else {
        put("synthetic", true.into());
        put("data", Value::Null);
        return Value::Object(shown);
    };
    put("synthetic", stored.synthetic.into());
    put("data", stored.data);
    if let Some(native) = stored.native_session_id {
        put("native_session_id", native.into());
    }
    if let Some(said) = stored.raw.filter(|_| raw) {
        put("raw", said);
    }
    Value::Object(shown)
}
