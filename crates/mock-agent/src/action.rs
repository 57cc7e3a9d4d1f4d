//! What the agent wants done to the world.

use std::path::PathBuf;

/// One thing to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write this line and a newline to stdout.
    Send(String),
    /// Write `head`, `fill` times the letter `x`, `tail` and a newline: a line too large to build.
    Long {
        /// The beginning of the line.
        head: String,
        /// How many letters follow.
        fill: u64,
        /// The end of the line.
        tail: String,
    },
    /// Write these bytes to stdout, nothing added.
    Raw(Vec<u8>),
    /// Write this line and a newline to stderr.
    Stderr(String),
    /// Call [`crate::Mock::wake`] with the ticket after this many milliseconds. With 0 what is
    /// waiting on stdin is read first.
    Wake {
        /// What to hand back.
        ticket: u64,
        /// How long to wait.
        after_ms: u64,
    },
    /// Do the job and call [`crate::Mock::performed`] with the ticket and the result.
    Perform {
        /// What to hand back.
        ticket: u64,
        /// What to do.
        job: Job,
    },
    /// Append a line to the stored history of a session. Failing is reported on stderr only.
    Record {
        /// Whose history.
        session: String,
        /// The line, without its newline.
        entry: String,
    },
    /// From now on ignore SIGHUP, SIGINT and SIGTERM, and the end of stdin too.
    IgnoreSignals,
    /// Close stdout and go on.
    CloseStdout,
    /// End the process with this code, at once.
    Exit(u8),
}

/// Work whose result the agent waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Write a file, with its parent directories. The result's text does not matter.
    Write {
        /// Absolute.
        path: PathBuf,
        /// The whole content.
        text: String,
    },
    /// Read a file of at most [`Job::READ_MAX`] bytes.
    Read {
        /// Absolute.
        path: PathBuf,
    },
    /// The value of an environment variable; an error when there is none.
    Env {
        /// Its name.
        name: String,
    },
    /// The stored history of a session: the lines of [`Action::Record`].
    Recall {
        /// Whose history.
        session: String,
    },
}

impl Job {
    /// Bytes that a job may read.
    pub const READ_MAX: u64 = 1 << 20;
}
