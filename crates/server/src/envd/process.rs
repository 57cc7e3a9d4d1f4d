//! `process.Process`.

use std::time::Duration;

use woodfrog_engine::follow::Followed;
use woodfrog_guest_client::{ProcessEvent, StdinWriter};
use woodfrog_guest_proto as guest;
use woodfrog_types::limits;
use woodfrog_wire::envd as wire;

use super::call::{Call, Messages, Sender, Stop};
use super::connect::{self, Output, RpcCode, RpcError};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// How long a kill waits for the end of the process.
const KILL_WAIT: Duration = Duration::from_millis(500);

fn start_request(call: &Call, request: wire::StartRequest) -> Result<guest::StartRequest, Stop> {
    let wire::ProcessConfig {
        cmd,
        args,
        envs: mut env,
        cwd,
    } = request.process;
    if env.len() > limits::MAP_ENTRIES_MAX * 16 {
        let text = "too many environment variables";
        return Err(RpcError::new(RpcCode::InvalidArgument, text).into());
    }
    for (name, value) in [
        ("E2B_SANDBOX", "true"),
        ("E2B_SANDBOX_ID", call.access.id.as_str()),
    ] {
        env.entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    let stdin = match request.stdin {
        Some(false) => guest::StdinMode::Closed,
        Some(true) | None => guest::StdinMode::Open,
    };
    let timeout = call
        .timeout()?
        .map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
    Ok(guest::StartRequest {
        cmd,
        args,
        env,
        cwd: cwd.filter(|cwd| !cwd.is_empty()),
        user: Some(call.user_or_default()),
        stdin,
        pty: request.pty.map(|pty| size(pty.size.unwrap_or_default())),
        tag: request.tag,
        timeout_ms: timeout,
        follow: guest::Follow::Attach,
        ..guest::StartRequest::default()
    })
}

fn size(size: wire::PtySize) -> guest::PtySize {
    let cell = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    guest::PtySize {
        cols: cell(size.cols),
        rows: cell(size.rows),
    }
}

/// Runs a process and streams what it writes. The client's going away does not end the process;
/// its timeout does.
pub(crate) async fn start(
    call: Call,
    request: wire::StartRequest,
    sender: Sender,
) -> Result<(), Stop> {
    let request = start_request(&call, request)?;
    let started = Followed::start(call.lease, request).await;
    let stream = started.map_err(|error| not_started(error.into()))?;
    follow(stream, &sender).await
}

/// Whatever keeps a process from starting is the request's fault, unless it clearly is not.
fn not_started(error: RpcError) -> RpcError {
    match error.code {
        RpcCode::NotFound | RpcCode::PermissionDenied => RpcError::new(
            RpcCode::InvalidArgument,
            format!("error starting process: {}", error.message),
        ),
        _ => error,
    }
}

/// Streams what a process writes from now on.
pub(crate) async fn connect(
    call: Call,
    request: wire::SelectRequest,
    sender: Sender,
) -> Result<(), Stop> {
    let process = select(request.process)?;
    let attached = Followed::attach(&call.lease, process, guest::From::Latest).await;
    let stream = attached.map_err(RpcError::from)?;
    // What is left of the call would keep the sandbox awake.
    drop(call);
    follow(stream, &sender).await
}

async fn follow(mut stream: Followed, sender: &Sender) -> Result<(), Stop> {
    loop {
        let next = sender.wait(stream.next()).await?;
        match next.map_err(RpcError::from)? {
            Some(ProcessEvent::Started(started)) => {
                sender
                    .message(&event(wire::ProcessEvent::Start { pid: started.pid }))
                    .await?;
            }
            Some(ProcessEvent::Output {
                stream: channel,
                bytes,
                ..
            }) => {
                let kind = match channel {
                    guest::Channel::Stdout | guest::Channel::Plain => Output::Stdout,
                    guest::Channel::Stderr => Output::Stderr,
                    guest::Channel::Pty => Output::Pty,
                };
                for chunk in bytes.chunks(kind.chunk_max()) {
                    sender.envelope(connect::output(kind, chunk)).await?;
                }
            }
            // The guest holds a process back for its readers: what is lost was lost before.
            Some(ProcessEvent::Gap(_)) => {}
            Some(ProcessEvent::End(end)) if end.timed_out => {
                return Err(super::call::deadline_exceeded().into());
            }
            Some(ProcessEvent::End(end)) => {
                sender
                    .message(&event(wire::ProcessEvent::End(end_event(end))))
                    .await?;
                return Ok(());
            }
            None => return Ok(()),
        }
    }
}

fn event(event: wire::ProcessEvent) -> wire::ProcessStreamResponse {
    wire::ProcessStreamResponse { event }
}

fn end_event(end: guest::ProcessEnd) -> wire::EndEvent {
    let (exit_code, exited) = match end.exit {
        guest::Exit::Exited { code } => (code, true),
        guest::Exit::Signaled { .. } => (-1, false),
    };
    let error = (exit_code != 0).then(|| end.status.clone());
    wire::EndEvent {
        exit_code,
        exited,
        status: end.status,
        error,
    }
}

fn select(selector: wire::ProcessSelector) -> Result<guest::ProcessRef, RpcError> {
    match (selector.pid, selector.tag) {
        (Some(pid), None) => Ok(guest::ProcessRef::Pid(pid)),
        (None, Some(tag)) => Ok(guest::ProcessRef::Tag(tag)),
        _ => Err(RpcError::new(
            RpcCode::Unimplemented,
            "a process is named by its pid or its tag",
        )),
    }
}

/// The processes that were started here and still run.
pub(crate) async fn list(call: &Call, _: wire::Nothing) -> Result<wire::ListResponse, RpcError> {
    let list = call.lease.processes().await?;
    let running = list.into_iter().filter(|process| process.end.is_none());
    let processes = running
        .map(|process| wire::ProcessInfo {
            config: wire::ProcessConfig {
                cmd: process.cmd,
                args: process.args,
                envs: process.env,
                cwd: Some(process.cwd),
            },
            pid: process.pid,
            tag: process.tag,
        })
        .collect();
    Ok(wire::ListResponse { processes })
}

/// The bytes of an input and what to call it when it cannot be given.
fn input(input: wire::ProcessInput) -> Result<(Vec<u8>, &'static str), RpcError> {
    match (input.stdin, input.pty) {
        (Some(bytes), None) => Ok((bytes.0, "stdin")),
        (None, Some(bytes)) => Ok((bytes.0, "tty")),
        _ => Err(RpcError::new(
            RpcCode::Unimplemented,
            "input is for stdin or for the pty",
        )),
    }
}

/// Input that a process does not take is an internal error to clients; that it is not there
/// keeps its own code.
fn not_written(error: RpcError, what: &str) -> RpcError {
    match error.code {
        RpcCode::NotFound | RpcCode::Unavailable => error,
        _ => RpcError::new(
            RpcCode::Internal,
            format!("error writing to {what}: {}", error.message),
        ),
    }
}

pub(crate) async fn send_input(
    call: &Call,
    request: wire::SendInputRequest,
) -> Result<wire::Nothing, RpcError> {
    let process = select(request.process)?;
    let (bytes, what) = input(request.input)?;
    let written = async {
        let mut stdin = call.lease.open_stdin(process, None).await?;
        stdin.write(&bytes).await?;
        stdin.finish().await
    };
    written
        .await
        .map_err(|error| not_written(error.into(), what))?;
    Ok(wire::Nothing {})
}

/// Input in order: every message waits until the guest has taken the one before.
pub(crate) async fn stream_input(
    call: &Call,
    mut messages: Messages,
) -> Result<wire::Nothing, RpcError> {
    let mut target = None;
    while let Some(message) = messages.next::<wire::StreamInputRequest>().await? {
        if let Some(start) = message.start {
            finish(target.take()).await?;
            let process = select(start.process)?;
            let opened = call.lease.open_stdin(process, None).await;
            target = Some(opened.map_err(|error| not_written(error.into(), "stdin"))?);
        } else if let Some(data) = message.data {
            let (bytes, what) = input(data.input)?;
            let Some(stdin) = &mut target else {
                let text = "the stream's first message must name the process";
                return Err(RpcError::new(RpcCode::InvalidArgument, text));
            };
            stdin
                .write(&bytes)
                .await
                .map_err(|error| not_written(error.into(), what))?;
        } else if message.keepalive.is_none() {
            return Err(RpcError::new(
                RpcCode::Unimplemented,
                "unknown event in the stream",
            ));
        }
    }
    finish(target).await?;
    Ok(wire::Nothing {})
}

async fn finish(target: Option<StdinWriter>) -> Result<(), RpcError> {
    if let Some(stdin) = target {
        stdin
            .finish()
            .await
            .map_err(|error| not_written(error.into(), "stdin"))?;
    }
    Ok(())
}

pub(crate) async fn close_stdin(
    call: &Call,
    request: wire::SelectRequest,
) -> Result<wire::Nothing, RpcError> {
    let process = select(request.process)?;
    let closed = call
        .lease
        .close_stdin(process)
        .await
        .map_err(RpcError::from);
    closed.map_err(|error| match error.code {
        RpcCode::Unimplemented | RpcCode::InvalidArgument => RpcError::new(
            RpcCode::Unknown,
            "error closing stdin: cannot close stdin for PTY process — send Ctrl+D (0x04) instead",
        ),
        _ => error,
    })?;
    Ok(wire::Nothing {})
}

pub(crate) async fn send_signal(
    call: &Call,
    request: wire::SendSignalRequest,
) -> Result<wire::Nothing, RpcError> {
    let signal = match request.signal {
        wire::Signal::Term => SIGTERM,
        wire::Signal::Kill => SIGKILL,
        wire::Signal::Unspecified => {
            return Err(RpcError::new(RpcCode::Unimplemented, "invalid signal"));
        }
    };
    let process = select(request.process)?;
    if signal == SIGKILL {
        return kill(call, process).await;
    }
    let target = guest::SignalTarget::Process;
    call.lease.signal(process, signal, target).await?;
    Ok(wire::Nothing {})
}

/// Kills a process and waits a moment for its end, so that who asks next finds it ended.
async fn kill(call: &Call, process: guest::ProcessRef) -> Result<wire::Nothing, RpcError> {
    let latest = guest::From::Latest;
    let mut stream = call.lease.attach(process.clone(), latest).await?;
    let target = guest::SignalTarget::Process;
    call.lease.signal(process, SIGKILL, target).await?;
    let end = async { while let Ok(Some(_)) = stream.next().await {} };
    // A process that the kernel holds back ends later; the signal is on its way.
    let _ = tokio::time::timeout(KILL_WAIT, end).await;
    Ok(wire::Nothing {})
}

pub(crate) async fn update(
    call: &Call,
    request: wire::UpdateRequest,
) -> Result<wire::Nothing, RpcError> {
    let process = select(request.process)?;
    if let Some(pty) = request.pty {
        let size = size(pty.size.unwrap_or_default());
        let resized = call
            .lease
            .resize(process, size)
            .await
            .map_err(RpcError::from);
        resized.map_err(|error| match error.code {
            RpcCode::NotFound | RpcCode::Unavailable => error,
            _ => {
                let text = format!("error resizing tty: {}", error.message);
                RpcError::new(RpcCode::Internal, text)
            }
        })?;
    }
    Ok(wire::Nothing {})
}
