//! One agent process: its start, its output as lines, its input, its end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use woodfrog_acp::AgentEnd;
use woodfrog_engine::GuestLease;
use woodfrog_engine::follow::Followed;
use woodfrog_guest_client::proto::{
    Channel, ErrorCode, Exit, Follow, From, ProcessEnd, ProcessInfo, ProcessRef, SignalTarget,
    StdinMode,
};
use woodfrog_guest_client::{GuestError, ProcessEvent};
use woodfrog_types::session::Session;
use woodfrog_types::{Code, Fault, SandboxId, SessionId};

use crate::lines::{Line, Lines};
use crate::port::Machines;

/// Lines of stderr that are kept to explain an end.
const STDERR_LINES: usize = 16;
/// Bytes of one such line.
const STDERR_LINE_BYTES: usize = 2048;
/// Output that the guest keeps while nobody reads; the most it offers.
const RETENTION: u64 = 64 << 20;
/// Lines that wait for the owner.
const HEARD_MAX: usize = 256;
/// Lines that wait for the agent to read them.
const UNSENT_MAX: usize = 2048;
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// Tries to give the agent a line, when its sandbox cannot be reached.
const TRIES: u32 = 5;

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// What comes from a process.
#[derive(Debug)]
pub(crate) enum Heard {
    Line(Line),
    /// Output that the guest no longer had.
    Gap {
        from: u64,
        to: u64,
    },
    /// The last word.
    End(AgentEnd),
    /// The sandbox was put to sleep in a way that ends streams: the process goes on when somebody
    /// wants something of it.
    Away,
}

/// The last lines of stderr.
#[derive(Debug, Default, Clone)]
pub(crate) struct Stderr(Arc<Mutex<Tail>>);

#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    part: Vec<u8>,
}

impl Stderr {
    fn push(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in bytes {
            if *byte == b'\n' {
                tail.finish();
            } else if tail.part.len() < STDERR_LINE_BYTES {
                tail.part.push(*byte);
            }
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !tail.part.is_empty() {
            tail.finish();
        }
        tail.lines.iter().cloned().collect()
    }
}

impl Tail {
    fn finish(&mut self) {
        let line = String::from_utf8_lossy(&self.part).trim_end().to_owned();
        self.part.clear();
        if self.lines.len() == STDERR_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

/// A process that is listened to.
#[derive(Debug)]
pub(crate) struct Agent {
    process: u64,
    pub(crate) heard: mpsc::Receiver<Heard>,
    pub(crate) stderr: Stderr,
    input: mpsc::Sender<Input>,
    /// Ends its tasks; the process itself goes on.
    left: CancellationToken,
    machines: Reached,
}

#[derive(Debug)]
enum Input {
    Line {
        at: u64,
        line: String,
    },
    /// Nothing is to be done: the sandbox may fall asleep.
    Rest,
}

/// A sandbox and the way to it.
#[derive(Clone)]
pub(crate) struct Reached {
    pub(crate) machines: Arc<dyn Machines>,
    pub(crate) sandbox: SandboxId,
}

impl std::fmt::Debug for Reached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reached").field(&self.sandbox).finish()
    }
}

/// Starts a process for the session; what an earlier try left is ended first.
pub(crate) async fn start(reached: &Reached, session: &Session) -> Result<u64, Fault> {
    let lease = reached.machines.guest(&reached.sandbox).await?;
    let tag = tag(&session.id);
    let leftovers = lease
        .processes()
        .await
        .map_err(|error| guest_fault(&error))?;
    for process in leftovers {
        if process.tag.as_deref() == Some(tag.as_str()) && process.end.is_none() {
            end_now(&lease, process.id).await;
        }
    }
    let mut request = reached
        .machines
        .command(&reached.sandbox, &lease, session)
        .await?;
    request.tag = Some(tag);
    request.stdin = StdinMode::Open;
    request.retention = Some(RETENTION);
    request.follow = Follow::Detach;
    let started = lease.start_detached(request).await;
    started
        .map(|started| started.id)
        .map_err(|error| guest_fault(&error))
}

/// What the tag of every agent's process begins with.
const TAG: &str = "agent:";

fn tag(session: &SessionId) -> String {
    format!("{TAG}{session}")
}

/// Ends every agent in a sandbox that is a copy: those that they belong to are in the original.
pub(crate) async fn end_agents(lease: &GuestLease) -> Result<(), Fault> {
    let known = lease.processes().await;
    for process in known.map_err(|error| guest_fault(&error))? {
        let is_agent = process.tag.is_some_and(|tag| tag.starts_with(TAG));
        if is_agent && process.end.is_none() {
            end_now(lease, process.id).await;
        }
    }
    Ok(())
}

/// Whether the process of this number is the session's: where a sandbox began anew, numbers do,
/// too.
pub(crate) async fn is_of(
    reached: &Reached,
    process: u64,
    session: &SessionId,
) -> Result<bool, Fault> {
    let lease = reached.machines.guest(&reached.sandbox).await?;
    let known = lease.processes().await;
    let known = known.map_err(|error| guest_fault(&error))?;
    let tag = tag(session);
    let is_it = |it: &ProcessInfo| it.id == process && it.tag.as_ref() == Some(&tag);
    Ok(known.iter().any(is_it))
}

impl Agent {
    /// Listens to a process from `output` on. `Ok(None)`: it is not there any more.
    pub(crate) async fn attach(
        reached: &Reached,
        process: u64,
        output: u64,
    ) -> Result<Option<Self>, Fault> {
        let lease = reached.machines.guest(&reached.sandbox).await?;
        let followed =
            Followed::attach(&lease, ProcessRef::Id(process), From::Offset(output)).await;
        let followed = match followed {
            Ok(followed) => followed,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(guest_fault(&error)),
        };
        let (tell, heard) = mpsc::channel(HEARD_MAX);
        let (input, lines) = mpsc::channel(UNSENT_MAX);
        let stderr = Stderr::default();
        let left = CancellationToken::new();
        let reading = read(followed, reached.clone(), tell, stderr.clone());
        let writing = write(reached.clone(), process, lines);
        for task in [
            Box::pin(reading) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
            Box::pin(writing),
        ] {
            let left = left.clone();
            tokio::spawn(async move { left.run_until_cancelled(task).await });
        }
        Ok(Some(Self {
            process,
            heard,
            stderr,
            input,
            left,
            machines: reached.clone(),
        }))
    }

    /// Puts a line on its way. `false`: the agent has not read its input for long.
    pub(crate) fn send(&self, at: u64, line: String) -> bool {
        self.input.try_send(Input::Line { at, line }).is_ok()
    }

    /// Nothing is to be done for now.
    pub(crate) fn rest(&self) {
        // A full queue is work, and ends with a rest of its own.
        let _ = self.input.try_send(Input::Rest);
    }

    /// Input that the process has been given.
    pub(crate) async fn given(&self) -> Result<u64, GuestError> {
        let lease = self.machines.machines.guest(&self.machines.sandbox).await;
        let lease =
            lease.map_err(|fault| GuestError::Connect(std::io::Error::other(fault.message)))?;
        lease
            .write_stdin(ProcessRef::Id(self.process), None, &[])
            .await
    }

    /// Ends the process: asks it, and after a moment does not ask. Does not wait.
    pub(crate) fn stop(&self) {
        let (reached, process) = (self.machines.clone(), self.process);
        tokio::spawn(async move {
            if let Ok(lease) = reached.machines.guest(&reached.sandbox).await {
                end(&lease, process).await;
            }
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.left.cancel();
    }
}

async fn end(lease: &GuestLease, process: u64) {
    let reference = ProcessRef::Id(process);
    let asked = lease
        .signal(reference.clone(), SIGTERM, SignalTarget::Group)
        .await;
    if asked.is_ok() {
        let ended = async {
            let mut followed = lease.attach(reference, From::Latest).await?;
            while let Some(event) = followed.next().await? {
                if matches!(event, ProcessEvent::End(_)) {
                    break;
                }
            }
            Ok::<_, GuestError>(())
        };
        if let Ok(Ok(())) = tokio::time::timeout(GRACE, ended).await {
            return;
        }
    }
    end_now(lease, process).await;
}

async fn end_now(lease: &GuestLease, process: u64) {
    let killed = lease
        .signal(ProcessRef::Id(process), SIGKILL, SignalTarget::Group)
        .await;
    if let Err(error) = killed
        && !is_gone(&error)
    {
        tracing::warn!(process, %error, "an agent process could not be ended");
    }
}

/// Output to lines, until the end of the process.
async fn read(mut followed: Followed, reached: Reached, tell: mpsc::Sender<Heard>, stderr: Stderr) {
    let mut lines = Lines::default();
    let lease = followed.lease().clone();
    let end = loop {
        let mut cut = Vec::new();
        let event = tokio::select! {
            // First: where processes began anew, another one may have this one's number.
            biased;
            () = lease.ended() => break left(&lease, &reached, &stderr).await,
            event = followed.next() => event,
        };
        match event {
            Ok(Some(ProcessEvent::Output {
                stream: Channel::Stdout,
                offset,
                bytes,
            })) => lines.push(offset, &bytes, |line| cut.push(Heard::Line(line))),
            Ok(Some(ProcessEvent::Output { bytes, .. })) => stderr.push(&bytes),
            Ok(Some(ProcessEvent::Gap(gap))) => {
                lines.reset();
                cut.push(Heard::Gap {
                    from: gap.from,
                    to: gap.to,
                });
            }
            Ok(Some(ProcessEvent::Started(_))) => {}
            Ok(Some(ProcessEvent::End(end))) => break Heard::End(ended(&end, &stderr)),
            Ok(None) => break Heard::End(lost("its output ended", &stderr)),
            Err(error) => break Heard::End(lost(&error.to_string(), &stderr)),
        }
        for heard in cut {
            if tell.send(heard).await.is_err() {
                return;
            }
        }
    };
    // Nobody may listen any more.
    let _ = tell.send(end).await;
}

/// Streams of the sandbox were ended: its processes are gone, or it sleeps until somebody resumes
/// it.
async fn left(lease: &GuestLease, reached: &Reached, stderr: &Stderr) -> Heard {
    if let Some(why) = lease.began_anew() {
        Heard::End(lost(why, stderr))
    } else if reached.machines.is_gone(&reached.sandbox).await {
        Heard::End(lost("its sandbox is gone", stderr))
    } else {
        Heard::Away
    }
}

fn ended(end: &ProcessEnd, stderr: &Stderr) -> AgentEnd {
    AgentEnd {
        code: match end.exit {
            Exit::Exited { code } => Some(code),
            Exit::Signaled { .. } => None,
        },
        status: end.status.clone(),
        stderr: stderr.lines(),
    }
}

fn lost(why: &str, stderr: &Stderr) -> AgentEnd {
    AgentEnd {
        code: None,
        status: format!("out of reach: {why}"),
        stderr: stderr.lines(),
    }
}

/// Lines to input, each once. Keeps the sandbox awake until a rest.
async fn write(reached: Reached, process: u64, mut lines: mpsc::Receiver<Input>) {
    let mut lease: Option<GuestLease> = None;
    while let Some(input) = lines.recv().await {
        match input {
            Input::Rest => lease = None,
            Input::Line { at, line } => {
                if !give(&reached, &mut lease, process, at, line.as_bytes()).await {
                    return;
                }
            }
        }
    }
}

/// Gives the process these bytes, which lie at `at` of its input. `false`: it will not have them.
async fn give(
    reached: &Reached,
    lease: &mut Option<GuestLease>,
    process: u64,
    at: u64,
    bytes: &[u8],
) -> bool {
    for tries in 1..=TRIES {
        let error = match given(reached, lease, process, at, bytes).await {
            Ok(()) => return true,
            Err(error) => error,
        };
        // The reader tells of the end of the process.
        if error.code().is_some() {
            tracing::debug!(process, %error, "an agent does not take its input");
            return false;
        }
        *lease = None;
        tracing::warn!(process, tries, %error, "an agent could not be given its input");
    }
    false
}

async fn given(
    reached: &Reached,
    lease: &mut Option<GuestLease>,
    process: u64,
    at: u64,
    bytes: &[u8],
) -> Result<(), GuestError> {
    let held = match lease {
        Some(held) => held,
        None => {
            let woken = reached.machines.guest(&reached.sandbox).await;
            let woken =
                woken.map_err(|fault| GuestError::Connect(std::io::Error::other(fault.message)))?;
            lease.insert(woken)
        }
    };
    // Repeated, it skips what the process has already.
    held.write_stdin(ProcessRef::Id(process), Some(at), bytes)
        .await
        .map(drop)
}

fn is_gone(error: &GuestError) -> bool {
    matches!(
        error.code(),
        Some(ErrorCode::ProcessGone | ErrorCode::NotFound)
    )
}

/// A failed operation of the guest, as callers may see it.
pub(crate) fn guest_fault(error: &GuestError) -> Fault {
    match error.code() {
        Some(ErrorCode::NotFound | ErrorCode::InvalidArgument | ErrorCode::UnknownUser) => {
            Fault::new(
                Code::AgentExited,
                format!("the agent cannot be started: {error}"),
            )
        }
        Some(_) => Fault::new(Code::Conflict, error.to_string()),
        None => Fault::new(
            Code::GuestUnresponsive,
            format!("the guest in the sandbox does not answer: {error}"),
        ),
    }
}
