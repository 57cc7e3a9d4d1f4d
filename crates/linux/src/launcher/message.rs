//! What the server and the launcher say to each other: one JSON text for each message, with
//! descriptors beside it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::ResourceLimit;
use crate::process::{Exit, Identity};
use crate::seccomp::SeccompPolicy;

/// The longest message, either way.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// A numbered request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client, returned in the reply.
    pub seq: u64,
    /// What is asked for.
    pub call: Call,
}

/// What can be asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Start a sandbox. Beside it go the descriptors that its [`Network`] asks for.
    Launch(Box<LaunchSpec>),
    /// Make what maps the ids of a sandbox ahead of its launch, which does it otherwise.
    PrepareMapping {
        /// As in [`LaunchSpec::uid_base`].
        uid_base: u32,
    },
    /// Make a network namespace (see [`crate::netns::create`]).
    CreateNetns,
    /// Mount a root file system without starting anything.
    MountOverlay {
        /// Top first.
        layers: Vec<String>,
        /// Holds `u/` and `w/`.
        upper_dir: String,
        /// Host id of the sandbox's root.
        uid_base: u32,
    },
    /// Id-map a directory for a sandbox without starting anything (see
    /// [`crate::idmap::mapped_directory`]).
    MapDirectory {
        /// The directory.
        source: String,
        /// Host id of the sandbox's root.
        uid_base: u32,
    },
    /// Kill a sandbox of this launcher; answered when every process of it is gone.
    Destroy(DestroySpec),
}

/// A sandbox to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// Names the sandbox in later messages.
    pub id: String,
    /// Its host name.
    pub hostname: String,
    /// Host id of its root; the range is [`crate::idmap::RANGE`] long.
    pub uid_base: u32,
    /// Directories of the root file system, top first. The first is a skeleton layer.
    pub layers: Vec<String>,
    /// Holds `u/` and `w/`.
    pub upper_dir: String,
    /// Where its network comes from.
    pub network: Network,
    /// The cgroups it lives in.
    pub cgroup: CgroupJoin,
    /// Its system call filter.
    pub seccomp: SeccompPolicy,
    /// Limits of its init, inherited by the rest.
    pub rlimits: Vec<ResourceLimit>,
    /// The init program, a path inside.
    pub program: String,
    /// Its whole argument vector.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// Sizes of the memory file systems.
    pub tmpfs: TmpfsSizes,
    /// A unix stream socket that init finds as descriptor [`LISTEN_FD`], already listening: a file
    /// of mode 0600 in a new directory in `/run`. Who connects need not wait for init to be up.
    #[serde(default)]
    pub listen: Option<String>,
    /// Paths under /proc and /sys to hide. Those that this kernel does not have are skipped.
    pub masked: Vec<String>,
    /// Paths inside to make read-only.
    pub readonly: Vec<String>,
    /// Directories of the host's that it sees and writes.
    #[serde(default)]
    pub directories: Vec<Directory>,
    /// `oom_score_adj` of init, set if the launcher may.
    pub oom_score_adj: Option<i16>,
}

/// A directory of the host's in a sandbox, with the sandbox's ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The directory.
    pub source: String,
    /// Where it goes: absolute and plain. What is missing is made. Symbolic links on the way are
    /// refused, and so is what is not on the root file system.
    pub path: String,
}

/// The step of a [`Failure`] that is about one of [`LaunchSpec::directories`], whose path it has.
pub const DIRECTORIES_STEP: &str = "mount directories";

/// Where init finds the socket of [`LaunchSpec::listen`].
pub const LISTEN_FD: i32 = 3;

/// Where a sandbox's network comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A namespace that belongs to the host: the one descriptor sent with the request. TCP
    /// connections do not survive a checkpoint.
    Given,
    /// A namespace that belongs to the sandbox's own user namespace: the descriptors of a
    /// [`crate::netns::OwnedPair`], the network first. A pair is for one sandbox. TCP connections
    /// can survive a checkpoint.
    Owned,
    /// A new namespace with nothing but a loopback device.
    Isolated,
}

/// cgroup directories to put init into before it does anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupJoin {
    /// A version 2 directory; init is born there.
    pub unified: Option<String>,
    /// Version 1 directories.
    pub split: Vec<String>,
}

/// Sizes of the memory file systems, in bytes. They are parts of one, which has the sum: a
/// checkpoint costs some milliseconds for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsSizes {
    /// `/run`.
    pub run: u64,
    /// `/dev/shm`.
    pub shm: u64,
    /// The most files in both.
    pub inodes: u64,
}

/// A sandbox to end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DestroySpec {
    /// As in [`LaunchSpec::id`].
    pub id: String,
}

/// A message from the launcher.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The request answered; `None` for a report of its own.
    pub seq: Option<u64>,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A sandbox runs its init. Carries a pidfd.
    Launched(Launched),
    /// The mapping is there.
    Mapped,
    /// A network namespace. Carries it.
    Netns,
    /// A root file system. Carries the mount.
    Overlay,
    /// An id-mapped directory. Carries the mount.
    Directory,
    /// A sandbox is gone, as asked.
    Destroyed {
        /// How its init ended.
        exit: Exit,
    },
    /// The request was not fulfilled; nothing of it is left.
    Failed(Failure),
    /// A sandbox's init has ended (also sent before `Destroyed`).
    Exited {
        /// The sandbox.
        id: String,
        /// Its init.
        pid: u32,
        /// How it ended.
        exit: Exit,
    },
}

/// A running sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launched {
    /// Its init.
    pub identity: Identity,
    /// Where the time went.
    pub timing: Timing,
}

/// Microseconds for each step, by name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Timing(pub BTreeMap<String, u32>);

/// Why a request was not fulfilled.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{step} failed{}: {detail}", path.as_ref().map(|p| format!(" ({p})")).unwrap_or_default())]
pub struct Failure {
    /// The step that failed.
    pub step: String,
    /// The file it was about.
    pub path: Option<String>,
    /// The kernel's error number; 0 where it was not the kernel's.
    pub errno: i32,
    /// For people.
    pub detail: String,
}

impl Failure {
    pub(super) fn io(step: &str, path: Option<&str>, error: &std::io::Error) -> Self {
        Self {
            step: step.to_owned(),
            path: path.map(str::to_owned),
            errno: super::errno_of(error),
            detail: error.to_string(),
        }
    }

    pub(super) fn refused(step: &str, detail: impl Into<String>) -> Self {
        Self {
            step: step.to_owned(),
            path: None,
            errno: 0,
            detail: detail.into(),
        }
    }
}

/// What is hidden unless asked otherwise: memory, keys and kernel state that some kernels show to
/// a root without privileges.
pub fn default_masked() -> Vec<String> {
    [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/sysrq-trigger",
        "/proc/latency_stats",
        "/proc/acpi",
        "/proc/scsi",
        "/sys/firmware",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The text of a request.
///
/// # Errors
/// `InvalidInput` for one longer than [`MAX_MESSAGE`].
pub fn encode_request(request: &Request) -> std::io::Result<Vec<u8>> {
    encode(request)
}

/// The reply in a received text.
pub fn decode_reply(bytes: &[u8]) -> std::io::Result<Reply> {
    Ok(serde_json::from_slice(bytes)?)
}

pub(super) fn encode(message: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "message too long",
        ));
    }
    Ok(bytes)
}
