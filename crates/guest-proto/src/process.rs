//! Processes: what to start, how to name one, how it ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What to run. Unset fields take the configured defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartRequest {
    /// Program: a path, or a name searched in `PATH` of the process's environment.
    pub cmd: String,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// Added to (and winning over) the base and configured environment.
    pub env: BTreeMap<String, String>,
    /// Working directory; must exist. Unset: the configured one, else the user's home, else `/`.
    pub cwd: Option<String>,
    /// A name in the sandbox's passwd file.
    pub user: Option<String>,
    pub stdin: StdinMode,
    /// Runs on a terminal of this size instead of pipes.
    pub pty: Option<PtySize>,
    /// A name to find the process by.
    pub tag: Option<String>,
    /// After this the whole session of the process is killed.
    pub timeout_ms: Option<u64>,
    pub rlimits: Vec<Rlimit>,
    /// Bytes of output kept for later readers.
    pub retention: Option<u64>,
    pub follow: Follow,
    pub keep: Keep,
    pub pieces: Pieces,
}

/// What becomes of the borders between what a process writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pieces {
    /// They are forgotten.
    #[default]
    Joined,
    /// Each read of its output is a piece with a number, from 1, and stays one.
    Apart,
}

/// How long a process is kept once it has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// A while, as long as there is room: [`crate::limits::ENDED_FOR`].
    #[default]
    Briefly,
    /// Until it is forgotten, or [`crate::limits::KEPT`] others ended after it.
    UntilForgotten,
}

/// Whether the process gets an input pipe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdinMode {
    /// `/dev/null`.
    #[default]
    Closed,
    /// A pipe written by stdin operations.
    Open,
}

/// Whether the connection that starts a process stays to read its output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Follow {
    /// Attached from offset 0.
    #[default]
    Attach,
    /// Only the reply.
    Detach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PtySize {
    pub cols: u16,
    pub rows: u16,
}

/// One resource limit, named as in `getrlimit(2)` without the prefix, lower case (`nofile`).
/// `None` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    pub resource: String,
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// Names one process of this guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessRef {
    /// The guest's own number; never reused.
    Id(u64),
    /// A running process with this pid, else the one that ended last.
    Pid(u32),
    /// The process started last with this tag, running ones first.
    Tag(String),
}

/// Where an attached reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// At this offset; what is no longer kept is reported as a gap.
    Offset(u64),
    /// Only output that comes after this moment.
    Latest,
    /// After the piece of this number, of a process whose pieces are [`Pieces::Apart`].
    After(u64),
}

/// First answer to start and attach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub id: u64,
    pub pid: u32,
    /// Offset of the first output byte that can follow.
    pub offset: u64,
}

/// Whether a reader is told when output was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Times {
    #[default]
    Untold,
    /// A [`Moment`] comes before the data it is about.
    Told,
}

/// When the output that follows was written, and which piece it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Unix time, milliseconds.
    pub at_ms: u64,
    /// Counts from 1 and rises by one; what is missing is no longer kept.
    pub number: u64,
}

/// Output `from..to` is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub from: u64,
    pub to: u64,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Exit {
    Exited { code: i32 },
    Signaled { signal: i32, core: bool },
}

/// The last word on a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEnd {
    pub exit: Exit,
    /// `exit status 3`, `signal: killed`.
    pub status: String,
    /// Its timeout passed and the guest killed it.
    pub timed_out: bool,
    /// Length of its whole output.
    pub offset: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessInfo {
    pub id: u64,
    pub pid: u32,
    pub tag: Option<String>,
    pub cmd: String,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: String,
    pub user: String,
    pub pty: Option<PtySize>,
    /// Unix time, milliseconds.
    pub started_ms: u64,
    /// Likewise, once it ended.
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// Output still kept is `kept..offset`.
    pub kept: u64,
    pub offset: u64,
    /// Set once it ended.
    pub end: Option<ProcessEnd>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessList {
    pub processes: Vec<ProcessInfo>,
}

/// Who receives a signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalTarget {
    #[default]
    Process,
    /// The process group it leads.
    Group,
}

/// Bytes of input the process has been given since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StdinPosition {
    pub offset: u64,
}

/// The name of a signal as `signal: NAME` texts have it.
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

impl Exit {
    /// `exit status 3`, `signal: killed`, `signal: segmentation fault (core dumped)`.
    pub fn status(&self) -> String {
        match *self {
            Self::Exited { code } => format!("exit status {code}"),
            Self::Signaled { signal, core } => {
                let suffix = if core { " (core dumped)" } else { "" };
                format!("signal: {}{suffix}", signal_name(signal))
            }
        }
    }
}
