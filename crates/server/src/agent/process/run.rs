//! A program run to its end.

use std::time::{Duration, Instant};

use axum::{Extension, Json};
use woodfrog_engine::GuestLease;
use woodfrog_engine::follow::Followed;
use woodfrog_guest_client::ProcessEvent;
use woodfrog_guest_client::proto::{Channel, ProcessRef, SignalTarget, StartRequest};
use woodfrog_wire::agent::process::{Ran, Run};

use super::{SIGKILL, command_of, not_started, sandbox_ended, table};
use crate::agent::AgentHost;
use crate::agent::extract::Json as JsonBody;
use crate::agent::problem::{Failure, Result};

/// How long a client's going away may take to reach the process.
const GIVING_UP: Duration = Duration::from_secs(5);

/// Runs a program and answers with what it printed. It ends with its client.
pub(super) async fn run(
    Extension(host): Extension<AgentHost>,
    JsonBody(request): JsonBody<Run>,
) -> Result<Json<Ran>> {
    let config = host.state.processes.current();
    let timeout = request.timeout_ms.unwrap_or(config.default_run_timeout_ms);
    let most = request.max_output_bytes.unwrap_or(config.max_output_bytes);
    if timeout == 0 {
        return Err(Failure::invalid("timeoutMs must be greater than 0"));
    }
    let most = usize::try_from(most.min(config.max_output_bytes)).unwrap_or(usize::MAX);
    let Run {
        command,
        args,
        cwd,
        env,
        ..
    } = request;
    let start = StartRequest {
        timeout_ms: Some(timeout.min(config.max_run_timeout_ms)),
        ..command_of(command, args, cwd, env)?
    };
    let guest = host.guest().await?;
    let began = Instant::now();
    let mut process = Followed::start(guest.clone(), start)
        .await
        .map_err(not_started)?;
    let mut leash = Leash(Some((guest.quiet(), process.started().id)));
    let ran = tokio::select! {
        ran = to_the_end(&mut process, most, began) => ran,
        () = guest.ended() => Err(sandbox_ended()),
    };
    leash.0 = None;
    Ok(Json(ran?))
}

async fn to_the_end(process: &mut Followed, most: usize, began: Instant) -> Result<Ran> {
    let (mut out, mut err) = (Output::new(most), Output::new(most));
    loop {
        match process.next().await? {
            Some(ProcessEvent::Output { stream, bytes, .. }) => match stream {
                Channel::Stderr => err.take(&bytes),
                Channel::Stdout | Channel::Pty | Channel::Plain => out.take(&bytes),
            },
            Some(ProcessEvent::End(end)) => {
                return Ok(Ran {
                    exit_code: table::exit_code(&end),
                    timed_out: end.timed_out,
                    stdout_truncated: out.truncated,
                    stderr_truncated: err.truncated,
                    stdout: out.text(),
                    stderr: err.text(),
                    duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                });
            }
            Some(ProcessEvent::Gap(_)) => {
                out.truncated = true;
                err.truncated = true;
            }
            Some(ProcessEvent::Started(_)) => {}
            None => return Err(sandbox_ended()),
        }
    }
}

/// The beginning of what a program prints.
struct Output {
    bytes: Vec<u8>,
    most: usize,
    truncated: bool,
}

impl Output {
    fn new(most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            most,
            truncated: false,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = self.most - self.bytes.len();
        self.truncated |= bytes.len() > room;
        self.bytes
            .extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn text(self) -> String {
        String::from_utf8(self.bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

/// Ends the process if nobody waits for its answer any more.
struct Leash(Option<(GuestLease, u64)>);

impl Drop for Leash {
    fn drop(&mut self) {
        let Some((guest, id)) = self.0.take() else {
            return;
        };
        tokio::spawn(async move {
            let process = ProcessRef::Id(id);
            let guest = guest.with_deadline(GIVING_UP);
            // It may have ended by itself.
            if let Err(error) = guest.signal(process, SIGKILL, SignalTarget::Group).await {
                tracing::debug!(%error, "a program whose client left was not ended");
            }
        });
    }
}
