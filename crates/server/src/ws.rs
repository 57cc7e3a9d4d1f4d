//! The WebSocket sandbox: a client creates a sandbox, or attaches to one, and runs code in it over
//! one socket. `docs/design/websocket-face.md` has the decisions.

mod attachment;
mod audit;
mod courier;
mod deeds;
mod execution;
mod idle;
mod link;
mod machine;
mod open;
mod outbox;
mod rest;
mod room;
mod text;
mod vigil;

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use tower_http::catch_panic::CatchPanicLayer;
use woodfrog_core::access::Action;
use woodfrog_types::key::Principal;
use woodfrog_types::{Code, Fault};

pub use room::Sockets;

use crate::door::{self, Call};
use crate::state::App;
use link::Handshake;
use machine::{Client, Failed};

/// Where the face is mounted; clients take the server's address and this for their base URL.
pub const PREFIX: &str = "/ws";

/// The name of the cookie by which a client that comes back is known.
const COOKIE: &str = "woodfrog_ws";
/// Characters of its value.
const COOKIE_CHARS: usize = 32;

/// The face at [`PREFIX`].
pub fn router(app: &App) -> Router {
    let below = Router::new()
        .route("/", get(rest::hello))
        .route("/status", get(rest::status))
        .route("/execute", post(rest::execute))
        .route("/create", get(create))
        .route("/attach/{sandbox}", get(attach))
        .fallback(rest::no_route)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(
            (app.clone(), "ws"),
            crate::observe::measure,
        ))
        .with_state(app.clone());
    // Nesting alone does not serve the address with its slash.
    Router::new()
        .nest(PREFIX, below)
        .route(&format!("{PREFIX}/"), get(rest::hello))
}

/// A client's connection, before its socket is open.
struct Caller {
    client: String,
    kind: Client,
    /// For the audit log.
    request_id: String,
    /// Who it is, if it showed a key and not only a sandbox's token.
    principal: Option<Principal>,
}

impl Caller {
    /// By its cookie, which clients send that reconnect by themselves.
    fn of(headers: &HeaderMap, request_id: String, principal: Option<Principal>) -> Self {
        let (client, kind) = match cookie(headers) {
            Some(client) => (client, Client::Returns),
            None => {
                let client = uuid::Uuid::new_v4().simple().to_string();
                (client, Client::Unknown)
            }
        };
        Self {
            client,
            kind,
            request_id,
            principal,
        }
    }

    fn set_cookie(&self) -> HeaderValue {
        let value = format!("{COOKIE}={}; HttpOnly; SameSite=Strict", self.client);
        HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::COOKIE).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';')).map(str::trim);
    let value = pairs.find_map(|pair| pair.strip_prefix(COOKIE)?.strip_prefix('='))?;
    let is_ours = value.len() == COOKIE_CHARS && value.bytes().all(|it| it.is_ascii_hexdigit());
    is_ours.then(|| value.to_owned())
}

/// The key in the user info of an address (`ws://x:KEY@host/ws`), which clients send as HTTP's basic
/// authentication: the password, or the user where there is none.
fn basic(headers: &HeaderMap) -> Option<HeaderValue> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64.decode(encoded.trim()).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let key = match decoded.split_once(':') {
        Some((user, "")) => user,
        Some((_, password)) => password,
        None => decoded.as_str(),
    };
    HeaderValue::from_str(key).ok()
}

/// Who asks: browsers cannot send headers with a WebSocket, so the key may be in the query. Clients
/// that append to their base URL and have no headers have it in the user info.
async fn principal(app: &App, parts: &Parts, request_id: &str) -> Result<Principal, Fault> {
    #[derive(Deserialize)]
    struct Key {
        api_key: Option<String>,
    }
    let mut headers = parts.headers.clone();
    if !headers.contains_key("x-api-key")
        && let Some(key) = basic(&headers)
    {
        headers.remove(header::AUTHORIZATION);
        headers.insert("x-api-key", key);
    }
    if !headers.contains_key("x-api-key")
        && !headers.contains_key(header::AUTHORIZATION)
        && let Ok(Query(Key { api_key: Some(key) })) = Query::try_from_uri(&parts.uri)
        && let Ok(value) = HeaderValue::from_str(&key)
    {
        headers.insert("x-api-key", value);
    }
    let principal = app.principal(&headers).await?;
    door::count(app, &principal).await?;
    let call = Call {
        face: audit::FACE,
        action: Action::SandboxCreate,
        target: String::new(),
        request_id: request_id.to_owned(),
    };
    door::check(app, &principal, &call).await?;
    Ok(principal)
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    crate::input::log_panic(panic.as_ref());
    refusal(&Fault::internal("a handler panicked"))
}

/// A fault as an answer without a socket.
fn refusal(fault: &Fault) -> Response {
    crate::input::log(fault);
    let status = StatusCode::from_u16(fault.code.http_status());
    let body = serde_json::json!({ "message": fault.message, "code": fault.code.as_str() });
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(body)).into_response()
}

/// A fault for a client that has a socket.
fn failed(fault: Fault) -> Failed {
    crate::input::log(&fault);
    Failed {
        code: Some(fault.code.as_str().to_owned()),
        message: fault.message,
    }
}

async fn create(State(app): State<App>, request: Request) -> Response {
    let request_id = door::request_id(&request);
    let (mut parts, _) = request.into_parts();
    let principal = match principal(&app, &parts, &request_id).await {
        Ok(principal) => principal,
        Err(fault) => return refusal(&fault),
    };
    let caller = Caller::of(&parts.headers, request_id, Some(principal.clone()));
    let handshake = match Handshake::of(&mut parts) {
        Ok(handshake) => handshake,
        Err(refused) => return refused.into_response(),
    };
    let (response, link) = handshake.accept(caller.set_cookie());
    let sockets = app.sockets.clone();
    sockets.spawn(async move {
        if let Some(link) = link.await {
            open::create(app, principal, caller, link).await;
        }
    });
    response
}

async fn attach(
    State(app): State<App>,
    Path(sandbox): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    request: Request,
) -> Response {
    let request_id = door::request_id(&request);
    let (mut parts, _) = request.into_parts();
    let Some(token) = query.get("sandbox_token").cloned() else {
        let fault = Fault::new(Code::PermissionDenied, "sandbox_token is required");
        return refusal(&fault);
    };
    let caller = Caller::of(&parts.headers, request_id, None);
    let handshake = match Handshake::of(&mut parts) {
        Ok(handshake) => handshake,
        Err(refused) => return refused.into_response(),
    };
    let mode = match query.get("cursors").map(String::as_str) {
        Some("1" | "true") => courier::Mode::Cursors,
        Some(_) | None => courier::Mode::Guarded,
    };
    let (response, link) = handshake.accept(caller.set_cookie());
    let sockets = app.sockets.clone();
    sockets.spawn(async move {
        if let Some(link) = link.await {
            open::attach(app, sandbox, token, caller, mode, link).await;
        }
    });
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_in_the_address_s_user_info() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            basic(&headers).map(|key| key.to_str().unwrap().to_owned())
        };
        let encoded = |text: &str| format!("Basic {}", BASE64.encode(text));
        assert_eq!(of(&encoded("x:key")).as_deref(), Some("key"));
        assert_eq!(of(&encoded("x:a:b")).as_deref(), Some("a:b"));
        assert_eq!(of(&encoded("key:")).as_deref(), Some("key"));
        let small = encoded("x:key").replace("Basic", "basic");
        assert_eq!(of(&small).as_deref(), Some("key"));
        assert_eq!(of("Bearer key"), None);
        assert_eq!(of("Basic !"), None);
        assert_eq!(of(&encoded("x:\n")), None);
    }

    #[test]
    fn a_client_is_known_by_its_cookie() {
        let of = |headers: &HeaderMap| Caller::of(headers, String::new(), None);
        let fresh = of(&HeaderMap::new());
        assert_eq!(fresh.kind, Client::Unknown);
        let said = fresh.set_cookie();
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, "a=b; x".parse().unwrap());
        headers.append(header::COOKIE, said);
        let again = of(&headers);
        assert_eq!(again.client, fresh.client);
        assert_eq!(again.kind, Client::Returns);
        let mut other = HeaderMap::new();
        other.insert(header::COOKIE, "woodfrog_ws=short".parse().unwrap());
        assert_eq!(of(&other).kind, Client::Unknown);
    }
}
