//! Requests of one connection, with headers set, and their answers.
//!
//! HTTP/1.1 on both sides. Bodies stream as they come; one connection to the server is kept for
//! as long as the client keeps its own.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::sync::Mutex;

use super::decide::Target;
use super::dial::{DialError, Dialer};
use super::forward::{Unfit, outgoing, strip_hop_by_hop, wanted_upgrade};
use crate::registry::PolicyWatch;

/// How long a client may leave a connection without a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of a head, and of what is read ahead of a body.
const HEAD_MAX: usize = 64 * 1024;

/// How the server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

type Body = Either<Incoming, Full<Bytes>>;

/// What is answered instead of the server.
enum Refusal {
    Unfit(Unfit),
    /// The rule is gone.
    NoRule,
    Dial(DialError),
    /// The server did not answer as it should.
    Server(hyper::Error),
    Upgrade,
}

/// The requests of one connection.
pub(super) struct Exchange {
    dialer: Arc<Dialer>,
    watch: PolicyWatch,
    slot: u32,
    host: String,
    target: Target,
    scheme: Scheme,
    server: Mutex<Option<SendRequest<Incoming>>>,
    /// Both ends of a connection that left HTTP.
    upgraded: StdMutex<Option<(OnUpgrade, OnUpgrade)>>,
}

impl Exchange {
    pub(super) fn new(
        dialer: Arc<Dialer>,
        watch: PolicyWatch,
        slot: u32,
        host: &str,
        target: Target,
        scheme: Scheme,
    ) -> Arc<Self> {
        Arc::new(Self {
            dialer,
            watch,
            slot,
            host: host.to_owned(),
            target,
            scheme,
            server: Mutex::new(None),
            upgraded: StdMutex::new(None),
        })
    }

    /// Serves the client until it has enough.
    pub(super) async fn serve<C>(self: Arc<Self>, client: C) -> io::Result<()>
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = service_fn(|request| {
            let this = Arc::clone(&self);
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_MAX)
            .preserve_header_case(true)
            .serve_connection(TokioIo::new(client), service)
            .with_upgrades()
            .await
            .map_err(io::Error::other)?;
        let upgraded = self
            .upgraded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((client, server)) = upgraded else {
            return Ok(());
        };
        let joined = tokio::try_join!(client, server).map_err(io::Error::other)?;
        let (mut client, mut server) = (TokioIo::new(joined.0), TokioIo::new(joined.1));
        copy_bidirectional(&mut client, &mut server).await.map(drop)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match self.forward(request).await {
            Ok(response) => response,
            Err(refusal) => {
                let (status, why) = self.told(&refusal);
                let text = format!("{why}\n");
                let mut response = Response::new(Either::Right(Full::from(text)));
                *response.status_mut() = status;
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
                response
            }
        }
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        // At every request anew: what is set may have been replaced.
        let headers = self.headers().ok_or(Refusal::NoRule)?;
        outgoing(&mut request, &self.host, &headers).map_err(Refusal::Unfit)?;
        let client = wanted_upgrade(&request).map(|_| hyper::upgrade::on(&mut request));
        let mut response = self.send(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let client = client.ok_or(Refusal::Upgrade)?;
            let server = hyper::upgrade::on(&mut response);
            let mut upgraded = self.upgraded.lock().unwrap_or_else(PoisonError::into_inner);
            *upgraded = Some((client, server));
        } else {
            strip_hop_by_hop(response.headers_mut());
            // Elsewhere, over HTTP/3, say, headers would not be set.
            response.headers_mut().remove(header::ALT_SVC);
        }
        Ok(response.map(Either::Left))
    }

    fn headers(&self) -> Option<Arc<HeaderMap>> {
        let policy = self.watch.borrow();
        policy.rule_for(&self.host)?.headers().cloned()
    }

    /// Sends on the connection that there is, or on a new one: a server may close the old one at
    /// any time between two requests.
    async fn send(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>, Refusal> {
        let mut held = self.server.lock().await;
        if let Some(mut server) = held.take()
            && server.ready().await.is_ok()
        {
            match server.try_send_request(request).await {
                Ok(response) => {
                    *held = Some(server);
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Refusal::Server(error.into_error())),
                },
            }
        }
        let mut server = self.connect().await?;
        let response = server
            .send_request(request)
            .await
            .map_err(Refusal::Server)?;
        *held = Some(server);
        Ok(response)
    }

    async fn connect(&self) -> Result<SendRequest<Incoming>, Refusal> {
        let policy = Arc::clone(&self.watch.borrow());
        let (slot, target) = (self.slot, &self.target);
        let stream = match self.scheme {
            Scheme::Http => self.dialer.dial(slot, &policy, target).await,
            Scheme::Https => {
                let dialled = self.dialer.dial_tls(slot, &policy, target, &self.host);
                dialled.await
            }
        };
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .preserve_header_case(true)
            .max_buf_size(HEAD_MAX)
            .handshake(TokioIo::new(stream.map_err(Refusal::Dial)?))
            .await
            .map_err(Refusal::Server)?;
        // Ends with the exchange, which holds the sender and what reads the bodies.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection for a sandbox ended early");
            }
        });
        Ok(sender)
    }

    fn told(&self, refusal: &Refusal) -> (StatusCode, &'static str) {
        let (slot, host) = (self.slot, self.host.as_str());
        match refusal {
            Refusal::Unfit(Unfit::Misdirected) => (
                StatusCode::MISDIRECTED_REQUEST,
                "the request is for another host than its connection",
            ),
            Refusal::Unfit(Unfit::Method) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "the network policy of the sandbox does not let this method through",
            ),
            Refusal::NoRule | Refusal::Dial(DialError::Forbidden) => (
                StatusCode::FORBIDDEN,
                "blocked by the network policy of the sandbox",
            ),
            Refusal::Dial(error) => {
                tracing::debug!(
                    slot,
                    host,
                    error = error as &dyn std::error::Error,
                    "no connection"
                );
                (StatusCode::BAD_GATEWAY, "the host cannot be connected to")
            }
            Refusal::Server(error) => {
                tracing::debug!(slot, host, %error, "no answer");
                (StatusCode::BAD_GATEWAY, "the host did not answer")
            }
            Refusal::Upgrade => (
                StatusCode::BAD_GATEWAY,
                "the host switched protocols unasked",
            ),
        }
    }
}
