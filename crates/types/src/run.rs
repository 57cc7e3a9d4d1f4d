//! A run: one call of an agent or a program in a sandbox, and the record of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::usage::{Cost, Tokens};
use crate::workspace::UserId;
use crate::{RunId, SandboxId, SessionId, Timestamp, WorkspaceId};

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// A prompt to an agent.
    Prompt {
        agent: String,
        /// The model that was asked for; the agent's own default if none.
        model: Option<String>,
    },
    /// A command, by `/bin/sh -c`; its output is read as events where it is some, else as text.
    Command,
}

impl Work {
    /// A stable name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Prompt { .. } => "prompt",
            Self::Command => "command",
        }
    }

    /// The agent that is prompted.
    pub fn agent(&self) -> Option<&str> {
        match self {
            Self::Prompt { agent, .. } => Some(agent),
            Self::Command => None,
        }
    }
}

/// Where a run is on its way to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// It waits for its turn.
    Queued,
    /// Its sandbox and process are being started since then.
    Starting { since: Timestamp },
}

/// Why a run that is under way does nothing for now. Its sandbox sleeps, its processes intact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub since: Timestamp,
    /// `budget`, or what else holds it.
    pub reason: String,
}

/// How a run ended. Nothing of a run that ended changes any more but what retention removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    Failed(RunError),
    Canceled { by: Option<UserId>, reason: String },
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    Booting(Boot),
    Running {
        since: Timestamp,
        held: Option<Held>,
    },
    Ended {
        /// When it was running, if it ever was.
        since: Option<Timestamp>,
        at: Timestamp,
        outcome: Outcome,
    },
}

impl RunState {
    /// A stable name: `booting`, `running`, `succeeded`, `failed` or `canceled`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Booting(_) => "booting",
            Self::Running { .. } => "running",
            Self::Ended { outcome, .. } => match outcome {
                Outcome::Succeeded => "succeeded",
                Outcome::Failed(_) => "failed",
                Outcome::Canceled { .. } => "canceled",
            },
        }
    }

    /// Whether it is over.
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

/// What kind of thing went wrong; the order and the rules are those of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorCategory {
    Timeout,
    Api,
    Tool,
    Sandbox,
    Unknown,
}

impl ErrorCategory {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Timeout,
        Self::Api,
        Self::Tool,
        Self::Sandbox,
        Self::Unknown,
    ];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Api => "api_error",
            Self::Tool => "tool_error",
            Self::Sandbox => "sandbox_error",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunError {
    pub category: ErrorCategory,
    /// Stable, at most 50 characters: `timeout`, `idle_timeout`, `exit_status`, `stuck_booting`.
    pub code: String,
    /// At most 1,000 characters.
    pub message: String,
    /// At most 2,000 characters: the last lines of its standard error, for one.
    pub details: Option<String>,
}

/// What a run may use. `None` is no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLimits {
    /// From the start of its process; time on hold does not count.
    pub wall: Duration,
    /// Without any sign of life of its process.
    pub idle: Option<Duration>,
    /// Tokens of all kinds together.
    pub tokens: Option<u64>,
    /// Micro-dollars.
    pub cost: Option<u64>,
}

/// The label of a sandbox that was made for a run and goes with it: the run's id.
pub const RUN_LABEL: &str = "woodfrog.run";
/// What the name of a hold begins with that a run took; its id follows.
pub const RUN_HOLD: &str = "run:";

/// What becomes of the sandbox that a run made, once the run is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AtEnd {
    /// It is removed.
    #[default]
    Remove,
    /// It sleeps, its processes intact.
    Pause,
    /// It stays as it is.
    Keep,
}

impl AtEnd {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Remove, Self::Pause, Self::Keep];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Pause => "pause",
            Self::Keep => "keep",
        }
    }
}

/// Which files of a run are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactPolicy {
    /// Below which folders they are looked for, as the run's process names them; in its working
    /// directory if there is none.
    pub paths: Vec<String>,
    /// Patterns of what is left out. One without a slash is of names, at any depth; others are of
    /// paths below the folder. `*` is within a name, `**` across.
    pub exclude: Vec<String>,
    /// Larger files are left out.
    pub max_bytes: u64,
    /// More files are left out.
    pub max_files: u32,
}

/// How a run is to be carried out, beside its input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunSetup {
    pub env: BTreeMap<String, String>,
    /// Name of a variable of the process's environment to the name of a secret of the workspace.
    /// Values are looked up when the process starts and are kept nowhere.
    pub secrets: BTreeMap<String, String>,
    /// The working directory.
    pub cwd: Option<String>,
    pub at_end: AtEnd,
    /// Runs of its thread share one sandbox.
    pub share_sandbox: bool,
    /// `None` keeps no files.
    pub artifacts: Option<ArtifactPolicy>,
}

/// How far the output of a run's process has been read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunPosition {
    /// Bytes of the process's output (both streams counted together, as the guest does) before
    /// which all of standard output is in the run's log.
    pub stdout: u64,
    /// The same of standard error.
    pub stderr: u64,
    /// The last place of the session's log that is in the run's.
    pub log: u64,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunStats {
    pub tool_calls: u64,
    pub turns: u64,
    pub files_created: u64,
    pub files_modified: u64,
}

/// A run, as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub id: RunId,
    pub workspace: WorkspaceId,
    /// Runs of one thread share a session and, if asked, a sandbox. At most 100 characters.
    pub thread: String,
    pub created_by: UserId,
    pub work: Work,
    /// The prompt or the command, at most 50,000 characters; `None` once retention removed it.
    pub input: Option<String>,
    /// SHA-256 of the whole input, hexadecimal; it stays.
    pub input_hash: String,
    /// What the sandbox is made from, if this run makes it.
    pub template: String,
    pub sandbox: Option<SandboxId>,
    /// It was made for this run, which also ends it.
    pub made_sandbox: bool,
    pub session: Option<SessionId>,
    /// Its process, as the guest of its sandbox numbers them.
    pub process: Option<u64>,
    pub state: RunState,
    /// How long it was on hold in all, this time not counted.
    pub held_for: Duration,
    /// Higher goes first; 0 is ordinary.
    pub priority: i32,
    pub limits: RunLimits,
    pub setup: RunSetup,
    pub metadata: BTreeMap<String, String>,
    pub idempotency_key: Option<String>,
    /// Rises by one with each stored change; a write names the one it saw.
    pub generation: u64,
    pub created_at: Timestamp,
    /// The last sign of life of its process. This and the next four are the store's: it keeps
    /// them as writes come and takes nothing from a record that is given to it.
    pub heartbeat_at: Timestamp,
    /// The sum of its entries in the books, of all its models together.
    pub tokens: Tokens,
    /// The sum of its entries in the books.
    pub cost: Cost,
    pub position: RunPosition,
    /// The place of the last entry of its log; 0 if there is none.
    pub last_event: u64,
    pub stats: RunStats,
    /// At most 10,000 characters.
    pub result: Option<String>,
    /// SHA-256 of the whole result, hexadecimal.
    pub result_hash: Option<String>,
    /// 32 hexadecimal digits, if it is traced.
    pub trace_id: Option<String>,
}

/// One entry of a run's log, before it has its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRunEvent {
    pub at: Timestamp,
    pub kind: RunEventKind,
    /// A JSON object.
    pub data: String,
}

/// One entry of a run's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEvent {
    pub run: RunId,
    /// Its place: dense per run, from 1.
    pub sequence: u64,
    pub event: NewRunEvent,
}

/// What an entry of a run's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunEventKind {
    Start,
    Text,
    Thinking,
    ToolUse,
    ToolResult,
    Error,
    Result,
    Complete,
    /// A line of output that is no event.
    Raw,
    /// The state changed, or the place in the queue, or why it is held.
    Status,
    /// The agent said what it used.
    Usage,
}

impl RunEventKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Start,
        Self::Text,
        Self::Thinking,
        Self::ToolUse,
        Self::ToolResult,
        Self::Error,
        Self::Result,
        Self::Complete,
        Self::Raw,
        Self::Status,
        Self::Usage,
    ];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Text => "text",
            Self::Thinking => "thinking",
            Self::ToolUse => "tool_use",
            Self::ToolResult => "tool_result",
            Self::Error => "error",
            Self::Result => "result",
            Self::Complete => "complete",
            Self::Raw => "raw",
            Self::Status => "status",
            Self::Usage => "usage",
        }
    }
}

/// Which runs a list wants. `None` means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    pub thread: Option<String>,
    pub created_by: Option<UserId>,
    /// A name of [`RunState::as_str`].
    pub state: Option<String>,
    pub sandbox: Option<SandboxId>,
    pub agent: Option<String>,
    /// Created at or after.
    pub from: Option<Timestamp>,
    /// Created before.
    pub until: Option<Timestamp>,
}
