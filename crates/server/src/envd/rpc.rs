//! From a path to a procedure.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use woodfrog_wire::envd::{ProcessEvent, ProcessStreamResponse, WatchDirResponse};

use super::call::{self, Call, Codec, Messages, Sender, Stop, StreamTerms};
use super::connect::{self, RpcError};
use super::local::Local;
use super::{filesystem, process, watch};

const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// Answers one procedure of the two services.
pub(crate) async fn answer(path: &str, call: Call, local: Arc<Local>, body: Body) -> Response {
    let Some(codec) = Codec::of(call.headers()) else {
        return unsupported("application/json, application/connect+json");
    };
    let path = path.trim_start_matches('/');
    match codec {
        Codec::Unary => unary(path, &call, local, body).await,
        Codec::Stream => stream(path, call, body).await,
    }
}

async fn unary(path: &str, call: &Call, local: Arc<Local>, body: Body) -> Response {
    match path {
        "process.Process/List" => run(call, body, |m| process::list(call, m)).await,
        "process.Process/SendInput" => run(call, body, |m| process::send_input(call, m)).await,
        "process.Process/CloseStdin" => run(call, body, |m| process::close_stdin(call, m)).await,
        "process.Process/SendSignal" => run(call, body, |m| process::send_signal(call, m)).await,
        "process.Process/Update" => run(call, body, |m| process::update(call, m)).await,
        "filesystem.Filesystem/Stat" => run(call, body, |m| filesystem::stat(call, m)).await,
        "filesystem.Filesystem/ListDir" => run(call, body, |m| filesystem::list_dir(call, m)).await,
        "filesystem.Filesystem/MakeDir" => run(call, body, |m| filesystem::make_dir(call, m)).await,
        "filesystem.Filesystem/Move" => run(call, body, |m| filesystem::rename(call, m)).await,
        "filesystem.Filesystem/Remove" => run(call, body, |m| filesystem::remove(call, m)).await,
        "filesystem.Filesystem/CreateWatcher" => {
            run(call, body, |m| watch::create(call, local, m)).await
        }
        "filesystem.Filesystem/GetWatcherEvents" => {
            run(call, body, |m| async move { watch::events(&local, &m) }).await
        }
        "filesystem.Filesystem/RemoveWatcher" => {
            run(call, body, |m| async move { watch::remove(&local, &m) }).await
        }
        "process.Process/Start"
        | "process.Process/Connect"
        | "process.Process/StreamInput"
        | "filesystem.Filesystem/WatchDir" => unsupported("application/connect+json"),
        _ => super::not_found(),
    }
}

/// Reads the message, runs the handler, both within what the client allows.
async fn run<M, T, F, R>(call: &Call, body: Body, handler: F) -> Response
where
    M: DeserializeOwned,
    T: Serialize,
    F: FnOnce(M) -> R,
    R: Future<Output = Result<T, RpcError>>,
{
    let work = async { handler(call::read_unary(call.headers(), body).await?).await };
    let result = match call.timeout() {
        Ok(None) => work.await,
        Ok(Some(limit)) => match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(call::deadline_exceeded()),
        },
        Err(error) => Err(error),
    };
    connect::unary(result)
}

async fn stream(path: &str, call: Call, body: Body) -> Response {
    match path {
        // The guest keeps the deadline of a process: it kills it, and says so.
        "process.Process/Start" => {
            respond(call, body, Deadline::Guest, process_alive(), process::start).await
        }
        "process.Process/Connect" => {
            respond(
                call,
                body,
                Deadline::Stream,
                process_alive(),
                process::connect,
            )
            .await
        }
        "filesystem.Filesystem/WatchDir" => {
            let alive = connect::message(&WatchDirResponse::Keepalive {});
            respond(call, body, Deadline::Stream, alive, watch::stream).await
        }
        "process.Process/StreamInput" => stream_input(&call, body).await,
        "process.Process/List"
        | "process.Process/SendInput"
        | "process.Process/CloseStdin"
        | "process.Process/SendSignal"
        | "process.Process/Update" => unsupported("application/json"),
        other if other.starts_with("filesystem.Filesystem/") => unsupported("application/json"),
        _ => super::not_found(),
    }
}

/// Who ends a stream that has taken too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deadline {
    Stream,
    Guest,
}

fn process_alive() -> Bytes {
    connect::message(&ProcessStreamResponse {
        event: ProcessEvent::Keepalive {},
    })
}

/// The message is read before the answer begins: clients of HTTP/1 stop sending when they are
/// answered early.
async fn respond<M, F, R>(
    call: Call,
    body: Body,
    deadline: Deadline,
    keepalive_message: Bytes,
    handler: F,
) -> Response
where
    M: DeserializeOwned,
    F: FnOnce(Call, M, Sender) -> R,
    R: Future<Output = Result<(), Stop>> + Send + 'static,
{
    let prepared = async {
        let message = Messages::new(call.headers(), body)?.one().await?;
        Ok::<_, RpcError>((message, call.timeout()?))
    };
    let (message, timeout) = match prepared.await {
        Ok(prepared) => prepared,
        Err(error) => return connect::stream_error(&error),
    };
    let terms = StreamTerms {
        keepalive: call.keepalive(),
        keepalive_message,
        deadline: timeout.filter(|_| deadline == Deadline::Stream),
    };
    call::stream(terms, |sender| handler(call, message, sender))
}

/// Streams in, one message out.
async fn stream_input(call: &Call, body: Body) -> Response {
    let work = async {
        let messages = Messages::new(call.headers(), body)?;
        process::stream_input(call, messages).await
    };
    let result = match call.timeout() {
        Ok(None) => work.await,
        Ok(Some(limit)) => tokio::time::timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(call::deadline_exceeded())),
        Err(error) => Err(error),
    };
    match result {
        Ok(reply) => {
            let body = [connect::message(&reply), connect::end_ok()].concat();
            connect::streaming(Body::from(body))
        }
        Err(error) => connect::stream_error(&error),
    }
}

fn unsupported(accepted: &'static str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
        .headers_mut()
        .insert(ACCEPT_POST, HeaderValue::from_static(accepted));
    response
}
