//! Talking to CRIU: one worker process for each operation, over a `SOCK_SEQPACKET` socket.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitOptions, waitpid};

use super::find::Criu;
use super::proto::{Answer, Message, kind};
use crate::caps::CapSet;
use crate::fdpass::{recv_with_fds, send_with_fds};
use crate::process::{kill, wait_ended};
use crate::spawn::{SpawnError, SpawnSpec, Spawned, Stdio, spawn};

/// The longest answer.
const MAX_ANSWER: usize = 64 * 1024;
/// The end of CRIU's log that goes into an error.
const LOG_TAIL: usize = 1500;
/// Deleted files that are still open are kept up to this size.
const GHOST_LIMIT: u64 = 1 << 30;
const LOG_LEVEL: u64 = 2;
const LOG_FILE: &str = "criu.log";
/// What it says before it has a log.
const COMPLAINTS: &str = "criu.stderr";
const IGNORE_CGROUPS: u64 = 0;
const NO_NETWORK_LOCK: u64 = 3;
/// How long a worker may take to end after its answer.
const GRACE: Duration = Duration::from_secs(2);

/// Where a checkpoint is kept.
#[derive(Debug)]
pub struct Images {
    /// The files of the checkpoint. The sandbox's root reads them at a restore: mode 0750, and
    /// its group is the sandbox's root's.
    pub images: PathBuf,
    /// The log and statistics of this operation.
    pub work: PathBuf,
}

/// A mount that is not part of the checkpoint.
#[derive(Debug, Clone)]
pub struct ExternalMount {
    /// Its name in the checkpoint.
    pub name: String,
    /// At a dump the path inside; at a restore a mount on the host that takes its place.
    pub path: String,
}

/// What to checkpoint.
#[derive(Debug)]
pub struct DumpSpec<'a> {
    /// The sandbox's init.
    pub pid: u32,
    /// Where to.
    pub images: &'a Images,
    /// Whether the sandbox goes on afterwards; else it is killed.
    pub after: After,
    /// Mounts left out.
    pub external: &'a [ExternalMount],
    /// How long it may take.
    pub timeout: Duration,
}

/// What becomes of a sandbox after its dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It goes on.
    Running,
    /// It is killed.
    Killed,
}

/// What to restore.
#[derive(Debug)]
pub struct RestoreSpec<'a> {
    /// The mount point of its root file system.
    pub root: &'a Path,
    /// Where from.
    pub images: &'a Images,
    /// Mounts that were left out.
    pub external: &'a [ExternalMount],
    /// How long it may take.
    pub timeout: Duration,
}

/// What CRIU tells in between; it waits for the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its name, as `post-dump` (the image is complete, and the processes still stand).
    pub name: String,
    /// The process it is about, where there is one.
    pub pid: u32,
}

/// Answers a notice; an error gives the operation up.
pub type Notify<'a> = &'a mut dyn FnMut(&Notice) -> io::Result<()>;

/// Why CRIU did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// It said no.
    #[error("CRIU refused (errno {errno}) {message}{}", tail(log))]
    Refused {
        /// The kernel's error number, where there was one.
        errno: i32,
        /// What it said.
        message: String,
        /// The end of its log.
        log: String,
    },
    /// It ended without an answer.
    #[error("CRIU ended without an answer{}", tail(log))]
    Died {
        /// The end of its log.
        log: String,
    },
    /// It was killed because it took too long.
    #[error("CRIU took longer than {timeout:?}{}", tail(log))]
    Timeout {
        /// What was allowed.
        timeout: Duration,
        /// The end of its log.
        log: String,
    },
    /// The worker could not be started.
    #[error("cannot start CRIU")]
    Start(#[from] SpawnError),
    /// Talking to it failed, or a notice was answered with an error.
    #[error("talking to CRIU")]
    Io(#[from] io::Error),
}

fn tail(log: &str) -> String {
    match log.is_empty() {
        true => String::new(),
        false => format!("; its log ends: {log}"),
    }
}

/// Asks CRIU whether the kernel has what it needs.
pub fn check(criu: &Criu, work: &Path, timeout: Duration) -> Result<(), RpcError> {
    let dir = File::open(work)?;
    let options = Message::default()
        .number(1, fd(&dir))
        .number(9, LOG_LEVEL)
        .text(10, LOG_FILE);
    let here = crate::netns::current()?;
    let call = Call {
        kind: kind::CHECK,
        options,
        work,
        timeout,
    };
    call.run(criu, here.as_fd(), &mut |_| Ok(())).map(drop)
}

/// Checkpoints a sandbox whose network namespace, `netns`, belongs to the host. A failed dump
/// leaves the sandbox running.
///
/// The image counts from the moment `notify` has answered `post-dump`.
pub fn dump(
    criu: &Criu,
    netns: BorrowedFd<'_>,
    spec: &DumpSpec<'_>,
    notify: Notify<'_>,
) -> Result<(), RpcError> {
    let (images, work) = (
        File::open(&spec.images.images)?,
        File::open(&spec.images.work)?,
    );
    let mut options = common(&images, &work).number(2, u64::from(spec.pid));
    if spec.after == After::Running {
        options = options.flag(3);
    }
    for mount in spec.external {
        options = options.text(37, &format!("mnt[{}]:{}", mount.path, mount.name));
    }
    let call = Call {
        kind: kind::DUMP,
        options,
        work: &spec.images.work,
        timeout: spec.timeout,
    };
    call.run(criu, netns, notify).map(drop)
}

/// Restores a sandbox into `netns`. Its init becomes a child of the calling process, which is to
/// reap it; this is its pid.
pub fn restore(
    criu: &Criu,
    netns: BorrowedFd<'_>,
    spec: &RestoreSpec<'_>,
    notify: Notify<'_>,
) -> Result<u32, RpcError> {
    let (images, work) = (
        File::open(&spec.images.images)?,
        File::open(&spec.images.work)?,
    );
    let root = spec
        .root
        .to_str()
        .ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut options = common(&images, &work).text(13, root).flag(26);
    for mount in spec.external {
        options = options.text(37, &format!("mnt[{}]:{}", mount.name, mount.path));
    }
    let call = Call {
        kind: kind::RESTORE,
        options,
        work: &spec.images.work,
        timeout: spec.timeout,
    };
    let answer = call.run(criu, netns, notify)?;
    Ok(answer
        .pid
        .ok_or(io::Error::from(io::ErrorKind::InvalidData))?)
}

/// Descriptors are named by their number in the process that made the socket: ours.
fn fd(file: &File) -> u64 {
    u64::from(file.as_raw_fd().unsigned_abs())
}

/// Options of both ways.
fn common(images: &File, work: &File) -> Message {
    Message::default()
        .number(1, fd(images))
        .number(17, fd(work))
        .flag(4) // connected unix sockets to the outside
        .flag(8) // file locks
        .number(9, LOG_LEVEL)
        .text(10, LOG_FILE)
        .flag(12) // notices
        .flag(18) // links to deleted files
        .number(34, IGNORE_CGROUPS)
        .number(35, GHOST_LIMIT)
        .flag(46) // connections not yet accepted are left out
        .flag(52) // connections are closed
        .number(64, NO_NETWORK_LOCK)
}

struct Call<'a> {
    kind: u64,
    options: Message,
    work: &'a Path,
    timeout: Duration,
}

impl Call<'_> {
    fn run(
        &self,
        criu: &Criu,
        netns: BorrowedFd<'_>,
        notify: Notify<'_>,
    ) -> Result<Answer, RpcError> {
        let deadline = Instant::now() + self.timeout;
        let worker = Worker::start(criu, netns, self.work)?;
        let request = Message::default()
            .number(1, self.kind)
            .message(2, &self.options);
        send_with_fds(&worker.socket, request.as_bytes(), &[])?;
        loop {
            let answer = self.receive(&worker, deadline)?;
            if answer.kind == kind::NOTIFY {
                let (name, pid) = answer.notice.clone().unwrap_or_default();
                let answered = notify(&Notice { name, pid });
                let mut reply = Message::default().number(1, kind::NOTIFY);
                reply = reply.number(3, u64::from(answered.is_ok()));
                send_with_fds(&worker.socket, reply.as_bytes(), &[])?;
                answered?;
            } else if answer.kind == self.kind && answer.success {
                worker.finish()?;
                return Ok(answer);
            } else {
                return Err(RpcError::Refused {
                    errno: answer.errno,
                    message: answer.message,
                    log: self.log(),
                });
            }
        }
    }

    fn receive(&self, worker: &Worker, deadline: Instant) -> Result<Answer, RpcError> {
        let left = deadline.saturating_duration_since(Instant::now());
        // Readable, or closed by the worker.
        if !wait_ended(worker.socket.as_fd(), left)? {
            return Err(RpcError::Timeout {
                timeout: self.timeout,
                log: self.log(),
            });
        }
        let mut buffer = vec![0; MAX_ANSWER];
        let received = match recv_with_fds(&worker.socket, &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other?.len,
        };
        if received == 0 {
            return Err(RpcError::Died { log: self.log() });
        }
        Answer::decode(&buffer[..received])
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData).into())
    }

    fn log(&self) -> String {
        let read = |name| fs::read(self.work.join(name)).unwrap_or_default();
        let bytes = [read(COMPLAINTS), read(LOG_FILE)].concat();
        let from = bytes.len().saturating_sub(LOG_TAIL);
        String::from_utf8_lossy(&bytes[from..]).trim().to_owned()
    }
}

/// A worker; killed and reaped when dropped.
struct Worker {
    socket: OwnedFd,
    process: Spawned,
}

impl Worker {
    /// In a thread that has gone into the network namespace: the way back is its end.
    fn start(criu: &Criu, netns: BorrowedFd<'_>, work: &Path) -> Result<Self, RpcError> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(io::Error::from)?;
        let argv = criu.argv(&["swrk", "0"])?;
        let null = || File::options().read(true).write(true).open("/dev/null");
        let spec = SpawnSpec {
            program: argv.first().cloned().unwrap_or_default(),
            argv,
            env: vec![CString::from(c"PATH=/usr/sbin:/usr/bin:/sbin:/bin")],
            cwd: CString::from(c"/"),
            uid: 0,
            gid: 0,
            groups: vec![],
            stdio: Stdio::Fds {
                stdin: theirs,
                stdout: null()?.into(),
                stderr: File::create(work.join(COMPLAINTS))?.into(),
            },
            rlimits: vec![],
            umask: 0o022,
            capabilities: CapSet(u64::MAX),
            oom_score_adj: None,
        };
        let process = std::thread::scope(|scope| {
            let started = scope.spawn(|| -> Result<Spawned, RpcError> {
                crate::netns::enter(netns)?;
                Ok(spawn(spec)?)
            });
            let panicked = |_| Err(io::Error::other("thread panicked").into());
            started.join().unwrap_or_else(panicked)
        })?;
        Ok(Self {
            socket: ours,
            process,
        })
    }

    /// Lets it end by itself.
    fn finish(&self) -> io::Result<()> {
        rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both)?;
        wait_ended(self.process.pidfd.as_fd(), GRACE).map(drop)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = kill(&self.process.pidfd);
        let _ = rustix::io::retry_on_intr(|| waitpid(Some(self.process.pid), WaitOptions::empty()));
    }
}
