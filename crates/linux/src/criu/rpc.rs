//! Checkpointing and restoring a sandbox with CRIU.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::call::Call;
use super::find::Criu;
use super::proto::{Message, kind};
use super::refusal::Refusal;
use super::release::release_connections;
use crate::cgroup::Group;
use crate::spawn::SpawnError;

/// Deleted files that are still open are kept up to this size.
const GHOST_LIMIT: u64 = 1 << 30;
const LOG_LEVEL: u64 = 2;
pub(super) const LOG_FILE: &str = "criu.log";
const IGNORE_CGROUPS: u64 = 0;
const NO_NETWORK_LOCK: u64 = 3;
/// `CLONE_NEWNET`.
const NEW_NETWORK: u64 = 0x4000_0000;

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

/// A mount that is not part of the checkpoint, to be given back: the worker has it where the
/// sandbox's root can reach it, which a path of the host's need not be, and nobody else.
#[derive(Debug)]
pub struct ExternalTree {
    /// Its name in the checkpoint: letters, digits and `-`.
    pub name: String,
    /// A mount that belongs to no mount table; it stays with the sandbox.
    pub tree: OwnedFd,
}

/// Whose the sandbox's network namespace is.
#[derive(Debug, Clone, Copy)]
pub enum NetworkMode<'a> {
    /// The host's: CRIU works inside it. TCP connections are closed by a checkpoint, listeners
    /// live on.
    HostOwned(BorrowedFd<'a>),
    /// The sandbox's own (see [`crate::netns::OwnedPair`]). TCP connections live on, those to the
    /// outside where the addresses stay the same. A restore makes a new, empty namespace; in the
    /// notice [`SETUP_NAMESPACES`] `lo` is up in it, and the caller connects it to the rest
    /// (addresses must be there before the processes come).
    Owned,
}

/// The notice in a dump when the image is complete and the processes still stand.
pub const POST_DUMP: &str = "post-dump";
/// The notice in a restore when the namespaces are made, and no process but the init, whose pid
/// it has.
pub const SETUP_NAMESPACES: &str = "setup-namespaces";

/// What to checkpoint.
#[derive(Debug)]
pub struct DumpSpec<'a> {
    /// The sandbox's init.
    pub pid: u32,
    /// Its network.
    pub network: NetworkMode<'a>,
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
    /// Its network.
    pub network: NetworkMode<'a>,
    /// Where from.
    pub images: &'a Images,
    /// Mounts that were left out.
    pub external: &'a [ExternalMount],
    /// As those, by descriptor. Not where the root file system is below `/run`.
    pub trees: &'a [ExternalTree],
    /// The sandbox's cgroups, for its processes to be born in: what they take is the sandbox's
    /// from the first page on. They must not be frozen. Without, the processes are where the
    /// calling process is.
    pub group: Option<&'a Group>,
    /// How long it may take.
    pub timeout: Duration,
}

/// What CRIU tells in between; it waits for the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its name, as [`POST_DUMP`].
    pub name: String,
    /// The process it is about, where there is one.
    pub pid: u32,
}

/// Answers a notice. An error gives the operation up: CRIU then puts everything back, and a sandbox
/// that was to be checkpointed goes on.
pub type Notify<'a> = &'a mut dyn FnMut(&Notice) -> io::Result<()>;

/// Why CRIU did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// It said no.
    #[error("{}", refused(*errno, message, log))]
    Refused {
        /// The kernel's error number, where there was one.
        errno: i32,
        /// What it said.
        message: String,
        /// The end of its log, and the line that names the reason.
        log: String,
    },
    /// It ended without an answer.
    #[error("CRIU ended without an answer{}", tail(log))]
    Died {
        /// The end of its log.
        log: String,
    },
    /// It took too long, and was told to put everything back, or killed.
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
    /// A notice was answered with this error.
    #[error("given up")]
    GivenUp(#[source] io::Error),
    /// Talking to it failed.
    #[error("talking to CRIU")]
    Io(#[from] io::Error),
}

impl RpcError {
    /// What in the sandbox kept it from being checkpointed, where that is known.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { log, .. } => Refusal::of_log(log),
            Self::Died { .. }
            | Self::Timeout { .. }
            | Self::Start(_)
            | Self::GivenUp(_)
            | Self::Io(_) => None,
        }
    }
}

fn refused(errno: i32, message: &str, log: &str) -> String {
    match Refusal::of_log(log) {
        Some(refusal) => format!("{refusal}{}", tail(log)),
        None => format!("CRIU refused (errno {errno}) {message}{}", tail(log)),
    }
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
    let call = Call {
        kind: kind::CHECK,
        options,
        work,
        timeout,
        group: None,
        trees: &[],
    };
    call.run(criu, None, &mut |_| Ok(())).map(drop)
}

/// Checkpoints a sandbox. A failed dump leaves the sandbox running.
///
/// The image counts from the moment `notify` has answered [`POST_DUMP`].
pub fn dump(criu: &Criu, spec: &DumpSpec<'_>, notify: Notify<'_>) -> Result<(), RpcError> {
    let (images, work) = (
        File::open(&spec.images.images)?,
        File::open(&spec.images.work)?,
    );
    let mut options = common(&images, &work, spec.network).number(2, u64::from(spec.pid));
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
        group: None,
        trees: &[],
    };
    let done = call.run(criu, spec.network.host(), notify);
    if let Err(RpcError::Died { .. } | RpcError::Timeout { .. } | RpcError::Io(_)) = &done {
        // It may have been killed in the middle; the first error is the one to report.
        let _ = release_connections(spec.pid);
    }
    done.map(drop)
}

/// Restores a sandbox. Its init becomes a child of the calling process, which is to reap it; this
/// is its pid. On an error none of its processes is left.
pub fn restore(criu: &Criu, spec: &RestoreSpec<'_>, notify: Notify<'_>) -> Result<u32, RpcError> {
    restore_with(criu, spec, false, notify)
}

/// With memory to come later, if `lazy`.
pub(super) fn restore_with(
    criu: &Criu,
    spec: &RestoreSpec<'_>,
    lazy: bool,
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
    let mut options = common(&images, &work, spec.network).text(13, root).flag(26);
    if lazy {
        options = options.flag(48);
    }
    for mount in spec.external {
        options = options.text(37, &format!("mnt[{}]:{}", mount.name, mount.path));
    }
    for tree in spec.trees {
        options = options.text(37, &format!("mnt[{}]:{}", tree.name, tree.place()));
    }
    let call = Call {
        kind: kind::RESTORE,
        options,
        work: &spec.images.work,
        timeout: spec.timeout,
        group: spec.group,
        trees: spec.trees,
    };
    let outside = spec.external.iter().map(|mount| Path::new(&mount.path));
    let criu = &criu.seeing(outside.chain([spec.root]));
    if !spec.trees.is_empty() && spec.root.canonicalize()?.starts_with(super::cache::RUN) {
        let text = "volumes cannot be given back where the data directory is below /run";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text).into());
    }
    let owned = spec.network.host().is_none();
    let mut notify = |notice: &Notice| {
        if owned && notice.name == SETUP_NAMESPACES {
            let network = crate::netns::of_process(notice.pid)?;
            crate::netns::set_up(network.as_fd())?;
        }
        notify(notice)
    };
    let answer = call.run(criu, spec.network.host(), &mut notify)?;
    Ok(answer
        .pid
        .ok_or(io::Error::from(io::ErrorKind::InvalidData))?)
}

/// Descriptors are named by their number in the process that made the socket: ours.
fn fd(file: &File) -> u64 {
    u64::from(file.as_raw_fd().unsigned_abs())
}

impl<'a> NetworkMode<'a> {
    /// Where CRIU has to work, if not where we are.
    fn host(self) -> Option<BorrowedFd<'a>> {
        match self {
            Self::HostOwned(netns) => Some(netns),
            Self::Owned => None,
        }
    }
}

/// Options of both ways.
fn common(images: &File, work: &File, network: NetworkMode<'_>) -> Message {
    let options = Message::default()
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
        .number(64, NO_NETWORK_LOCK);
    match network {
        NetworkMode::HostOwned(_) => options.flag(52), // connections are closed
        // Connections are kept; devices, addresses and rules are not looked at.
        NetworkMode::Owned => options.flag(5).number(38, NEW_NETWORK),
    }
}
