//! Requests to ports inside sandboxes.
//!
//! What happens in a sandbox is none of our business: bytes stream both ways as they come, and
//! only what HTTP says is between two hops is changed.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use woodfrog_engine::{GuestLease, SandboxAccess};
use woodfrog_types::Fault;

pub(crate) mod answer;
pub(crate) mod body;
mod headers;
mod inside;
mod plane;
mod upgrade;

pub use plane::DataPlane;

use answer::Refusal;
use body::Guarded;
pub(crate) use headers::{Peer, Scheme};

const TRAFFIC_TOKEN: &str = "e2b-traffic-access-token";
/// Without a byte for this long a request is given up, waiting for its head or in its body.
const IDLE: Duration = Duration::from_secs(640);

/// Brings a request to a port inside and its answer back.
pub(crate) async fn proxy(
    plane: &dyn DataPlane,
    access: SandboxAccess,
    port: u16,
    request: Request<Body>,
    peer: Peer,
) -> Response {
    match attempt(plane, &access, port, request, peer).await {
        Ok(response) => response,
        Err(refusal) => refusal.response(access.id.as_str()),
    }
}

async fn attempt(
    plane: &dyn DataPlane,
    access: &SandboxAccess,
    port: u16,
    mut request: Request<Body>,
    peer: Peer,
) -> Result<Response, Refusal> {
    let form = answer::Form::of(request.headers());
    let refuse = |fault: Fault| Refusal::of_fault(&fault, port, form);
    check_traffic(access, request.headers(), form)?;
    if request.method() == http::Method::CONNECT {
        return Err(Refusal::plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "CONNECT is not served",
            form,
        ));
    }
    let lease = plane.guest(&access.id).await.map_err(refuse)?;
    let stream = tokio::select! {
        () = lease.ended() => return Err(Refusal::not_found(form)),
        stream = plane.port_connect(&access.id, port) => stream.map_err(refuse)?,
    };
    let _ = stream.set_nodelay(true);
    let upgrade = upgrade::Wanted::take(&mut request);
    headers::outgoing(&mut request, &access.network, port, peer, upgrade.as_ref());
    let https = access.network.https_ports.contains(&port);
    let sent = async {
        match https {
            true => send(inside::secure(stream).await?, request).await,
            false => send(stream, request).await,
        }
    };
    let sent = tokio::time::timeout(IDLE, sent);
    let response = tokio::select! {
        () = lease.ended() => return Err(Refusal::not_found(form)),
        sent = sent => match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                tracing::debug!(sandbox = %access.id, port, %error, "a port inside did not answer");
                return Err(Refusal::plain(
                    StatusCode::BAD_GATEWAY,
                    "The service in the sandbox closed the connection without an answer",
                    form,
                ));
            }
            Err(_) => {
                let text = "The service in the sandbox did not answer in time";
                return Err(Refusal::plain(StatusCode::GATEWAY_TIMEOUT, text, form));
            }
        },
    };
    Ok(answered(response, upgrade, lease))
}

/// The answer as it goes out.
fn answered(
    mut response: http::Response<hyper::body::Incoming>,
    upgrade: Option<upgrade::Wanted>,
    lease: GuestLease,
) -> Response {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(wanted) = upgrade
    {
        let inside = hyper::upgrade::on(&mut response);
        let (parts, _) = response.into_parts();
        wanted.join(inside, lease.quiet());
        return Response::from_parts(parts, Body::empty());
    }
    headers::strip_hop_by_hop(response.headers_mut());
    response.map(|body| Body::new(Guarded::quiet(Body::new(body), &lease).idle_limit(IDLE)))
}

fn check_traffic(
    access: &SandboxAccess,
    headers: &HeaderMap,
    form: answer::Form,
) -> Result<(), Refusal> {
    let Some(token) = &access.traffic_token else {
        return Ok(());
    };
    match headers.get(TRAFFIC_TOKEN) {
        Some(given) if crate::envd::auth::same(given.as_bytes(), token.as_bytes()) => Ok(()),
        Some(_) => Err(Refusal::plain(
            StatusCode::FORBIDDEN,
            "Sandbox is secured with traffic access token. Provided token in header \
             'e2b-traffic-access-token' is invalid",
            form,
        )),
        None => Err(Refusal::plain(
            StatusCode::FORBIDDEN,
            "Sandbox is secured with traffic access token. Token header \
             'e2b-traffic-access-token' is missing",
            form,
        )),
    }
}

/// One request on a connection of its own.
///
/// Servers in sandboxes read header names as they are written in every tutorial, so names are
/// written `Like-This`.
async fn send<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    request: Request<Body>,
) -> io::Result<http::Response<hyper::body::Incoming>> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Ends with the exchange: the sender is dropped below, the body when the client is done.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a port inside ended early");
        }
    });
    sender.send_request(request).await.map_err(io::Error::other)
}
