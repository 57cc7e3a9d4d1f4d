//! ACP over HTTP: one agent process per name that a client chose.

use std::ops::ControlFlow;

use axum::body::Bytes;
use axum::extract::{Path, Query};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use woodfrog_sessions::acp::{Envelope, Unreadable};
use woodfrog_sessions::{Posted, Scope, Sessions};
use woodfrog_types::session::{SessionEvent, kind};
use woodfrog_wire::agent::problem::{Kind, Problem};

use super::AgentHost;
use super::problem::{Failure, Result, about_agent};
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
    let envelope = Envelope::parse(&body).map_err(|error| match error {
        Unreadable::Json(_) => Failure::invalid(format_args!("invalid JSON body: {error}")),
        error => Failure::invalid(format_args!(
            "request body must be a JSON-RPC object: {error}"
        )),
    })?;
    let AgentSessions { sessions, scope } = &host.sessions;
    let posted = sessions
        .acp_post(scope, &server, query.agent.as_deref(), envelope, None)
        .await;
    let posted = match posted {
        Ok(posted) => posted,
        Err(fault) => {
            let agent = match query.agent {
                Some(agent) => Some(agent),
                // Later messages need not name it.
                None => sessions.acp_find(scope, &server).await?.map(|it| it.agent),
            };
            return Err(about_agent(agent.as_deref().unwrap_or_default(), &fault));
        }
    };
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
        let text = "accept must allow text/event-stream";
        return Err(Problem::new(Kind::NotAcceptable, text).into());
    }
    let after = session_stream::last_event_id(&headers)?.unwrap_or(0);
    let AgentSessions { sessions, scope } = &host.sessions;
    let lines = sessions.acp_follow(scope, &server, after).await?;
    let shape = AgentLines {
        number: lines.number,
        missing: lines.missing,
    };
    Ok(session_stream::respond(lines.reader, shape))
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
        let text = "content-type must be application/json";
        return Err(Problem::new(Kind::UnsupportedMediaType, text).into());
    }
    if !accepts(headers, "application/json") {
        let text = "accept must allow application/json";
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
struct AgentLines {
    /// Of the last line.
    number: u64,
    missing: Option<(u64, u64)>,
}

impl Shape for AgentLines {
    fn event(&mut self, event: &SessionEvent, frames: &mut String) -> ControlFlow<()> {
        if let Some((from, to)) = self.missing.take() {
            adapter(
                frames,
                to,
                "gap",
                &json!({"from": from, "to": to}).to_string(),
            );
        }
        if event.event.kind == kind::SESSION_ENDED {
            return ControlFlow::Break(());
        }
        if !event.event.is_line() {
            return ControlFlow::Continue(());
        }
        self.number += 1;
        let payload = &event.event.payload;
        match event.event.kind.as_str() {
            kind::UNREADABLE => adapter(frames, self.number, "invalid_stdout", payload),
            kind::AGENT_EXITED => {
                let exit: Value = serde_json::from_str(payload).unwrap_or_default();
                let params = json!({"success": exit["success"], "code": exit["code"]});
                adapter(frames, self.number, "agent_exited", &params.to_string());
            }
            _ => frame(frames, "message", Some(self.number), payload),
        }
        ControlFlow::Continue(())
    }

    /// What is read now was dropped meanwhile: a client that comes back is told how much.
    fn gap(&mut self, _: u64, _: u64, _: &mut String) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

fn adapter(frames: &mut String, number: u64, name: &str, params: &str) {
    let data = format!(r#"{{"jsonrpc":"2.0","method":"_adapter/{name}","params":{params}}}"#);
    frame(frames, "message", Some(number), &data);
}
