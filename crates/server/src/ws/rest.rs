//! What is there without a socket.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use serde::Deserialize;
use serde_json::json;
use woodfrog_core::access::Action;
use woodfrog_engine::follow::Followed;
use woodfrog_engine::{CreateSandbox, Engine};
use woodfrog_guest_client::ProcessEvent;
use woodfrog_guest_client::proto::{Exit, StdinMode};
use woodfrog_types::key::Principal;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::OnTimeout;
use woodfrog_types::sleep::SleepPolicy;
use woodfrog_types::{Code, Fault, SandboxId};
use woodfrog_wire::ws::Exec;

use super::audit::{Cause, Notes};
use super::execution::request;
use super::machine::{CODE_BYTES_MAX, Failed, Language, Program};
use super::{principal, refusal};
use crate::door;
use crate::native::exec_fault;
use crate::state::App;

/// How long one execution without a socket may take.
const EXECUTE_MAX: Duration = Duration::from_secs(3600);
const EXIT_CODE: HeaderName = HeaderName::from_static("woodfrog-exit-code");

pub(super) async fn hello() -> Response {
    Json(json!({"message": "Server is running"})).into_response()
}

pub(super) async fn status() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

pub(super) async fn no_route() -> Response {
    refusal(&Fault::new(Code::NotFound, "no such route"))
}

#[derive(Deserialize)]
struct Query {
    language: Option<String>,
}

/// Runs the body in a sandbox of its own and streams what it prints, both outputs together; the
/// exit code is a trailer. The sandbox goes when the code ends, or the client does.
pub(super) async fn execute(State(app): State<App>, request: Request) -> Response {
    let request_id = door::request_id(&request);
    let (parts, body) = request.into_parts();
    let principal = match principal(&app, &parts, &request_id).await {
        Ok(principal) => principal,
        Err(fault) => return refusal(&fault),
    };
    let query = axum::extract::Query::<Query>::try_from_uri(&parts.uri);
    let named = query.ok().and_then(|query| query.0.language);
    let named = named.unwrap_or_default();
    let Some(language) = Language::of(&named) else {
        let shown: String = named.chars().take(64).collect();
        let text =
            format!("Unsupported language: '{shown}'. Supported languages are: python, bash");
        return refusal(&Fault::invalid("language", text));
    };
    let mut made = None;
    let ran = run(&app, &principal, language, body, &mut made).await;
    let notes = Notes {
        app,
        principal,
        request_id,
    };
    let failed = ran.as_ref().err().map(|fault| Failed {
        code: Some(fault.code.as_str().to_owned()),
        message: String::new(),
    });
    let done = failed.as_ref().map_or(Ok(()), Err);
    notes
        .note(Action::ProcessStart, made.as_ref(), Cause::Client, done)
        .await;
    ran.unwrap_or_else(|fault| refusal(&fault))
}

async fn run(
    app: &App,
    principal: &Principal,
    language: Language,
    body: Body,
    in_sandbox: &mut Option<SandboxId>,
) -> Result<Response, Fault> {
    let code = Limited::new(body, CODE_BYTES_MAX).collect().await;
    let code = code.map_err(|error| {
        let text = format!("the code could not be read, or has more than {CODE_BYTES_MAX} bytes");
        Fault::new(Code::TooLarge, text).because(error)
    })?;
    let code = String::from_utf8(code.to_bytes().to_vec());
    let code = code.map_err(|_| Fault::invalid("body", "the code must be UTF-8"))?;
    if code.contains('\0') {
        return Err(Fault::invalid(
            "body",
            "the code must not contain null characters",
        ));
    }
    let wanted = CreateSandbox {
        template: "base".to_owned(),
        timeout: Some(EXECUTE_MAX),
        on_timeout: OnTimeout::Kill,
        auto_resume: false,
        sleep: SleepPolicy::NEVER.into(),
        metadata: BTreeMap::from([("woodfrog.ws".to_owned(), "execute".to_owned())]),
        env: BTreeMap::new(),
        network: NetworkSpec::default(),
        secure: true,
        volumes: Vec::new(),
        resources: None,
        idempotency_key: None,
    };
    let made = app.engine.sandbox_create(principal, wanted).await?;
    *in_sandbox = Some(made.sandbox.id.clone());
    let leash = Leash(Some((
        app.engine.clone(),
        principal.clone(),
        made.sandbox.id.clone(),
    )));
    let guest = app.engine.guest(&made.sandbox.id).await?;
    let program = Program {
        language,
        code,
        timeout: None,
        options: Exec::default(),
    };
    let mut start = request(&guest, program)
        .await
        .map_err(|failed| Fault::new(Code::CreateFailed, failed.message))?;
    // There is nobody to write any.
    start.stdin = StdinMode::Closed;
    let followed = Followed::start(guest, start).await.map_err(exec_fault)?;
    let frames = stream::unfold(Some((followed, leash)), |state| async move {
        let (mut followed, leash) = state?;
        let guest = followed.lease().quiet();
        loop {
            let event = tokio::select! {
                event = followed.next() => event,
                () = guest.ended() => return Some((Err(cut()), None)),
            };
            match event {
                Ok(Some(ProcessEvent::Output { bytes, .. })) => {
                    return Some((Ok(Frame::data(bytes)), Some((followed, leash))));
                }
                Ok(Some(ProcessEvent::End(end))) => {
                    let code = match end.exit {
                        Exit::Exited { code } => code,
                        Exit::Signaled { signal, .. } => 128 + signal,
                    };
                    // It is gone when the client knows that this was all.
                    leash.end().await;
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert(EXIT_CODE, code.into());
                    return Some((Ok(Frame::<Bytes>::trailers(trailers)), None));
                }
                Ok(Some(ProcessEvent::Started(_) | ProcessEvent::Gap(_))) => {}
                Ok(None) | Err(_) => return Some((Err(cut()), None)),
            }
        }
    });
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, plain);
    let trailer = HeaderValue::from_static("woodfrog-exit-code");
    headers.insert(header::TRAILER, trailer);
    Ok(response)
}

fn cut() -> std::io::Error {
    std::io::Error::other("the sandbox ended")
}

/// Deletes the sandbox, also when its client goes away.
struct Leash(Option<(Engine, Principal, SandboxId)>);

impl Leash {
    async fn end(mut self) {
        if let Some((engine, principal, id)) = self.0.take() {
            delete(engine, principal, id).await;
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        if let Some((engine, principal, id)) = self.0.take() {
            tokio::spawn(delete(engine, principal, id));
        }
    }
}

async fn delete(engine: Engine, principal: Principal, id: SandboxId) {
    if let Err(fault) = engine.sandbox_delete(&principal, &id).await {
        crate::input::log(&fault);
    }
}
