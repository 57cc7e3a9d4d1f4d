//! One RPC: whose it is, what it says, how long it may take.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;
use woodfrog_engine::{GuestLease, SandboxAccess};

use super::connect::{self, Decoder, Envelope, MESSAGE_BYTES_MAX, RpcCode, RpcError};

const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
const KEEPALIVE: HeaderName = HeaderName::from_static("keepalive-ping-interval");
const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(90);
/// Connect allows ten digits.
const TIMEOUT_DIGITS_MAX: usize = 10;
/// Envelopes that wait for a slow client.
const ENVELOPES_QUEUED: usize = 8;

/// Everything an RPC's handler needs.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) access: SandboxAccess,
    pub(crate) lease: GuestLease,
    /// `None`: the sandbox's default user.
    pub(crate) user: Option<String>,
    headers: HeaderMap,
}

impl Call {
    pub(crate) fn new(access: SandboxAccess, lease: GuestLease, headers: HeaderMap) -> Self {
        let user = super::auth::basic_user(&headers);
        Self {
            access,
            lease,
            user,
            headers,
        }
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The user whom the call names, else the sandbox's.
    pub(crate) fn user_or_default(&self) -> String {
        self.user
            .clone()
            .unwrap_or_else(|| self.access.default_user.clone())
    }

    /// What the client allows for the whole call; zero and absent mean no limit.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, RpcError> {
        let Some(value) = self.headers.get(TIMEOUT) else {
            return Ok(None);
        };
        let millis: Option<u64> = value
            .to_str()
            .ok()
            .filter(|text| text.len() <= TIMEOUT_DIGITS_MAX)
            .and_then(|text| text.parse().ok());
        match millis {
            None => Err(RpcError::new(
                RpcCode::InvalidArgument,
                "malformed Connect-Timeout-Ms",
            )),
            Some(0) => Ok(None),
            Some(millis) => Ok(Some(Duration::from_millis(millis))),
        }
    }

    /// How often a stream says that it is alive when it has nothing else to say.
    pub(crate) fn keepalive(&self) -> Duration {
        self.headers
            .get(KEEPALIVE)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .filter(|seconds| *seconds > 0)
            .map_or(KEEPALIVE_DEFAULT, Duration::from_secs)
    }
}

/// What a call that took too long is told.
pub(crate) fn deadline_exceeded() -> RpcError {
    RpcError::new(RpcCode::DeadlineExceeded, "context deadline exceeded")
}

/// Whether the message is one JSON object or a stream of them, by content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Unary,
    Stream,
}

impl Codec {
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        match value
            .split(';')
            .next()?
            .trim()
            .to_ascii_lowercase()
            .as_str()
        {
            "application/json" => Some(Self::Unary),
            "application/connect+json" => Some(Self::Stream),
            _ => None,
        }
    }
}

/// The message of a unary call.
pub(crate) async fn read_unary<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T, RpcError> {
    check_identity(headers, &header::CONTENT_ENCODING)?;
    let bytes = Limited::new(body, MESSAGE_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| {
            if error.downcast_ref::<LengthLimitError>().is_some() {
                RpcError::from(connect::EnvelopeError::TooLarge(MESSAGE_BYTES_MAX + 1))
            } else {
                RpcError::new(RpcCode::InvalidArgument, "the request broke off")
            }
        })?;
    connect::parse(&bytes.to_bytes())
}

/// What is read of a request after its message, at most.
const DRAIN_BYTES_MAX: usize = 64 << 10;
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The messages of a stream from the client.
pub(crate) struct Messages {
    body: BodyDataStream,
    decoder: Decoder,
    over: bool,
}

impl Messages {
    pub(crate) fn new(headers: &HeaderMap, body: Body) -> Result<Self, RpcError> {
        check_identity(
            headers,
            &HeaderName::from_static("connect-content-encoding"),
        )?;
        Ok(Self {
            body: body.into_data_stream(),
            decoder: Decoder::default(),
            over: false,
        })
    }

    /// The next message, or `None` at the end of the client's side.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, RpcError> {
        loop {
            match self.decoder.next()? {
                Some(Envelope::Message(bytes)) => return connect::parse(&bytes).map(Some),
                Some(Envelope::End) => return Ok(None),
                None if self.over => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
                None => match self.body.next().await {
                    Some(Ok(bytes)) => self.decoder.feed(&bytes),
                    Some(Err(_)) => {
                        return Err(RpcError::new(RpcCode::Unknown, "the request broke off"));
                    }
                    None => self.over = true,
                },
            }
        }
    }

    /// The one message of a call that streams its answer.
    pub(crate) async fn one<T: DeserializeOwned>(mut self) -> Result<T, RpcError> {
        let message = self
            .next()
            .await?
            .ok_or_else(|| RpcError::new(RpcCode::Unimplemented, "the stream has no message"))?;
        self.drain();
        Ok(message)
    }

    /// Reads what is left beside the answer. A body that is dropped unread costs its connection,
    /// and a client that is about to use it again loses its next request.
    fn drain(mut self) {
        if self.over {
            return;
        }
        tokio::spawn(async move {
            let mut left = DRAIN_BYTES_MAX;
            let rest = async {
                while let Some(Ok(bytes)) = self.body.next().await {
                    left = left.saturating_sub(bytes.len());
                    if left == 0 {
                        break;
                    }
                }
            };
            // Over the time the connection is closed, as it would have been without this.
            let _ = tokio::time::timeout(DRAIN_MAX, rest).await;
        });
    }
}

fn check_identity(headers: &HeaderMap, name: &HeaderName) -> Result<(), RpcError> {
    match headers.get(name) {
        None => Ok(()),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"identity") => Ok(()),
        Some(_) => Err(connect::EnvelopeError::Compressed.into()),
    }
}

/// Sends envelopes to the client; waits while the client is slow.
pub(crate) struct Sender {
    queue: mpsc::Sender<Bytes>,
    keepalive: Duration,
    keepalive_message: Bytes,
    deadline: Option<Instant>,
}

/// The client went away: there is nobody to tell, the handler just ends.
#[derive(Debug)]
pub(crate) struct Gone;

/// Why a stream's handler ends.
pub(crate) enum Stop {
    Gone,
    Failed(RpcError),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<RpcError> for Stop {
    fn from(error: RpcError) -> Self {
        Self::Failed(error)
    }
}

impl Sender {
    pub(crate) async fn message(&self, value: &impl Serialize) -> Result<(), Gone> {
        self.envelope(connect::message(value)).await
    }

    pub(crate) async fn envelope(&self, bytes: Bytes) -> Result<(), Gone> {
        self.queue.send(bytes).await.map_err(|_| Gone)
    }

    /// Waits for what comes next and tells the client meanwhile that the stream lives. Ends when
    /// the client goes or the deadline passes.
    pub(crate) async fn wait<T>(&self, next: impl Future<Output = T>) -> Result<T, Stop> {
        let mut next = std::pin::pin!(next);
        loop {
            tokio::select! {
                value = &mut next => return Ok(value),
                () = self.queue.closed() => return Err(Stop::Gone),
                () = tokio::time::sleep(self.keepalive) => {
                    self.envelope(self.keepalive_message.clone()).await?;
                }
                () = sleep_until(self.deadline) => return Err(deadline_exceeded().into()),
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What a stream sends when it has nothing to say, and when it must be over.
pub(crate) struct StreamTerms {
    pub(crate) keepalive: Duration,
    pub(crate) keepalive_message: Bytes,
    pub(crate) deadline: Option<Duration>,
}

/// Runs a handler that streams its answer. The last envelope is made from how it ends.
pub(crate) fn stream<F, R>(terms: StreamTerms, handler: F) -> Response
where
    F: FnOnce(Sender) -> R,
    R: Future<Output = Result<(), Stop>> + Send + 'static,
{
    let (queue, envelopes) = mpsc::channel(ENVELOPES_QUEUED);
    let sender = Sender {
        queue: queue.clone(),
        keepalive: terms.keepalive,
        keepalive_message: terms.keepalive_message,
        deadline: terms.deadline.map(|timeout| Instant::now() + timeout),
    };
    let handler = handler(sender);
    tokio::spawn(async move {
        let last = match handler.await {
            Ok(()) => connect::end_ok(),
            Err(Stop::Failed(error)) => connect::end_error(&error),
            Err(Stop::Gone) => return,
        };
        // Whether the client is still there to read it makes no difference.
        let _ = queue.send(last).await;
    });
    let envelopes = tokio_stream::wrappers::ReceiverStream::new(envelopes);
    connect::streaming(Body::from_stream(
        envelopes.map(Ok::<_, std::convert::Infallible>),
    ))
}
