//! ACP over HTTP: one agent process per name that a client chose.

use axum::body::Bytes;
use axum::extract::{Path, Query};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use woodfrog_sessions::acp::Envelope;
use woodfrog_sessions::{Posted, Scope, Sessions};
use woodfrog_types::session::{SessionEvent, Source, kind};
use woodfrog_wire::agent::problem::{Kind, Problem};

use super::AgentHost;
use super::problem::{Failure, Result};
use crate::session_stream::{self, Shape, frame};

/// Bytes of one message of a client.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The sessions of the sandbox that a request is about. A cheap clone.
#[derive(Clone)]
pub struct AgentSessions {
    pub sessions: Sessions,
    pub scope: Scope,
}

pub(super) fn routes() -> Router {
    Router::new().route("/v1/acp", get(list)).route(
        "/v1/acp/{server}",
        post(send)
            .get(stream)
            .delete(close)
            .layer(axum::extract::DefaultBodyLimit::max(MESSAGE_BYTES_MAX)),
    )
}

#[derive(Deserialize)]
struct SendQuery {
    agent: Option<String>,
}

async fn list(Extension(host): Extension<AgentHost>) -> Result<Response> {
    let servers = host
        .sessions
        .sessions
        .acp_list(&host.sessions.scope)
        .await?;
    let servers: Vec<_> = servers
        .into_iter()
        .map(|server| {
            json!({
                "serverId": server.name,
                "agent": server.agent,
                "createdAtMs": server.created_at.as_millis(),
            })
        })
        .collect();
    Ok(Json(json!({ "servers": servers })).into_response())
}

async fn send(
    Extension(host): Extension<AgentHost>,
    Path(server): Path<String>,
    Query(query): Query<SendQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response> {
    check_media(&headers)?;
    let envelope = Envelope::parse(&body)
        .map_err(|error| Failure::invalid(format!("invalid request: {error}")))?;
    let AgentSessions { sessions, scope } = &host.sessions;
    let posted = sessions
        .acp_post(scope, &server, query.agent.as_deref(), envelope, None)
        .await?;
    Ok(match posted {
        Posted::Accepted => StatusCode::ACCEPTED.into_response(),
        Posted::Response(line) => {
            let json = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, json)], line).into_response()
        }
    })
}

async fn stream(
    Extension(host): Extension<AgentHost>,
    Path(server): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    if !accepts(&headers, "text/event-stream") {
        let text = "the Accept header must allow text/event-stream";
        return Err(Problem::new(Kind::NotAcceptable, text).into());
    }
    let after = session_stream::last_event_id(&headers)?.unwrap_or(0);
    let AgentSessions { sessions, scope } = &host.sessions;
    let reader = sessions.acp_follow(scope, &server, after).await?;
    Ok(session_stream::respond(reader, AgentLines))
}

async fn close(
    Extension(host): Extension<AgentHost>,
    Path(server): Path<String>,
) -> Result<StatusCode> {
    let AgentSessions { sessions, scope } = &host.sessions;
    sessions.acp_close(scope, &server).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check_media(headers: &HeaderMap) -> Result<()> {
    let given = headers.get(header::CONTENT_TYPE);
    let given = given.and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let text = "the Content-Type must be application/json";
        return Err(Problem::new(Kind::UnsupportedMediaType, text).into());
    }
    if !accepts(headers, "application/json") {
        let text = "the Accept header must allow application/json";
        return Err(Problem::new(Kind::NotAcceptable, text).into());
    }
    Ok(())
}

/// Whether the client takes `wanted`; one that says nothing takes everything.
fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let family = wanted.split('/').next().unwrap_or_default();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| range.split(';').next().unwrap_or_default().trim())
        .any(|range| {
            range == "*/*"
                || range.eq_ignore_ascii_case(wanted)
                || range.strip_suffix("/*") == Some(family)
        })
}

/// The lines of the agent, as the clients of this transport know them.
struct AgentLines;

impl Shape for AgentLines {
    fn event(&mut self, event: &SessionEvent, frames: &mut String) {
        let payload = &event.event.payload;
        match (event.event.source, event.event.kind.as_str()) {
            (Source::Agent, kind::MESSAGE) => {
                frame(frames, "message", Some(event.sequence), payload);
            }
            (Source::Agent, kind::UNREADABLE) => {
                adapter(frames, event.sequence, "invalid_stdout", payload);
            }
            (Source::Server, kind::AGENT_EXITED) => {
                adapter(frames, event.sequence, "agent_exited", payload);
            }
            _ => {}
        }
    }

    fn gap(&mut self, from: u64, to: u64, frames: &mut String) {
        let params = json!({"from": from, "to": to}).to_string();
        adapter(frames, to, "gap", &params);
    }
}

fn adapter(frames: &mut String, place: u64, name: &str, params: &str) {
    let data = format!(r#"{{"jsonrpc":"2.0","method":"_adapter/{name}","params":{params}}}"#);
    frame(frames, "message", Some(place), &data);
}
