//! Starting a child process with everything about it decided beforehand.
//!
//! The child is made with `clone(CLONE_VM | CLONE_VFORK)` on a stack of its own: no page tables
//! are copied, and the calling thread sleeps until the child has called `execve` or ended. The
//! child shares the parent's memory meanwhile, hence the rules it keeps (see `child.rs`): every
//! signal is blocked, nothing is allocated, no lock is taken, and only raw system calls are made.
//! It reports a failure by writing to the parent's memory.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

use crate::caps::CapSet;
use crate::limits::ResourceLimit;
use crate::selfctl;

mod child;
mod prepared;

use child::Outcome;
pub(crate) use child::{errno, reset_signals};
use prepared::Prepared;
pub(crate) use prepared::{SignalsBlocked, Stack};

/// What the child's descriptors 0, 1 and 2 are.
#[derive(Debug)]
pub enum Stdio {
    /// Three descriptors, taken over by the child. The session has no terminal.
    Fds {
        /// Descriptor 0.
        stdin: OwnedFd,
        /// Descriptor 1.
        stdout: OwnedFd,
        /// Descriptor 2.
        stderr: OwnedFd,
    },
    /// The slave side of a pseudo-terminal: all three, and the session's controlling terminal.
    Terminal(OwnedFd),
}

/// A child to be started. It becomes the leader of a new session.
#[derive(Debug)]
pub struct SpawnSpec {
    /// The program: a path, or a bare name that is looked for in the `PATH` of `env`, with the
    /// child's own identity and working directory.
    pub program: CString,
    /// The whole argument vector, `argv[0]` included.
    pub argv: Vec<CString>,
    /// The whole environment, `NAME=value` each.
    pub env: Vec<CString>,
    /// The working directory, entered with the child's identity.
    pub cwd: CString,
    /// User id, all of real, effective and saved.
    pub uid: u32,
    /// Group id, all of real, effective and saved.
    pub gid: u32,
    /// Supplementary groups instead of the parent's, which takes privilege; `None` keeps those.
    pub groups: Option<Vec<u32>>,
    /// Descriptors 0 to 2. Every other descriptor is closed in the child.
    pub stdio: Stdio,
    /// Limits, applied before the identity changes.
    pub rlimits: Vec<ResourceLimit>,
    /// The file mode creation mask.
    pub umask: u32,
    /// The most the child and its descendants can ever hold.
    pub capabilities: CapSet,
    /// `oom_score_adj`, where it should differ from the parent's. Failure to set it is ignored.
    pub oom_score_adj: Option<i16>,
}

/// A child that has reached its program.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id. The caller reaps it.
    pub pid: Pid,
    /// A descriptor that becomes readable when it ends.
    pub pidfd: OwnedFd,
}

/// What the child was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum SpawnStep {
    /// Leading a new session.
    Session = 1,
    /// Putting descriptors 0 to 2 in place.
    Descriptors,
    /// Taking the terminal.
    Terminal,
    /// Setting resource limits.
    Limits,
    /// Dropping capabilities.
    Capabilities,
    /// Taking user and group ids.
    Identity,
    /// Entering the working directory.
    WorkingDirectory,
    /// Starting the program.
    Exec,
}

/// Why no child was started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program or its interpreter does not exist.
    #[error("program not found")]
    NotFound,
    /// The program exists and the child may not run it.
    #[error("program not executable")]
    NotExecutable,
    /// The working directory cannot be entered.
    #[error("cannot enter the working directory")]
    WorkingDirectory(#[source] io::Error),
    /// The kernel refused a process: limits or memory.
    #[error("cannot create a process")]
    Create(#[source] io::Error),
    /// Any other step failed in the child.
    #[error("cannot set up the process ({step:?})")]
    Setup {
        /// The step.
        step: SpawnStep,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Starts a child and returns once it runs its program.
///
/// Blocks the calling thread for the time the child needs to reach `execve` (tens of
/// microseconds, more when the program has to be read from disk).
///
/// # Errors
/// See [`SpawnError`]; a child that failed has been reaped when this returns.
pub fn spawn(spec: SpawnSpec) -> Result<Spawned, SpawnError> {
    let mut pidfd: RawFd = -1;
    let (pid, outcome) = start(spec, libc::CLONE_PIDFD, &mut pidfd)?;
    // SAFETY: clone succeeded with CLONE_PIDFD and stored a fresh descriptor of ours.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    match outcome {
        Outcome::Running => Ok(Spawned { pid, pidfd }),
        Outcome::Failed { step, errno } => {
            reap(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t);
            Err(SpawnError::of(step, errno))
        }
    }
}

/// As [`spawn`], on kernels that have no pidfds, too (gVisor's). For a process that alone decides
/// when its children are reaped: nothing else keeps their pids from being given to others.
///
/// # Errors
/// See [`spawn`].
pub fn spawn_pid(spec: SpawnSpec) -> Result<Pid, SpawnError> {
    let (pid, outcome) = start(spec, 0, &mut -1)?;
    match outcome {
        Outcome::Running => Ok(pid),
        Outcome::Failed { step, errno } => {
            reap(libc::P_PID, pid.as_raw_nonzero().get() as libc::id_t);
            Err(SpawnError::of(step, errno))
        }
    }
}

fn start(spec: SpawnSpec, flags: i32, pidfd: &mut RawFd) -> Result<(Pid, Outcome), SpawnError> {
    let mut prepared = Prepared::new(spec).map_err(SpawnError::Create)?;
    let stack = Stack::new().map_err(SpawnError::Create)?;
    let dumpable = selfctl::Dumpable::look();
    let pid = {
        let _signals = SignalsBlocked::new().map_err(SpawnError::Create)?;
        // SAFETY: CLONE_VFORK keeps this thread, and so `prepared`, `stack` and `pidfd`, as they
        // are until the child has left our memory by execve or exit. The child runs on its own
        // stack and keeps the rules of `child::run`. Signals are blocked, so none of our handlers
        // runs in the child; CLONE_SIGHAND, CLONE_FILES and CLONE_FS are absent, so what it
        // changes about those is its own.
        unsafe {
            libc::clone(
                child::run,
                stack.top(),
                libc::CLONE_VM | libc::CLONE_VFORK | flags | libc::SIGCHLD,
                std::ptr::from_mut(&mut prepared).cast(),
                std::ptr::from_mut(pidfd),
            )
        }
    };
    if pid < 0 {
        return Err(SpawnError::Create(io::Error::last_os_error()));
    }
    dumpable.keep();
    let pid = Pid::from_raw(pid).expect("clone returns a positive pid");
    Ok((pid, prepared.outcome()))
}

/// Waits for a child that has failed before its program. Somebody else may have reaped it first.
fn reap(kind: libc::idtype_t, id: libc::id_t) {
    // SAFETY: a zeroed siginfo_t is valid and only written by the kernel.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        while libc::waitid(kind, id, &raw mut info, libc::WEXITED) < 0 && errno() == libc::EINTR {}
    }
}

impl SpawnError {
    fn of(step: SpawnStep, errno: i32) -> Self {
        let source = io::Error::from_raw_os_error(errno);
        match (step, errno) {
            (SpawnStep::Exec, libc::ENOENT | libc::ENOTDIR) => SpawnError::NotFound,
            (SpawnStep::Exec, libc::EACCES | libc::EPERM | libc::ENOEXEC | libc::EISDIR) => {
                SpawnError::NotExecutable
            }
            (SpawnStep::WorkingDirectory, _) => SpawnError::WorkingDirectory(source),
            _ => SpawnError::Setup { step, source },
        }
    }
}
