//! The record of a snapshot.

use std::collections::BTreeMap;

use crate::sandbox::Resources;
use crate::secret::VolumeMount;
use crate::{BuildId, SandboxId, SnapshotId, TemplateId, Timestamp, WorkspaceId};

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotContent {
    /// Files, and every process with its memory.
    Memory,
    /// Files alone: what is made from it boots anew.
    Filesystem,
}

impl SnapshotContent {
    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Filesystem => "filesystem",
        }
    }
}

/// What a snapshot is for, and so when it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotPurpose {
    /// A sleeping sandbox is in it. It goes when the sandbox's next one is safe, or with it.
    Sleep { sandbox: SandboxId },
    /// Somebody asked for it. It stays until it is deleted.
    Checkpoint,
    /// A started template is in it. It goes with the build.
    Warm { build: BuildId },
    /// Copies are made from it. It goes when they are made.
    Fork,
}

impl SnapshotPurpose {
    /// A stable name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Sleep { .. } => "sleep",
            Self::Checkpoint => "checkpoint",
            Self::Warm { .. } => "warm",
            Self::Fork => "fork",
        }
    }
}

/// Where a snapshot is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotState {
    /// Intended; what is on disk does not count yet.
    Writing,
    /// Safe on disk.
    Ready,
    /// What is on disk is not what was written. It is kept, and nothing is made from it.
    Damaged { detail: String },
    /// It must go; whatever is left of it is being removed.
    Deleting,
}

impl SnapshotState {
    /// A stable name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Writing => "writing",
            Self::Ready => "ready",
            Self::Damaged { .. } => "damaged",
            Self::Deleting => "deleting",
        }
    }
}

/// The archive's own name for something that it keeps; opaque to everybody else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveId(pub String);

impl std::fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the bytes of a snapshot are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotPlace {
    /// On this machine's disk.
    Local,
    /// On this machine's disk, and whole in the archive.
    Both { archive: ArchiveId },
    /// In the archive alone.
    Archive { archive: ArchiveId },
}

impl SnapshotPlace {
    /// A stable name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Both { .. } => "both",
            Self::Archive { .. } => "archive",
        }
    }

    /// What the archive calls it, if it is there.
    pub const fn archive(&self) -> Option<&ArchiveId> {
        match self {
            Self::Local => None,
            Self::Both { archive } | Self::Archive { archive } => Some(archive),
        }
    }
}

/// What a snapshot takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SnapshotSize {
    /// Memory of its processes, zero pages left out.
    pub memory_bytes: u64,
    /// Of those, what had to be written: the rest is shared with the parent.
    pub written_bytes: u64,
    /// Files that the sandbox wrote above its template, where the driver can tell.
    pub disk_bytes: u64,
}

/// One snapshot, as the store holds it. Once it is ready only its name, labels, place and health
/// change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub id: SnapshotId,
    pub workspace: WorkspaceId,
    /// The sandbox that it was taken of.
    pub source: SandboxId,
    /// The snapshot that it shares unchanged parts with. It may be gone: parts are shared, not
    /// referred to.
    pub parent: Option<SnapshotId>,
    pub content: SnapshotContent,
    pub purpose: SnapshotPurpose,
    pub state: SnapshotState,
    pub place: SnapshotPlace,
    /// Rises by one with each stored change; a write names the one it saw.
    pub generation: u64,
    /// Unique in the workspace among those that are not being deleted.
    pub name: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// What the sandbox was made from.
    pub template: TemplateId,
    pub template_alias: Option<String>,
    pub build: BuildId,
    pub resources: Resources,
    /// Environment of the sandbox, for those made from it.
    pub env: BTreeMap<String, String>,
    /// Volumes that the sandbox saw; their files are not in the snapshot.
    pub volumes: Vec<VolumeMount>,
    /// The driver that wrote it and that alone can read it.
    pub driver: String,
    pub size: SnapshotSize,
    pub created_at: Timestamp,
}

/// Which snapshots a list wants. Empty means all that callers may see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    pub source: Option<SandboxId>,
    pub name: Option<String>,
    /// Every pair must be there.
    pub labels: BTreeMap<String, String>,
    /// Also those that the server keeps for itself (sleep, warm templates, forks).
    pub internal: bool,
}
