//! A worker of CRIU's: one process for one operation.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use super::find::Criu;
use super::rpc::{ExternalTree, RpcError};
use crate::caps::CapSet;
use crate::process::{in_session, kill, wait_ended};
use crate::spawn::{SpawnSpec, Spawned, Stdio, spawn};

/// What it says before it has a log.
pub(super) const COMPLAINTS: &str = "criu.stderr";
/// How long a worker may take to end after its answer.
const GRACE: Duration = Duration::from_secs(2);
/// How often what a killed worker has left is looked for; each time there is less of it.
const SWEEPS: usize = 50;

/// A worker. Unless it has [finished](Worker::finish), dropping it kills and reaps it and what it
/// has begun: helpers, and the processes of half a restore.
pub(super) struct Worker {
    pub(super) socket: OwnedFd,
    process: Spawned,
    /// The init that it restores, our child.
    init: Option<(Pid, OwnedFd)>,
    finished: bool,
}

impl Worker {
    /// In a thread that has gone into the network namespace: the way back is its end.
    pub(super) fn start(
        criu: &Criu,
        netns: Option<BorrowedFd<'_>>,
        trees: &[ExternalTree],
        work: &Path,
    ) -> Result<Self, RpcError> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(io::Error::from)?;
        let complaints = File::create(work.join(COMPLAINTS))?;
        let spec = spec(criu, &["swrk", "0"], theirs, complaints)?;
        let process = std::thread::scope(|scope| {
            let started = scope.spawn(|| -> Result<Spawned, RpcError> {
                if let Some(netns) = netns {
                    crate::netns::enter(netns)?;
                }
                criu.enter_own(trees)?;
                Ok(spawn(spec)?)
            });
            let panicked = |_| Err(io::Error::other("thread panicked").into());
            started.join().unwrap_or_else(panicked)
        })?;
        Ok(Self {
            socket: ours,
            process,
            init: None,
            finished: false,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Remembers the init that is being restored. It is our child, so its pid is not used anew.
    pub(super) fn restores(&mut self, init: u32) -> io::Result<()> {
        let pid = i32::try_from(init).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        self.init = Some((pid, pidfd_open(pid, PidfdFlags::empty())?));
        Ok(())
    }

    /// It has done its work: lets it end by itself, and what it made live.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.finished = true;
        rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both)?;
        wait_ended(self.process.pidfd.as_fd(), GRACE).map(drop)
    }

    /// Ends everything. The worker leads a session, which can be named as long as the worker is not
    /// reaped; what it has started is in there, or is the init.
    fn sweep(&self) {
        if let Some((pid, pidfd)) = &self.init {
            let _ = kill(pidfd);
            reap(*pid);
        }
        for _ in 0..SWEEPS {
            let left = in_session(self.pid());
            if left.is_empty() {
                return;
            }
            for process in left {
                let _ = kill(&process.pidfd);
                if process.ours {
                    reap(process.pid);
                } else {
                    let _ = wait_ended(process.pidfd.as_fd(), GRACE);
                }
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = kill(&self.process.pidfd);
        if !self.finished {
            self.sweep();
        }
        reap(self.process.pid);
    }
}

fn reap(pid: Pid) {
    let _ = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
}

/// How CRIU is started with these arguments.
pub(super) fn spec(
    criu: &Criu,
    arguments: &[&str],
    stdin: OwnedFd,
    stderr: File,
) -> io::Result<SpawnSpec> {
    let argv = criu.argv(arguments)?;
    let null = File::options().write(true).open("/dev/null")?;
    Ok(SpawnSpec {
        program: argv.first().cloned().unwrap_or_default(),
        argv,
        env: vec![CString::from(c"PATH=/usr/sbin:/usr/bin:/sbin:/bin")],
        cwd: CString::from(c"/"),
        uid: 0,
        gid: 0,
        groups: Some(vec![]),
        stdio: Stdio::Fds {
            stdin,
            stdout: null.into(),
            stderr: stderr.into(),
        },
        rlimits: vec![],
        umask: 0o022,
        capabilities: CapSet(u64::MAX),
        oom_score_adj: None,
    })
}
