//! Operations on a guest, one connection each. The guest is not trusted: answers are bounded by
//! the protocol's decoder, and every operation has a deadline.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use woodfrog_guest_proto::{
    Channel, Configure, Configured, Decoder, ErrorBody, ErrorCode, Exit, Follow, Frame, FrameKind,
    ProcessEnd, Request, StartRequest, Started, StdinMode, encode_json, parse_json,
};
use woodfrog_types::{Code, Fault, SandboxId};

use crate::fault;
use crate::guest::Command;
use crate::inner::Inner;

/// How long a guest has for an operation that does not wait for a process.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

struct Connection {
    stream: UnixStream,
    decoder: Decoder,
}

impl Connection {
    async fn open(inner: &Inner, id: &SandboxId, request: &Request) -> Result<Self, Fault> {
        let mut stream = inner.driver.connect(id).await.map_err(fault::driver)?;
        let frame = encode_json(FrameKind::Request, request)
            .map_err(|error| Fault::invalid("request", "too large for the guest").because(error))?;
        stream.write_all(&frame).await.map_err(broken)?;
        Ok(Self {
            stream,
            decoder: Decoder::new(),
        })
    }

    async fn next(&mut self) -> Result<Frame, Fault> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(broken)? {
                return Ok(frame);
            }
            let read = self
                .stream
                .read_buf(self.decoder.buffer())
                .await
                .map_err(broken)?;
            if read == 0 {
                return Err(broken("the guest closed the connection"));
            }
        }
    }
}

fn broken(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(
        Code::GuestUnresponsive,
        "the guest in the sandbox does not answer",
    )
    .because(source)
}

fn refused(payload: &[u8]) -> Fault {
    let body: ErrorBody = match parse_json(payload) {
        Ok(body) => body,
        Err(error) => return broken(error),
    };
    let code = match body.code {
        ErrorCode::NotFound => Code::FileNotFound,
        ErrorCode::InvalidArgument | ErrorCode::UnknownUser => Code::InvalidArgument,
        ErrorCode::NoSpace => Code::NoSpace,
        ErrorCode::Busy => Code::RateLimited,
        ErrorCode::ConnectionRefused => Code::PortNotOpen,
        ErrorCode::ProcessGone => Code::ProcessNotFound,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::TooLarge => Code::TooLarge,
        ErrorCode::Unsupported => Code::Unsupported,
        ErrorCode::AlreadyExists
        | ErrorCode::NotADirectory
        | ErrorCode::IsADirectory
        | ErrorCode::Closed => Code::Conflict,
        ErrorCode::Internal => Code::GuestUnresponsive,
    };
    Fault::new(code, body.message)
}

async fn within<T>(
    limit: Duration,
    operation: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(limit, operation).await {
        Ok(result) => result,
        Err(_) => Err(broken("no answer in time")),
    }
}

/// An operation with one answer.
async fn call<T: DeserializeOwned>(
    inner: &Inner,
    id: &SandboxId,
    request: &Request,
) -> Result<T, Fault> {
    within(CALL_TIMEOUT, async {
        let mut connection = Connection::open(inner, id, request).await?;
        match connection.next().await? {
            Frame::End(payload) | Frame::Reply(payload) => parse_json(&payload).map_err(broken),
            Frame::Error(payload) => Err(refused(&payload)),
            Frame::Request(_) | Frame::Data { .. } | Frame::Event(_) => {
                Err(broken("an answer out of place"))
            }
        }
    })
    .await
}

/// Sets the guest's defaults. The first answer of a guest also proves that it is up.
pub(super) async fn configure(
    inner: &Inner,
    id: &SandboxId,
    configure: Configure,
) -> Result<(), Fault> {
    let request = Request::Configure(configure);
    within(inner.options.guest_timeout, async {
        call::<Configured>(inner, id, &request).await.map(|_| ())
    })
    .await
}

fn start_request(command: &Command, follow: Follow) -> Request {
    Request::Start(StartRequest {
        cmd: "/bin/bash".to_owned(),
        args: vec!["-l".to_owned(), "-c".to_owned(), command.line.clone()],
        env: command.env.clone(),
        cwd: command.cwd.clone(),
        user: command.user.clone(),
        stdin: StdinMode::Closed,
        tag: command.tag.clone(),
        timeout_ms: command
            .timeout
            .and_then(|limit| u64::try_from(limit.as_millis()).ok()),
        follow,
        ..StartRequest::default()
    })
}

/// Starts a command in the background.
pub(crate) async fn start(inner: &Inner, id: &SandboxId, command: &Command) -> Result<(), Fault> {
    call::<Started>(inner, id, &start_request(command, Follow::Detach))
        .await
        .map(|_| ())
}

/// How a command ended.
#[derive(Debug, Clone)]
pub(crate) struct RunEnd(ProcessEnd);

impl RunEnd {
    pub(crate) fn succeeded(&self) -> bool {
        matches!(self.0.exit, Exit::Exited { code: 0 }) && !self.0.timed_out
    }

    /// `exit status 3`, `signal: killed`.
    pub(crate) fn status(&self) -> String {
        if self.0.timed_out {
            return "it took longer than allowed".to_owned();
        }
        self.0.exit.status()
    }
}

/// Runs a command to its end; `output` gets what it writes as it comes.
pub(crate) async fn run(
    inner: &Inner,
    id: &SandboxId,
    command: &Command,
    mut output: impl FnMut(Channel, &[u8]) + Send,
) -> Result<RunEnd, Fault> {
    let request = start_request(command, Follow::Attach);
    let mut connection = within(CALL_TIMEOUT, Connection::open(inner, id, &request)).await?;
    let follow = async {
        loop {
            match connection.next().await? {
                Frame::Data { channel, bytes, .. } => output(channel, &bytes),
                Frame::End(payload) => {
                    return parse_json(&payload).map(RunEnd).map_err(broken);
                }
                Frame::Error(payload) => return Err(refused(&payload)),
                // Started, and gaps in output that was not kept.
                Frame::Reply(_) | Frame::Event(_) => {}
                Frame::Request(_) => return Err(broken("an answer out of place")),
            }
        }
    };
    // The guest ends the process at its timeout; this is for a guest that does not.
    match command.timeout {
        Some(limit) => within(limit + CALL_TIMEOUT, follow).await,
        None => follow.await,
    }
}
