//! The record of a sandbox.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::network::NetworkSpec;
use crate::{BuildId, SandboxId, TemplateId, Timestamp, WorkspaceId};

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
    /// Kept for the record; sandboxes that pause are refused until the driver can.
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
    /// It must go; whatever is left of it is being removed.
    Deleting { reason: EndReason },
}

impl SandboxState {
    /// A stable name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running { .. } => "running",
            Self::Deleting { .. } => "deleting",
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
    pub auto_resume: bool,
    pub resources: Resources,
    pub env: BTreeMap<String, String>,
    pub metadata: BTreeMap<String, String>,
    pub network: NetworkSpec,
    /// Its guest asks for the access token.
    pub secure: bool,
}

/// Which sandboxes a list wants. Empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxFilter {
    /// Every pair must be there.
    pub metadata: BTreeMap<String, String>,
    pub template: Option<TemplateId>,
    pub started_after: Option<Timestamp>,
    pub order: Order,
}

/// By start time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    OldestFirst,
    #[default]
    NewestFirst,
}
