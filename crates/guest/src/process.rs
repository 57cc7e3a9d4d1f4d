//! Processes started for the host: launch, output, input, end.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{io::unix::AsyncFd, sync::Notify, time::Instant};
use woodfrog_guest_proto::{
    ErrorCode, Exit, ProcessEnd, ProcessInfo, PtySize, SignalTarget, StartRequest, Started,
};

use crate::error::{OpResult, fail, invalid, system};

mod kill;
mod launch;
mod log;
mod pump;
mod stdin;
mod stream;
mod table;

use kill::kill_session;
pub(crate) use launch::start;
pub(crate) use stdin::{close as close_stdin, feed};
pub(crate) use stream::follow;
pub(crate) use table::Table;

use log::Log;
use stdin::Stdin;

/// How long after its exit a process's descendants may still add to its output.
const GRACE: Duration = Duration::from_millis(150);

/// One process. Shared by the table, its pump and the connections that use it.
pub(crate) struct Process {
    pub(crate) id: u64,
    pub(crate) pid: Pid,
    tag: Option<String>,
    request: StartRequest,
    user: String,
    cwd: String,
    started_ms: u64,
    ended_ms: Cell<Option<u64>>,
    size: Cell<Option<PtySize>>,
    log: RefCell<Log>,
    /// Output was added, or the end is known.
    grew: Notify,
    /// A reader read, came or went.
    moved: Notify,
    exit: Cell<Option<(Exit, Instant)>>,
    exited: Notify,
    end: RefCell<Option<ProcessEnd>>,
    timed_out: Cell<bool>,
    stdin: tokio::sync::Mutex<Stdin>,
    master: RefCell<Option<Rc<AsyncFd<std::os::fd::OwnedFd>>>>,
}

impl Process {
    pub(crate) fn info(&self) -> ProcessInfo {
        let log = self.log.borrow();
        ProcessInfo {
            id: self.id,
            pid: pid_number(self.pid),
            tag: self.tag.clone(),
            cmd: self.request.cmd.clone(),
            args: self.request.args.clone(),
            env: self.request.env.clone(),
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            pty: self.size.get(),
            started_ms: self.started_ms,
            ended_ms: self.ended_ms.get(),
            kept: log.start(),
            offset: log.end(),
            end: self.end.borrow().clone(),
        }
    }

    pub(crate) fn started(&self) -> Started {
        Started {
            id: self.id,
            pid: pid_number(self.pid),
            offset: 0,
        }
    }

    /// Records how the process itself ended; its output may still be on the way.
    fn set_exit(&self, exit: Exit) {
        self.exit.set(Some((exit, Instant::now())));
        self.exited.notify_waiters();
    }

    /// Waits for the exit of the process itself.
    async fn wait_exit(&self) -> (Exit, Instant) {
        loop {
            let notified = self.exited.notified();
            if let Some(exit) = self.exit.get() {
                return exit;
            }
            notified.await;
        }
    }

    fn gone(&self) -> woodfrog_guest_proto::ErrorBody {
        fail(
            ErrorCode::ProcessGone,
            format!("process {} has ended", self.pid),
        )
    }

    /// Sends a signal. The pid is ours until the exit is recorded, so it cannot hit a stranger.
    pub(crate) fn signal(&self, signal: i32, target: SignalTarget) -> OpResult<()> {
        if self.exit.get().is_some() {
            return Err(self.gone());
        }
        let signal = Signal::from_named_raw(signal)
            .ok_or_else(|| invalid(format!("{signal} is not a signal")))?;
        let sent = match target {
            SignalTarget::Process => kill_process(self.pid, signal),
            SignalTarget::Group => kill_process_group(self.pid, signal),
        };
        sent.map_err(|e| system("signal", e))
    }

    pub(crate) fn resize(&self, size: PtySize) -> OpResult<()> {
        let master = self.master.borrow();
        let Some(master) = master.as_ref() else {
            return Err(if self.request.pty.is_some() {
                self.gone()
            } else {
                invalid("the process has no terminal")
            });
        };
        rustix::termios::tcsetwinsize(master.get_ref(), launch::winsize(size))
            .map_err(|e| system("resize", e))?;
        self.size.set(Some(size));
        Ok(())
    }
}

pub(crate) fn pid_number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}
