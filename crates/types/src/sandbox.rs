//! The record of a sandbox.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::network::NetworkSpec;
use crate::secret::VolumeMount;
use crate::sleep::{Sleep, SleepPolicy};
use crate::snapshot::SnapshotContent;
use crate::{BuildId, SandboxId, SnapshotId, TemplateId, Timestamp, WorkspaceId};

/// What a sandbox may use. Each is a hard limit of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    pub cpu_count: u32,
    pub memory_bytes: u64,
    /// What the sandbox may write above its template.
    pub disk_bytes: u64,
    pub pids: u32,
}

impl Default for Resources {
    /// What an E2B sandbox has by default, with a disk that holds real projects.
    fn default() -> Self {
        Self {
            cpu_count: 2,
            memory_bytes: 512 << 20,
            disk_bytes: 10 << 30,
            pids: crate::limits::PIDS_DEFAULT,
        }
    }
}

/// What happens when the deadline passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTimeout {
    Kill,
    /// It is hibernated, with its memory or with its files alone.
    Pause {
        memory: bool,
    },
}

/// Why a sandbox ends or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Somebody asked for it.
    Requested,
    /// Its deadline passed.
    Expired,
    /// Its init ended or was killed.
    Exited,
    /// It never came up, or the server found it broken at start.
    Lost,
}

impl EndReason {
    /// A stable name for events and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Expired => "expired",
            Self::Exited => "exited",
            Self::Lost => "lost",
        }
    }
}

/// Where a sandbox is in its life, with exactly the data that place has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxState {
    /// Intended; the driver may or may not have begun.
    Creating,
    /// Its guest answers.
    Running {
        /// What the driver needs to find it again; opaque to everybody else.
        instance: InstanceState,
    },
    /// Frozen in place: its processes stand still and keep their memory.
    Paused {
        instance: InstanceState,
        sleep: Sleep,
    },
    /// Being saved into this snapshot. Until that one is ready the sandbox itself is whole, and
    /// goes back to what it was if saving fails.
    Hibernating {
        instance: InstanceState,
        snapshot: SnapshotId,
        content: SnapshotContent,
        sleep: Sleep,
    },
    /// On disk only: nothing of it is in memory.
    Hibernated {
        snapshot: SnapshotId,
        content: SnapshotContent,
        sleep: Sleep,
    },
    /// Being brought back from this snapshot, which stays untouched until that is done.
    Waking {
        snapshot: SnapshotId,
        content: SnapshotContent,
        sleep: Sleep,
    },
    /// Its snapshot moves to the archive.
    Archiving {
        snapshot: SnapshotId,
        content: SnapshotContent,
        sleep: Sleep,
    },
    /// Its snapshot is in the archive only.
    Archived {
        snapshot: SnapshotId,
        content: SnapshotContent,
        sleep: Sleep,
    },
    /// It must go; whatever is left of it is being removed.
    Deleting { reason: EndReason },
}

impl SandboxState {
    /// A stable name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Hibernating { .. } => "hibernating",
            Self::Hibernated { .. } => "hibernated",
            Self::Waking { .. } => "waking",
            Self::Archiving { .. } => "archiving",
            Self::Archived { .. } => "archived",
            Self::Deleting { .. } => "deleting",
        }
    }

    /// Whether it sleeps until somebody resumes it: it was put to sleep to stay so, or its deadline
    /// passed. One that dozes by itself does not, nor one that is being woken.
    pub const fn is_kept_asleep(&self) -> bool {
        match self {
            Self::Paused { sleep, .. }
            | Self::Hibernating { sleep, .. }
            | Self::Hibernated { sleep, .. }
            | Self::Archiving { sleep, .. }
            | Self::Archived { sleep, .. } => !sleep.cause.is_doze(),
            Self::Creating | Self::Running { .. } | Self::Waking { .. } | Self::Deleting { .. } => {
                false
            }
        }
    }
}

/// A driver's own note about a running sandbox (JSON text, versioned by the driver).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceState(pub String);

/// One sandbox, as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: SandboxId,
    pub workspace: WorkspaceId,
    pub template: TemplateId,
    /// The template's name when the sandbox was made.
    pub template_alias: Option<String>,
    pub build: BuildId,
    pub state: SandboxState,
    /// Rises by one with each stored change; a write names the one it saw.
    pub generation: u64,
    pub created_at: Timestamp,
    pub started_at: Timestamp,
    /// When it ends by itself; `None` is never.
    pub deadline: Option<Timestamp>,
    /// The timeout that was asked for when it was made.
    pub timeout: Option<Duration>,
    pub on_timeout: OnTimeout,
    /// Whether any access wakes it after E2B's pause or timeout put it to sleep.
    pub auto_resume: bool,
    /// When it goes to sleep by itself.
    pub sleep: SleepPolicy,
    /// When a sandbox that sleeps goes to the next rung; `None` is never. Running sandboxes have
    /// none: their idleness is judged in memory.
    pub sleep_due: Option<Timestamp>,
    /// The snapshot that it was last woken from or saved into, while that one is kept.
    pub last_snapshot: Option<SnapshotId>,
    pub resources: Resources,
    pub env: BTreeMap<String, String>,
    pub metadata: BTreeMap<String, String>,
    pub network: NetworkSpec,
    /// Its guest asks for the access token.
    pub secure: bool,
    /// Volumes that it sees for its whole life.
    pub volumes: Vec<VolumeMount>,
}

impl Sandbox {
    /// When the clock has to look at it: its deadline, or the next rung of its sleep. `None` for
    /// those that are changing already.
    pub fn due(&self) -> Option<Timestamp> {
        match self.state {
            SandboxState::Running { .. }
            | SandboxState::Paused { .. }
            | SandboxState::Hibernated { .. }
            | SandboxState::Archived { .. } => match (self.deadline, self.sleep_due) {
                (Some(deadline), Some(sleep)) => Some(deadline.min(sleep)),
                (deadline, sleep) => deadline.or(sleep),
            },
            SandboxState::Creating
            | SandboxState::Hibernating { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Deleting { .. } => None,
        }
    }
}

/// Which sandboxes a list wants. Empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxFilter {
    /// Every pair must be there.
    pub metadata: BTreeMap<String, String>,
    pub template: Option<TemplateId>,
    pub started_after: Option<Timestamp>,
    /// Any of these states ([`SandboxState::as_str`]); empty: all but `deleting`.
    pub states: Vec<&'static str>,
    pub order: Order,
}

/// By start time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    OldestFirst,
    #[default]
    NewestFirst,
}
