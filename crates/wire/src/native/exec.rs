//! Processes and their output.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A process to be started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Exec {
    /// The program and its arguments; no shell is involved. Exactly one of `command` and
    /// `shell` is given.
    pub command: Option<Vec<String>>,
    /// A line for `/bin/bash -l -c`.
    pub shell: Option<String>,
    /// Added to the sandbox's environment.
    pub env: BTreeMap<String, String>,
    /// The user's home if absent.
    pub cwd: Option<String>,
    /// The template's user if absent.
    pub user: Option<String>,
    /// `true`: its stdin is a pipe, written with the stdin route. Otherwise it is empty.
    pub stdin: bool,
    /// Runs it on a terminal of this size.
    pub pty: Option<Size>,
    /// A name to find the process by.
    pub tag: Option<String>,
    /// The process is killed after this.
    pub timeout_ms: Option<u64>,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Size {
    pub cols: u16,
    pub rows: u16,
}

/// How output comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// [`OutputEvent`]s: lines of JSON, or server-sent events if `Accept` says
    /// `text/event-stream`.
    #[default]
    Events,
    /// The bytes of stdout (or the terminal) alone. The trailers `woodfrog-status` and
    /// `woodfrog-exit-code` say how the process ended.
    Raw,
    /// Nothing: the reply says which process it is, and the process goes on by itself.
    Detach,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExecQuery {
    #[serde(default)]
    #[param(inline)]
    pub output: Output,
}

/// From where a process's output is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AttachQuery {
    /// An offset, or `latest` for new output only. 0 if absent; the `Last-Event-ID` header wins.
    pub from: Option<String>,
    #[serde(default)]
    #[param(inline)]
    pub output: Output,
}

/// One thing that a process stream says. Offsets count all output of the process, stdout and
/// stderr together; a reader that was cut off continues at the last offset plus the bytes of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum OutputEvent {
    Started {
        process: u64,
        pid: u32,
        offset: u64,
    },
    Stdout {
        offset: u64,
        data: String,
    },
    Stderr {
        offset: u64,
        data: String,
    },
    /// Output of a terminal.
    Pty {
        offset: u64,
        data: String,
    },
    /// Output that is no longer kept.
    Gap {
        from: u64,
        to: u64,
    },
    /// The last event of a process that ended.
    End(End),
    /// The last event of a stream that broke.
    Error {
        code: String,
        message: String,
    },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct End {
    /// `null` if a signal ended it.
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// `exit status 3`, `signal: killed`.
    pub status: String,
    pub timed_out: bool,
    /// Bytes of its whole output.
    pub offset: u64,
}

/// A process that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Started {
    /// Never used again in this sandbox.
    pub process: u64,
    pub pid: u32,
}

/// A process of a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Process {
    pub process: u64,
    pub pid: u32,
    pub tag: Option<String>,
    pub command: Vec<String>,
    pub cwd: String,
    pub user: String,
    pub pty: Option<Size>,
    pub started_at: i64,
    /// Output from here on is still kept.
    pub kept: u64,
    /// Bytes of output so far.
    pub offset: u64,
    pub end: Option<End>,
}

/// Running processes, and those that ended lately.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Processes {
    pub items: Vec<Process>,
}

/// A signal to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// `SIGTERM`, `TERM` or a number.
    pub signal: String,
    /// To the whole process group that the process leads.
    #[serde(default)]
    pub group: bool,
}

/// Where input is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StdinQuery {
    /// The position in the whole input: bytes that the process has already are skipped, so a
    /// repeated request does no harm. At the end if absent.
    pub offset: Option<u64>,
}

/// How much input the process was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StdinPosition {
    pub offset: u64,
}

/// A terminal to be opened, or joined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PtyQuery {
    /// Joins this process's terminal; a login shell is started if absent.
    pub process: Option<u64>,
    /// Where a joined terminal's output begins; new output only if absent.
    pub from: Option<u64>,
    pub cols: Option<u16>,
    pub rows: Option<u16>,
    pub user: Option<String>,
    pub cwd: Option<String>,
}

/// What a terminal's client sends as text; input goes as binary messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PtyControl {
    Resize(Size),
}
