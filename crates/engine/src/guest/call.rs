//! Operations on a guest, through the guest client.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use woodfrog_guest_client::proto::{
    Configure, ErrorCode, Exit, ProcessEnd, StartRequest, StdinMode,
};
use woodfrog_guest_client::{Connect, GuestClient, GuestError, ProcessEvent};
use woodfrog_sandbox::Driver;
use woodfrog_types::{Code, Fault, SandboxId};

use crate::guest::Command;
use crate::inner::Inner;

/// Beyond a command's own timeout: for a guest that does not end it.
const GRACE: Duration = Duration::from_secs(10);

/// Connections that the driver makes and whose peer it checked.
struct ThroughDriver {
    driver: Arc<dyn Driver>,
    id: SandboxId,
}

impl Connect for ThroughDriver {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send + '_>> {
        Box::pin(async {
            self.driver
                .connect(&self.id)
                .await
                .map_err(io::Error::other)
        })
    }
}

/// The guest of a sandbox.
pub(crate) fn client(inner: &Inner, id: &SandboxId) -> GuestClient {
    GuestClient::new(Arc::new(ThroughDriver {
        driver: Arc::clone(&inner.driver),
        id: id.clone(),
    }))
}

/// A failed operation of a guest, as callers may see it.
pub(crate) fn guest_fault(error: GuestError) -> Fault {
    let code = match error.code() {
        Some(ErrorCode::NotFound) => Code::FileNotFound,
        Some(ErrorCode::InvalidArgument | ErrorCode::UnknownUser) => Code::InvalidArgument,
        Some(ErrorCode::NoSpace) => Code::NoSpace,
        Some(ErrorCode::Busy) => Code::RateLimited,
        Some(ErrorCode::ConnectionRefused) => Code::PortNotOpen,
        Some(ErrorCode::ProcessGone) => Code::ProcessNotFound,
        Some(ErrorCode::PermissionDenied) => Code::PermissionDenied,
        Some(ErrorCode::TooLarge) => Code::TooLarge,
        Some(ErrorCode::Unsupported) => Code::Unsupported,
        Some(
            ErrorCode::AlreadyExists
            | ErrorCode::NotADirectory
            | ErrorCode::IsADirectory
            | ErrorCode::Closed,
        ) => Code::Conflict,
        Some(ErrorCode::Internal) | None => return unresponsive(error),
    };
    Fault::new(code, error.to_string())
}

fn unresponsive(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(
        Code::GuestUnresponsive,
        "the guest in the sandbox does not answer",
    )
    .because(source)
}

/// Sets the guest's defaults. The first answer of a guest also proves that it is up.
pub(super) async fn configure(
    inner: &Inner,
    id: &SandboxId,
    configure: Configure,
) -> Result<(), Fault> {
    let client = client(inner, id).with_deadline(inner.options.guest_timeout);
    let configured = client.configure(configure).await;
    configured.map(|_| ()).map_err(guest_fault)
}

fn start_request(command: &Command) -> StartRequest {
    StartRequest {
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
        ..StartRequest::default()
    }
}

/// Starts a command in the background.
pub(crate) async fn start(inner: &Inner, id: &SandboxId, command: &Command) -> Result<(), Fault> {
    let started = client(inner, id)
        .start_detached(start_request(command))
        .await;
    started.map(|_| ()).map_err(guest_fault)
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
    mut output: impl FnMut(&[u8]) + Send,
) -> Result<RunEnd, Fault> {
    let follow = async {
        let mut stream = client(inner, id).start(start_request(command)).await?;
        loop {
            match stream.next().await? {
                Some(ProcessEvent::Output { bytes, .. }) => output(&bytes),
                Some(ProcessEvent::Started(_) | ProcessEvent::Gap(_)) => {}
                Some(ProcessEvent::End(end)) => return Ok(RunEnd(end)),
                None => return Err(GuestError::Protocol("a process without an end".to_owned())),
            }
        }
    };
    let ended = match command.timeout {
        Some(limit) => tokio::time::timeout(limit + GRACE, follow)
            .await
            .unwrap_or(Err(GuestError::Timeout)),
        None => follow.await,
    };
    ended.map_err(guest_fault)
}
