//! What a driver is told and what it answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use woodfrog_types::network::{EgressProxy, Hidden};
use woodfrog_types::sandbox::{InstanceState, Resources};
use woodfrog_types::snapshot::{SnapshotContent, SnapshotSize};
use woodfrog_types::template::SecurityOptions;
use woodfrog_types::{SandboxId, SnapshotId, VolumeId};

/// A sandbox to be made.
#[derive(Debug, Clone)]
pub struct LaunchSpec {
    pub id: SandboxId,
    /// Directories of the template's layers, **bottom first**.
    pub layers: Vec<PathBuf>,
    /// `[a-z0-9-]`, at most 63 characters.
    pub hostname: String,
    pub resources: Resources,
    pub egress: Egress,
    pub security: SecurityOptions,
    /// What it sees and writes of what is not its own.
    pub volumes: Vec<VolumeSpec>,
}

/// A directory of the host's in a sandbox. Owners of files are what they are on the host: 0 is the
/// sandbox's root. Several sandboxes may have the same one, and none keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSpec {
    pub volume: VolumeId,
    /// For people.
    pub name: String,
    /// The directory, named by the volume's id.
    pub source: PathBuf,
    /// Where it goes: absolute, without empty parts, `.` and `..`. What is missing is made; a way
    /// through a symbolic link is refused as `Invalid`.
    pub path: String,
}

/// What the sandbox may reach. Already validated by the engine; strings are E2B's forms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    pub internet: bool,
    pub allow: Vec<String>,
    pub deny: Vec<String>,
    pub dns_servers: Vec<IpAddr>,
    /// Headers by host; the values are plain.
    pub header_rules: BTreeMap<String, BTreeMap<String, Hidden>>,
    /// Its password is plain.
    pub proxy: Option<EgressProxy>,
}

/// A launched sandbox.
#[derive(Debug, Clone)]
pub struct Launched {
    /// To be stored, and given to [`crate::Driver::adopt`] after a restart.
    pub instance: InstanceState,
    /// How long each step took, in order: for logs and benchmarks.
    pub timings: Vec<(&'static str, Duration)>,
}

/// A sandbox found again.
#[derive(Debug, Clone)]
pub struct Adopted {
    pub instance: InstanceState,
}

/// What a sandbox uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// CPU time of all its processes since it was made.
    pub cpu: Duration,
    /// Without page cache.
    pub memory_bytes: u64,
    pub memory_cache_bytes: u64,
    pub pids: u32,
    /// What it wrote above its template; `None` where the driver cannot tell cheaply.
    pub disk_bytes: Option<u64>,
}

/// Something a driver may or may not be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    MemoryLimit,
    CpuLimit,
    PidsLimit,
    DiskLimit,
    /// A network with addresses of its own and NAT.
    Network,
    /// Egress rules by address.
    EgressCidr,
    /// Egress rules by name.
    EgressDomain,
    /// Freezing in place.
    Pause,
    /// Snapshots of files.
    FilesystemSnapshot,
    /// Snapshots of memory, and what is made from them.
    Checkpoint,
    /// Directories of the host's inside.
    Volumes,
}

/// What a driver can do on this machine, with the reason for what it cannot.
#[derive(Debug, Clone, Default)]
pub struct Capabilities {
    /// Missing capability → why, and how to get it.
    pub missing: Vec<(Capability, String)>,
}

impl Capabilities {
    /// Why `capability` is missing; `None` if it is there.
    pub fn why_missing(&self, capability: Capability) -> Option<&str> {
        self.missing
            .iter()
            .find(|(missing, _)| *missing == capability)
            .map(|(_, why)| why.as_str())
    }
}

/// A snapshot to be taken.
#[derive(Debug, Clone)]
pub struct CheckpointSpec {
    /// Names the snapshot on this machine.
    pub snapshot: SnapshotId,
    /// An earlier snapshot of the same sandbox, whose unchanged parts may be shared.
    pub parent: Option<SnapshotId>,
    pub content: SnapshotContent,
    pub then: Then,
    /// How long it may take; the sandbox goes on if it takes longer.
    pub timeout: Duration,
}

/// What becomes of a sandbox once its snapshot is safe on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It goes on (a paused one stays paused).
    Continue,
    /// It ends, and nothing of it stays on the machine but its snapshot and, where that helps the
    /// next wake, its disk.
    Stop,
}

/// A snapshot that is safe on disk.
#[derive(Debug, Clone)]
pub struct Checkpointed {
    pub size: SnapshotSize,
    /// How long each step took, in order.
    pub timings: Vec<(&'static str, Duration)>,
}

/// A sandbox to be made from a snapshot.
#[derive(Debug, Clone)]
pub struct RestoreSpec {
    /// As for a launch. With another id than the snapshot's source it is a copy with a hostname
    /// and addresses of its own.
    pub launch: LaunchSpec,
    pub snapshot: SnapshotId,
    /// `Memory`: its processes go on. `Filesystem`: it boots anew with the snapshot's files.
    pub content: SnapshotContent,
    /// What becomes of its connections to the outside, where memory comes back at all.
    pub outbound: Outbound,
    /// How long it may take; nothing of it is left if it takes longer.
    pub timeout: Duration,
}

/// Connections that a sandbox had to the outside when its snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbound {
    /// They go on, where the driver can do that.
    Keep,
    /// They end, so that those who hold them are told rather than wait for ever.
    End,
}

/// What a check of a snapshot found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotHealth {
    Good,
    /// What was written is not what is there.
    Damaged {
        detail: String,
    },
}
