//! What one connection does: frames and events in, frames and effects out. Pure.

use std::time::Duration;

use woodfrog_core::names;
use woodfrog_wire::ws::{ClientFrame, Details, Exec, NotAFrame, Pty, ServerFrame, Status};

/// Bytes of code in one frame.
pub(super) const CODE_BYTES_MAX: usize = 8 << 20;
/// The longest time that may be asked for one execution.
const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// The name of a language, cut for a message.
const SHOWN_MAX: usize = 64;

/// Why a WebSocket was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// What was asked for is done.
    Normal,
    /// Not found, or in use.
    Refused,
    /// The server stops; another attach will do.
    Restart,
    /// The sandbox is on another server now.
    Moved,
    Fatal,
}

impl Close {
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::Normal | Self::Moved => 1000,
            Self::Refused => 1011,
            Self::Restart => 1012,
            Self::Fatal => 4000,
        }
    }
}

/// A language that code may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Python,
    Bash,
}

impl Language {
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "python" => Some(Self::Python),
            "bash" => Some(Self::Bash),
            _ => None,
        }
    }
}

/// Code to be run, checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Program {
    pub(super) language: Language,
    pub(super) code: String,
    pub(super) timeout: Option<Duration>,
    /// What else was said.
    pub(super) options: Exec,
}

/// How an execution ended, for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) exit_code: i32,
    pub(super) signal: Option<i32>,
    pub(super) timed_out: bool,
}

/// A sentence and its stable code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) message: String,
    pub(super) code: Option<String>,
}

impl Failed {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: None,
        }
    }

    fn details(&self) -> Details {
        Details {
            message: Some(self.message.clone()),
            code: self.code.clone(),
            ..Details::default()
        }
    }
}

/// Done in this order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    Send(ServerFrame),
    /// Answered by [`Machine::started`].
    Start(Box<Program>),
    /// Output goes to the client from here on; answered by [`Machine::drained`] at its end.
    Deliver {
        cursor: Option<String>,
    },
    Stdin {
        data: String,
        end: bool,
    },
    Resize(Pty),
    /// Answered by [`Machine::killed`].
    KillProcess,
    /// Answered by [`Machine::checkpointed`].
    Checkpoint,
    /// Answered by [`Machine::snapshotted`].
    Snapshot(String),
    /// Answered by [`Machine::deleted`].
    Delete,
    Close(Close),
}

/// What the sandbox was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) checkpoint: bool,
    /// What becomes of it when it is idle.
    pub(super) on_idle: OnIdle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnIdle {
    Delete,
    Checkpoint,
}

/// What an earlier connection left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Running,
    /// Its client is not known to have been told of its end.
    Ended,
}

/// What is known of the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    Unknown,
    /// It has shown that it comes back by itself when its connection breaks.
    Returns,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Nothing,
    /// It runs, and nobody listens to it since its client went.
    Held,
    /// It ended, and its client is not known to have been told.
    Left,
    Delivering,
}

impl Run {
    const fn of(found: Found) -> Self {
        match found {
            Found::Nothing => Self::Nothing,
            Found::Running => Self::Held,
            Found::Ended => Self::Left,
        }
    }
}

/// Why a checkpoint or a deletion is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Asked,
    Idle,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    run: Run,
    leaving: Option<Why>,
    client: Client,
    closed: bool,
}

fn send(status: Status) -> Effect {
    Effect::Send(ServerFrame::status(status))
}

/// A status that says why, and the error of the protocol.
fn fail(status: Status, failed: &Failed) -> [Effect; 2] {
    [
        Effect::Send(ServerFrame::Status(status, failed.details())),
        Effect::Send(ServerFrame::Error {
            message: failed.message.clone(),
        }),
    ]
}

fn failing(status: Status, message: &str) -> Vec<Effect> {
    fail(status, &Failed::new(message)).into()
}

/// Input that was taken goes with the server that took it.
fn dropped(unread: usize) -> Vec<Effect> {
    match unread {
        0 => Vec::new(),
        _ => failing(
            Status::StdinError,
            &format!(
                "Up to {unread} bytes of input had not reached the process yet and were dropped."
            ),
        ),
    }
}

const BUSY: &str = "An execution is already in progress.";

impl Machine {
    /// Of a connection that has been told that its sandbox runs.
    pub(super) const fn new(settings: Settings, found: Found, client: Client) -> Self {
        Self {
            settings,
            run: Run::of(found),
            leaving: None,
            client,
            closed: false,
        }
    }

    /// The process that nobody listens to has ended.
    pub(super) fn over(&mut self) {
        if self.run == Run::Held {
            self.run = Run::Left;
        }
    }

    /// Nothing more is done once this is true.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether code runs, which is no idleness.
    pub(super) const fn is_running(&self) -> bool {
        match self.run {
            Run::Held | Run::Delivering => true,
            Run::Nothing | Run::Left => false,
        }
    }

    /// A text from the client.
    pub(super) fn frame(&mut self, text: &str) -> Vec<Effect> {
        if self.closed {
            return Vec::new();
        }
        match ClientFrame::parse(text) {
            Ok(frame) => self.obey(frame),
            Err(NotAFrame(message)) => self.fatal(Status::Error, &Failed::new(message)),
        }
    }

    /// A message that is no text.
    pub(super) fn binary(&mut self) -> Vec<Effect> {
        self.fatal(
            Status::Error,
            &Failed::new("Invalid message: only text frames are understood"),
        )
    }

    fn obey(&mut self, frame: ClientFrame) -> Vec<Effect> {
        match frame {
            ClientFrame::Exec(exec) => self.exec(*exec),
            ClientFrame::Stdin(stdin) => match (stdin.data, stdin.end) {
                (None, false) => failing(
                    Status::StdinError,
                    "Invalid stdin message format. 'data' field is required.",
                ),
                (data, end) => vec![Effect::Stdin {
                    data: data.unwrap_or_default(),
                    end,
                }],
            },
            ClientFrame::Resize(size) => vec![Effect::Resize(size)],
            ClientFrame::KillProcess => match self.run {
                Run::Nothing | Run::Left => vec![send(Status::ExecutionForceKilled)],
                Run::Held | Run::Delivering => vec![Effect::KillProcess],
            },
            ClientFrame::Reconnect { cursor } => {
                self.client = Client::Returns;
                match (self.run, cursor) {
                    (Run::Nothing, None) => vec![send(Status::ExecutionDone)],
                    // The process may have ended while its client was away.
                    (_, cursor) => {
                        self.run = Run::Delivering;
                        vec![Effect::Deliver { cursor }]
                    }
                }
            }
            ClientFrame::Checkpoint => self.checkpoint(),
            ClientFrame::SnapshotFilesystem { name } => self.snapshot(name),
            ClientFrame::KillSandbox => {
                self.leaving = Some(Why::Asked);
                vec![
                    send(Status::Killing),
                    send(Status::Deleting),
                    Effect::Delete,
                ]
            }
        }
    }

    fn exec(&mut self, exec: Exec) -> Vec<Effect> {
        if self.is_running() {
            return failing(Status::ExecutionError, BUSY);
        }
        let refused = |status, message: String| {
            let mut effects = failing(status, &message);
            effects.push(send(Status::ExecutionDone));
            effects
        };
        let named = exec.language.as_ref().and_then(|name| name.as_str());
        let Some(language) = named.and_then(Language::of) else {
            let shown = match (&exec.language, named) {
                (_, Some(name)) => name.chars().take(SHOWN_MAX).collect(),
                (None, None) => "None".to_owned(),
                (Some(value), None) if value.is_null() => "None".to_owned(),
                (Some(value), None) => value.to_string().chars().take(SHOWN_MAX).collect(),
            };
            return refused(
                Status::ExecutionUnsupportedLanguageError,
                format!("Unsupported language: '{shown}'. Supported languages are: python, bash"),
            );
        };
        let code = exec.code.as_ref().and_then(|code| code.as_str());
        let Some(code) = code.map(str::to_owned) else {
            return refused(
                Status::ExecutionError,
                "Invalid message format. 'language' and 'code' fields are required. Supported \
                 languages are: python, bash"
                    .to_owned(),
            );
        };
        match check(&exec, &code) {
            Err(message) => refused(Status::ExecutionError, message),
            Ok(timeout) => vec![Effect::Start(Box::new(Program {
                language,
                code,
                timeout,
                options: Exec { code: None, ..exec },
            }))],
        }
    }

    /// What was to be run runs, and its output begins at `cursor`; or it could not be started.
    pub(super) fn started(&mut self, result: Result<String, Failed>) -> Vec<Effect> {
        match result {
            Ok(cursor) => {
                self.run = Run::Delivering;
                let details = Details {
                    cursor: Some(cursor),
                    ..Details::default()
                };
                vec![
                    Effect::Send(ServerFrame::Status(Status::ExecutionRunning, details)),
                    Effect::Deliver { cursor: None },
                ]
            }
            Err(failed) => {
                let mut effects: Vec<_> = fail(Status::ExecutionError, &failed).into();
                effects.push(send(Status::ExecutionDone));
                effects
            }
        }
    }

    /// The client has been sent all output of a process that ended; `None` where nobody knows how.
    pub(super) fn drained(&mut self, ended: Option<Ended>) -> Vec<Effect> {
        if self.closed {
            return Vec::new();
        }
        self.run = Run::Nothing;
        let details = match ended {
            Some(ended) => Details {
                exit_code: Some(ended.exit_code),
                signal: ended.signal,
                timed_out: ended.timed_out,
                ..Details::default()
            },
            None => Details::default(),
        };
        let done = ServerFrame::Status(Status::ExecutionDone, details);
        vec![Effect::Send(done)]
    }

    /// Output cannot go on where the client says that it is. What runs, or has ended unheard, is
    /// as `found` and goes on.
    pub(super) fn misplaced(&mut self, found: Found, failed: &Failed) -> Vec<Effect> {
        let mut effects = self.complain(Some(Status::ExecutionError), failed);
        match found {
            Found::Nothing => effects.extend(self.drained(None)),
            Found::Running | Found::Ended => self.run = Run::of(found),
        }
        effects
    }

    /// Something went wrong with the output or the input of the process; it goes on.
    pub(super) fn complain(&self, status: Option<Status>, failed: &Failed) -> Vec<Effect> {
        match status {
            Some(status) => fail(status, failed).into(),
            None => vec![Effect::Send(ServerFrame::Error {
                message: failed.message.clone(),
            })],
        }
    }

    /// The process was told to end.
    pub(super) fn killed(&mut self, result: Result<(), Failed>) -> Vec<Effect> {
        match result {
            Ok(()) => {
                let mut effects = vec![send(Status::ExecutionForceKilled)];
                if self.run == Run::Held {
                    self.run = Run::Delivering;
                    effects.push(Effect::Deliver { cursor: None });
                }
                effects
            }
            Err(failed) => fail(Status::ExecutionForceKillError, &failed).into(),
        }
    }

    fn checkpoint(&mut self) -> Vec<Effect> {
        if self.is_running() {
            return failing(
                Status::ExecutionInProgressError,
                "Cannot checkpoint while an execution is in progress.",
            );
        }
        if !self.settings.checkpoint {
            let refused = Failed::new("Checkpointing is not enabled for this sandbox.");
            return self.fatal(Status::CheckpointError, &refused);
        }
        self.leaving = Some(Why::Asked);
        vec![send(Status::Checkpointing), Effect::Checkpoint]
    }

    /// The sandbox is safe on disk; or it goes on as before.
    pub(super) fn checkpointed(&mut self, result: Result<(), Failed>) -> Vec<Effect> {
        let why = self.leaving.take();
        match (result, why) {
            (Ok(()), _) => self.leave(vec![
                send(Status::Deleting),
                send(Status::Deleted),
                send(Status::Checkpointed),
            ]),
            // Nobody asked: the client goes on, and it is tried again.
            (Err(failed), Some(Why::Idle)) => {
                let mut effects = self.complain(None, &failed);
                effects.push(send(Status::Running));
                effects
            }
            (Err(failed), Some(Why::Asked) | None) => self.fatal(Status::CheckpointError, &failed),
        }
    }

    fn snapshot(&mut self, name: Option<String>) -> Vec<Effect> {
        let Some(name) = name else {
            let message = "Invalid message format. 'name' field is required.";
            return self.fatal(Status::Error, &Failed::new(message));
        };
        let mut effects = vec![send(Status::FilesystemSnapshotCreating)];
        if names::template_name(&name).is_err() {
            effects.extend(self.snapshotted(Err(Failed::new(bad_name(&name)))));
        } else {
            effects.push(Effect::Snapshot(name));
        }
        effects
    }

    /// The snapshot is safe on disk, or there is none.
    pub(super) fn snapshotted(&mut self, result: Result<(), Failed>) -> Vec<Effect> {
        match result {
            Ok(()) => vec![send(Status::FilesystemSnapshotCreated)],
            Err(failed) => {
                let mut effects: Vec<_> = fail(Status::FilesystemSnapshotError, &failed).into();
                // A client that takes the error for the sandbox's new state learns that it runs.
                effects.push(send(Status::Running));
                effects
            }
        }
    }

    /// The sandbox is gone, or could not be removed.
    pub(super) fn deleted(&mut self, result: Result<(), Failed>) -> Vec<Effect> {
        match (result, self.leaving.take()) {
            (Ok(()), Some(Why::Idle)) => self.leave(vec![send(Status::Deleted)]),
            (Ok(()), Some(Why::Asked) | None) => {
                let mut effects = self.lose_process();
                effects.extend([Status::Deleted, Status::Killed].map(send));
                self.leave(effects)
            }
            (Err(failed), _) => fail(Status::KillError, &failed).into(),
        }
    }

    /// Nothing happened for as long as the sandbox may be idle.
    pub(super) fn idle(&mut self) -> Vec<Effect> {
        if self.closed || self.is_running() {
            return Vec::new();
        }
        self.leaving = Some(Why::Idle);
        match self.settings.on_idle {
            OnIdle::Checkpoint => vec![send(Status::Checkpointing), Effect::Checkpoint],
            OnIdle::Delete => vec![send(Status::Deleting), Effect::Delete],
        }
    }

    /// Somebody else ended the sandbox.
    pub(super) fn gone(&mut self) -> Vec<Effect> {
        if self.closed {
            return Vec::new();
        }
        let mut effects = self.lose_process();
        effects.extend([send(Status::Deleting), send(Status::Deleted)]);
        self.leave(effects)
    }

    /// Another server has the sandbox now, and what runs in it goes on there, without as many
    /// bytes of input as are `unread`.
    pub(super) fn moved(&mut self, unread: usize) -> Vec<Effect> {
        if self.closed {
            return Vec::new();
        }
        let mut effects = vec![
            send(Status::LockReleaseRequested),
            send(Status::Checkpointing),
        ];
        effects.extend(dropped(unread));
        if self.run != Run::Nothing {
            let message = "The sandbox goes on on another server. Attach to it there.";
            let details = Details {
                detached: true,
                ..Details::message(message)
            };
            let done = ServerFrame::Status(Status::ExecutionDone, details);
            effects.push(Effect::Send(done));
        }
        effects.extend(
            [
                Status::Deleting,
                Status::LockReleasing,
                Status::LockReleased,
                Status::Deleted,
                Status::Checkpointed,
            ]
            .map(send),
        );
        self.closed = true;
        effects.push(Effect::Close(Close::Moved));
        effects
    }

    /// Another server took the sandbox without this one having let it go.
    pub(super) fn lost(&mut self) -> Vec<Effect> {
        if self.closed {
            return Vec::new();
        }
        let mut effects = self.lose_process();
        let why = Failed::new("Another server has taken the sandbox over.");
        effects.extend(self.fatal(Status::LockRenewalError, &why));
        effects
    }

    /// The server stops; the sandbox goes on, and so does its process. A client that comes back by
    /// itself finds it; one that would wait for ever is told that it need not. The process goes on
    /// without as many bytes of input as are `unread`.
    pub(super) fn shutdown(&mut self, unread: usize) -> Vec<Effect> {
        if self.closed {
            return Vec::new();
        }
        let mut effects = dropped(unread);
        if self.run == Run::Delivering && self.client == Client::Unknown {
            let message = "The server stops; the process goes on. Attach to the sandbox again.";
            effects.extend(failing(Status::ExecutionError, message));
            let details = Details {
                detached: true,
                ..Details::message(message)
            };
            let done = ServerFrame::Status(Status::ExecutionDone, details);
            effects.push(Effect::Send(done));
        }
        self.closed = true;
        effects.push(Effect::Close(Close::Restart));
        effects
    }

    /// The process that the client waits for ends with the sandbox.
    fn lose_process(&mut self) -> Vec<Effect> {
        if self.run == Run::Nothing {
            return Vec::new();
        }
        self.run = Run::Nothing;
        vec![
            send(Status::ExecutionForceKilled),
            send(Status::ExecutionDone),
        ]
    }

    fn leave(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        self.closed = true;
        effects.push(Effect::Close(Close::Normal));
        effects
    }

    fn fatal(&mut self, status: Status, failed: &Failed) -> Vec<Effect> {
        self.closed = true;
        let mut effects: Vec<_> = fail(status, failed).into();
        effects.push(Effect::Close(Close::Fatal));
        effects
    }
}

/// Why this cannot be the name of a snapshot.
pub(super) fn bad_name(name: &str) -> String {
    let shown: String = name.chars().take(SHOWN_MAX).collect();
    format!(
        "'{shown}' is no name of a snapshot: 1 to 128 characters of a-z, 0-9, '.', '_' and '-' that \
         begin with a letter or digit"
    )
}

/// The parts of a request that are no types: gives its timeout.
fn check(exec: &Exec, code: &str) -> Result<Option<Duration>, String> {
    if code.len() > CODE_BYTES_MAX {
        return Err(format!("code has at most {CODE_BYTES_MAX} bytes"));
    }
    if code.contains('\0') {
        return Err("code must not contain null characters".to_owned());
    }
    let Some(seconds) = exec.timeout else {
        return Ok(None);
    };
    let timeout = Duration::try_from_secs_f64(seconds).ok();
    match timeout.filter(|timeout| !timeout.is_zero() && *timeout <= TIMEOUT_MAX) {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(format!(
            "timeout must be more than 0 and at most {} seconds",
            TIMEOUT_MAX.as_secs()
        )),
    }
}

#[cfg(test)]
mod tests;
