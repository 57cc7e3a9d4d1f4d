//! The work of a run: its process or its agent's turn, and what comes of it.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use woodfrog_core::run::event::Said;
use woodfrog_types::run::{Run, RunPosition, Work};
use woodfrog_types::usage::Tokens;
use woodfrog_types::{Code, Fault, SandboxId, SessionId};

use crate::service::Inner;

pub(crate) mod command;
mod lines;
pub(crate) mod prompt;

/// What waits for the owner; then the work's output waits.
const HEARD_MAX: usize = 256;

/// What comes from the work of a run.
#[derive(Debug)]
pub(crate) enum Heard {
    Said {
        said: Vec<Said>,
        /// How far its output was read, this included.
        at: RunPosition,
        /// Tokens that were used, and the name of this report: the same one each time it is read.
        used: Option<(String, Tokens)>,
    },
    /// The last word.
    End(WorkEnd),
}

/// How the work ended.
#[derive(Debug)]
pub(crate) enum WorkEnd {
    Exited {
        /// `None` if a signal ended it.
        code: Option<i32>,
        /// `exit status 3`.
        status: String,
    },
    Turn {
        /// The agent's stop reason, or why there is none.
        outcome: String,
        answer: String,
    },
    Lost {
        reason: String,
    },
}

/// Whether the work goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Lives,
    Gone,
    SandboxGone,
    /// Nobody answers, or its end is about to be told.
    Unknown,
}

/// What goes on, and the way to it.
#[derive(Debug)]
pub(crate) struct Link {
    what: What,
    run: Run,
    /// Ends the task that listens; the work itself goes on.
    left: CancellationToken,
}

#[derive(Debug, Clone)]
enum What {
    Process {
        sandbox: SandboxId,
        id: u64,
    },
    Turn {
        sandbox: SandboxId,
        session: SessionId,
    },
}

impl Drop for Link {
    fn drop(&mut self) {
        self.left.cancel();
    }
}

/// Listens to the work of a run that runs, from where its log ends.
pub(crate) async fn listen(
    inner: &std::sync::Arc<Inner>,
    run: &Run,
) -> Result<(Link, mpsc::Receiver<Heard>), Fault> {
    let sandbox = run.sandbox.clone().ok_or_else(|| lost("sandbox"))?;
    let (tell, heard) = mpsc::channel(HEARD_MAX);
    let left = CancellationToken::new();
    // After a restart of the server nobody keeps it awake any more.
    crate::owner::wake(inner, run).await?;
    let what = match &run.work {
        Work::Command => {
            let id = run.process.ok_or_else(|| lost("process"))?;
            let listening = command::listen(inner, run, &sandbox, id, tell).await?;
            let left = left.clone();
            tokio::spawn(async move { left.run_until_cancelled(listening).await });
            What::Process { sandbox, id }
        }
        Work::Prompt { .. } => {
            let session = run.session.clone().ok_or_else(|| lost("session"))?;
            let listening = prompt::listen(inner, run, &session, tell).await?;
            let left = left.clone();
            tokio::spawn(async move { left.run_until_cancelled(listening).await });
            What::Turn { sandbox, session }
        }
    };
    let run = run.clone();
    Ok((Link { what, run, left }, heard))
}

fn lost(what: &str) -> Fault {
    Fault::internal(format!("a run that runs without a {what}"))
}

impl Link {
    /// Whether it goes on. Asks the machine that it is in.
    pub(crate) async fn lives(&self, inner: &Inner) -> Look {
        let (What::Process { sandbox, .. } | What::Turn { sandbox, .. }) = &self.what;
        match inner.engine.peek(sandbox).await {
            Err(fault) if fault.code == Code::SandboxNotFound => return Look::SandboxGone,
            Ok(access) if access.reach.runs() => {}
            Ok(_) | Err(_) => return Look::Unknown,
        }
        match &self.what {
            What::Process { sandbox, id } => command::lives(inner, sandbox, *id).await,
            What::Turn { session, .. } => prompt::lives(inner, &self.run.workspace, session).await,
        }
    }

    /// Ends it; what it says to that is not waited for long.
    pub(crate) async fn stop(&self, inner: &Inner) {
        match &self.what {
            What::Process { sandbox, id } => command::stop(inner, sandbox, *id).await,
            What::Turn { session, .. } => prompt::stop(inner, &self.run, session).await,
        }
    }
}
