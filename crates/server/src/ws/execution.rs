//! Code that runs in a sandbox for a client. It does not end with its client's connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use woodfrog_engine::follow::Followed;
use woodfrog_engine::{Engine, GuestLease};
use woodfrog_guest_client::proto::{
    Channel, Exit, From, PathRequest, ProcessEnd, ProcessInfo, ProcessRef, PtySize, SignalTarget,
    StartRequest, StdinMode, WriteRequest,
};
use woodfrog_guest_client::{GuestError, ProcessEvent};
use woodfrog_types::SandboxId;
use woodfrog_wire::ws::{Output, Pty};

use super::failed;
use super::machine::{Ended, Failed, Language, Program};
use super::outbox::{Cursor, Outbox};
use crate::native::exec_fault;

/// By which a later server finds what this one started.
pub(super) const TAG: &str = "woodfrog.ws";
/// Output that the guest keeps for readers that come back after the server did.
const RETENTION: u64 = 2 << 20;
/// Bytes of code that are an argument; more are a file, which is removed as the code is read.
const ARGUMENT_BYTES_MAX: usize = 96 << 10;
/// Bytes of input that wait for the process.
const INPUT_BYTES_MAX: usize = 16 << 20;
/// How long a process may leave its input unread before it is given up.
const INPUT_PATIENCE: Duration = Duration::from_secs(24 * 3600);
const SIGKILL: i32 = 9;

const PYTHON_FILE: &str = "import os,sys\np=sys.argv.pop()\nwith open(p) as f: c=f.read()\n\
                           os.unlink(p)\nexec(compile(c,'main.py','exec'))\n";
const BASH_FILE: &str = "c=$(<\"$1\"); rm -f -- \"$1\"; shift; eval \"$c\"";

/// Input that waits.
struct Input {
    data: String,
    end: bool,
}

/// See the module.
pub(super) struct Execution {
    pub(super) process: u64,
    state: Mutex<State>,
    /// There is output, an end or a complaint.
    pub(super) news: Notify,
    /// There is room for output.
    room: Notify,
    input: mpsc::UnboundedSender<Input>,
    /// Bytes of it.
    queued: Arc<AtomicUsize>,
    /// No more of it is written.
    refused: CancellationToken,
    stop: CancellationToken,
    /// It is over.
    pub(super) ended: CancellationToken,
}

struct State {
    outbox: Outbox,
    /// `Some(None)`: it is over, and nobody knows how it ended.
    end: Option<Option<Ended>>,
    complaints: Vec<Failed>,
}

impl Execution {
    /// Runs code.
    pub(super) async fn start(
        engine: &Engine,
        id: &SandboxId,
        program: Program,
    ) -> Result<Arc<Self>, Failed> {
        let guest = engine.guest(id).await.map_err(failed)?;
        let request = request(&guest, program).await?;
        let followed = Followed::start(guest, request).await;
        let followed = followed.map_err(|error| failed(exec_fault(error)))?;
        let cursor = Cursor::start(followed.started().id);
        Ok(Self::follow(engine, id, followed, cursor))
    }

    /// Takes up a process that an earlier server started, or whose output is wanted again.
    pub(super) async fn take_up(
        engine: &Engine,
        id: &SandboxId,
        cursor: Cursor,
    ) -> Result<Arc<Self>, Failed> {
        let guest = engine.guest(id).await.map_err(failed)?;
        let from = From::Offset(cursor.offset);
        let followed = Followed::attach(&guest, ProcessRef::Id(cursor.process), from).await;
        let followed = followed.map_err(|error| failed(exec_fault(error)))?;
        Ok(Self::follow(engine, id, followed, cursor))
    }

    fn follow(engine: &Engine, id: &SandboxId, followed: Followed, cursor: Cursor) -> Arc<Self> {
        let (input, inputs) = mpsc::unbounded_channel();
        let execution = Arc::new(Self {
            process: cursor.process,
            state: Mutex::new(State {
                outbox: Outbox::new(cursor),
                end: None,
                complaints: Vec::new(),
            }),
            news: Notify::new(),
            room: Notify::new(),
            input,
            queued: Arc::default(),
            refused: CancellationToken::new(),
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        tokio::spawn(Arc::clone(&execution).pump(followed));
        tokio::spawn(Arc::clone(&execution).feed(engine.clone(), id.clone(), inputs));
        execution
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody wants to know of it any more; the process is left alone.
    pub(super) fn abandon(&self) {
        self.stop.cancel();
    }

    pub(super) fn is_over(&self) -> bool {
        self.state().end.is_some()
    }

    /// How it ended, once it has; `Some(None)`: nobody knows.
    pub(super) fn end(&self) -> Option<Option<Ended>> {
        self.state().end
    }

    /// Behind what its client has. Once it is over, too: its client may not know that.
    pub(super) fn progress(&self) -> Cursor {
        self.state().outbox.confirmed().clone()
    }

    /// Says that its output comes again, as nobody knows how much of it the client has.
    pub(super) fn repeats(&self) {
        self.complain(Failed::new(
            "The server was restarted without notice: output that is kept comes again.",
        ));
    }

    pub(super) fn complaints(&self) -> Vec<Failed> {
        std::mem::take(&mut self.state().complaints)
    }

    fn complain(&self, complaint: Failed) {
        self.state().complaints.push(complaint);
        self.news.notify_one();
    }

    /// Does something with the output that waits.
    pub(super) fn outbox<T>(&self, work: impl FnOnce(&mut Outbox, bool) -> T) -> T {
        let mut state = self.state();
        let over = state.end.is_some();
        let done = work(&mut state.outbox, over);
        if state.outbox.has_room() {
            self.room.notify_one();
        }
        done
    }

    /// Reads the process's output as long as there is room for it: it is held back otherwise.
    async fn pump(self: Arc<Self>, mut followed: Followed) {
        let guest = followed.lease().quiet();
        let end = loop {
            let room = self.room.notified();
            if !self.state().outbox.has_room() {
                tokio::select! {
                    () = room => continue,
                    // The stream lets go of the guest, and goes on when the sandbox does.
                    () = guest.closing() => {}
                    () = guest.ended() => break None,
                    () = self.stop.cancelled() => return,
                }
            }
            let event = tokio::select! {
                event = followed.next() => event,
                () = guest.ended() => break None,
                () = self.stop.cancelled() => return,
            };
            match event {
                Ok(Some(ProcessEvent::Output { stream, bytes, .. })) => {
                    let output = match stream {
                        Channel::Stderr => Output::Stderr,
                        Channel::Stdout | Channel::Pty | Channel::Plain => Output::Stdout,
                    };
                    self.state().outbox.push(output, &bytes);
                    self.news.notify_one();
                }
                Ok(Some(ProcessEvent::Gap(gap))) => {
                    self.state().outbox.skip_to(gap.to);
                    let lost = gap.to - gap.from;
                    self.complain(Failed::new(format!(
                        "{lost} bytes of output are no longer kept"
                    )));
                }
                Ok(Some(ProcessEvent::End(end))) => break Some(ended(&end)),
                Ok(Some(ProcessEvent::Started(_))) => {}
                Ok(None) => break None,
                Err(error) => {
                    self.complain(failed(exec_fault(error)));
                    break None;
                }
            }
        };
        let mut state = self.state();
        state.outbox.finish();
        state.end = Some(end);
        drop(state);
        self.ended.cancel();
        self.news.notify_one();
    }

    /// Takes input for the process; written in the order in which it comes.
    pub(super) fn write(&self, data: String, end: bool) -> Result<(), Failed> {
        let bytes = data.len();
        let queued = self.queued.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if queued > INPUT_BYTES_MAX {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Failed::new(format!(
                "The process does not read its input: {INPUT_BYTES_MAX} bytes wait already. This \
                 input was dropped."
            )));
        }
        // Nobody takes the input of a process that ended.
        let _ = self.input.send(Input { data, end });
        Ok(())
    }

    /// Writes no more input. Gives how many bytes may not have reached the process; none where it
    /// has ended, since nobody wants them then.
    pub(super) fn refuse_input(&self) -> usize {
        self.refused.cancel();
        match self.is_over() {
            true => 0,
            false => self.queued.load(Ordering::Relaxed),
        }
    }

    async fn feed(
        self: Arc<Self>,
        engine: Engine,
        id: SandboxId,
        mut inputs: mpsc::UnboundedReceiver<Input>,
    ) {
        let work = async {
            while let Some(mut input) = inputs.recv().await {
                // Many small pieces are one write.
                while !input.end
                    && let Ok(more) = inputs.try_recv()
                {
                    input.data.push_str(&more.data);
                    input.end = more.end;
                }
                if !self.feed_one(&engine, &id, &input).await {
                    return;
                }
                self.queued.fetch_sub(input.data.len(), Ordering::Relaxed);
            }
        };
        tokio::select! {
            () = work => {}
            () = self.refused.cancelled() => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Whether more input has a chance.
    async fn feed_one(&self, engine: &Engine, id: &SandboxId, input: &Input) -> bool {
        let process = ProcessRef::Id(self.process);
        let written = async {
            let guest = engine.guest(id).await.map_err(failed)?;
            let guest = guest.quiet().with_deadline(INPUT_PATIENCE);
            if !input.data.is_empty() {
                let bytes = input.data.as_bytes();
                let written = guest.write_stdin(process.clone(), None, bytes).await;
                written.map_err(|error| failed(exec_fault(error)))?;
            }
            if input.end {
                let closed = guest.close_stdin(process).await;
                closed.map_err(|error| failed(exec_fault(error)))?;
            }
            Ok::<(), Failed>(())
        };
        match written.await {
            Ok(()) => true,
            // A process that ended, or closed its stdin, does not want it.
            Err(_) if self.is_over() => false,
            Err(complaint) => {
                let (why, bytes) = (&complaint.message, input.data.len());
                let message = format!("{why}; up to {bytes} bytes of input were dropped");
                self.complain(Failed {
                    message,
                    ..complaint
                });
                true
            }
        }
    }

    pub(super) async fn kill(&self, engine: &Engine, id: &SandboxId) -> Result<(), Failed> {
        let guest = engine.guest(id).await.map_err(failed)?;
        let process = ProcessRef::Id(self.process);
        let killed = guest.signal(process, SIGKILL, SignalTarget::Group).await;
        match killed {
            Ok(()) => Ok(()),
            // It ended by itself meanwhile.
            Err(error) if gone(&error) => Ok(()),
            Err(error) => Err(failed(exec_fault(error))),
        }
    }

    pub(super) async fn resize(
        &self,
        engine: &Engine,
        id: &SandboxId,
        size: Pty,
    ) -> Result<(), Failed> {
        let guest = engine.guest(id).await.map_err(failed)?;
        let resized = guest.resize(ProcessRef::Id(self.process), pty_size(size));
        resized.await.map_err(|error| failed(exec_fault(error)))
    }
}

/// The process of an earlier server that still runs in a sandbox, or has ended without its client
/// knowing, and where that client was. `noted` is what that server wrote down, if it could.
pub(super) async fn left_running(
    guest: &GuestLease,
    noted: Option<Cursor>,
) -> Result<Option<Left>, Failed> {
    let processes = guest.processes().await;
    let processes = processes.map_err(|error| failed(exec_fault(error)))?;
    Ok(left(&processes, noted))
}

fn left(processes: &[ProcessInfo], noted: Option<Cursor>) -> Option<Left> {
    let ours = || {
        let all = processes.iter();
        all.filter(|it| it.tag.as_deref() == Some(TAG))
    };
    let running = ours().filter(|it| it.end.is_none());
    match (running.max_by_key(|it| it.id), noted) {
        (Some(last), Some(cursor)) if cursor.process == last.id => Some(Left::Known(cursor)),
        (Some(last), Some(_) | None) => Some(Left::Repeated(Cursor::start(last.id).at(last.kept))),
        // What has ended is kept by the guest for a while; only the note says that it is untold.
        (None, Some(cursor)) => {
            let is_kept = ours().any(|it| it.id == cursor.process);
            is_kept.then_some(Left::Known(cursor))
        }
        (None, None) => None,
    }
}

/// A process that an earlier server left.
pub(super) enum Left {
    /// Its output goes on where it was.
    Known(Cursor),
    /// Nobody knows where its client was: what is kept comes again.
    Repeated(Cursor),
}

fn gone(error: &GuestError) -> bool {
    use woodfrog_guest_client::proto::ErrorCode;
    matches!(
        error.code(),
        Some(ErrorCode::ProcessGone | ErrorCode::NotFound)
    )
}

fn ended(end: &ProcessEnd) -> Ended {
    let (exit_code, signal) = match end.exit {
        Exit::Exited { code } => (code, None),
        Exit::Signaled { signal, .. } => (128 + signal, Some(signal)),
    };
    Ended {
        exit_code,
        signal,
        timed_out: end.timed_out,
    }
}

const fn pty_size(size: Pty) -> PtySize {
    PtySize {
        cols: size.cols,
        rows: size.rows,
    }
}

/// What the guest is to start.
pub(super) async fn request(guest: &GuestLease, program: Program) -> Result<StartRequest, Failed> {
    let Program {
        language,
        code,
        timeout,
        options,
    } = program;
    let (cmd, mut args) = match language {
        Language::Python => ("python3", vec!["-u", "-c"]),
        Language::Bash => ("/bin/bash", vec!["-c"]),
    };
    let file;
    if code.len() <= ARGUMENT_BYTES_MAX {
        args.push(&code);
        if language == Language::Bash {
            args.push("main.sh");
        }
    } else {
        file = format!("/tmp/.woodfrog-{}", uuid::Uuid::new_v4().simple());
        let at = WriteRequest {
            at: PathRequest {
                path: file.clone(),
                user: options.user.clone(),
                xattr_prefix: None,
            },
            mode: Some(0o600),
            ..WriteRequest::default()
        };
        let written = guest.write_all(at, code.as_bytes()).await;
        written.map_err(|error| failed(exec_fault(error)))?;
        match language {
            Language::Python => args.extend([PYTHON_FILE, &file]),
            Language::Bash => args.extend([BASH_FILE, "main.sh", &file]),
        }
    }
    Ok(StartRequest {
        cmd: cmd.to_owned(),
        args: args.into_iter().map(str::to_owned).collect(),
        env: options.env,
        cwd: options.cwd,
        user: options.user,
        stdin: StdinMode::Open,
        pty: options.pty.map(pty_size),
        tag: Some(TAG.to_owned()),
        timeout_ms: timeout.and_then(|limit| u64::try_from(limit.as_millis()).ok()),
        retention: Some(RETENTION),
        ..StartRequest::default()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn process(id: u64, tag: &str, ended: bool) -> ProcessInfo {
        ProcessInfo {
            id,
            pid: 1,
            tag: Some(tag.to_owned()),
            cmd: "/bin/bash".to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
            cwd: "/".to_owned(),
            user: "user".to_owned(),
            pty: None,
            started_ms: 0,
            ended_ms: None,
            kept: 3,
            offset: 9,
            end: ended.then(|| ProcessEnd {
                exit: Exit::Exited { code: 0 },
                status: "exit status 0".to_owned(),
                timed_out: false,
                offset: 9,
            }),
        }
    }

    /// The place, and whether what is kept comes again.
    fn found(processes: &[ProcessInfo], noted: Option<&str>) -> Option<(String, bool)> {
        let noted = noted.map(|text| text.parse().unwrap());
        left(processes, noted).map(|left| match left {
            Left::Known(cursor) => (cursor.to_string(), false),
            Left::Repeated(cursor) => (cursor.to_string(), true),
        })
    }

    #[test]
    fn what_ended_unheard_is_found_by_its_note_alone() {
        let ended = [process(1, TAG, true), process(2, TAG, true)];
        assert_eq!(found(&ended, Some("2:5")), Some(("2:5".to_owned(), false)));
        assert_eq!(found(&ended, None), None, "its end was told");
        assert_eq!(found(&ended, Some("3:5")), None, "no longer kept");
        let another_s = [process(2, "another", true)];
        assert_eq!(found(&another_s, Some("2:5")), None);
    }

    #[test]
    fn what_runs_is_found_with_and_without_a_note() {
        let all = [process(1, TAG, true), process(2, TAG, false)];
        assert_eq!(found(&all, Some("2:5")), Some(("2:5".to_owned(), false)));
        assert_eq!(found(&all, None), Some(("2:3".to_owned(), true)));
        assert_eq!(found(&all, Some("1:5")), Some(("2:3".to_owned(), true)));
    }
}
