//! Templates: what sandboxes start from.

use std::collections::BTreeMap;

use crate::event::Level;
use crate::sandbox::Resources;
use crate::{BuildId, TemplateId, Timestamp, WorkspaceId};

/// A name under which images are built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub id: TemplateId,
    /// `None`: made by the server and visible to every workspace, as `base` is.
    pub workspace: Option<WorkspaceId>,
    /// Unique within its workspace: `base`, `my-app`.
    pub name: String,
    pub resources: Resources,
    /// Tag → build. `default` is what a bare name means.
    pub tags: BTreeMap<String, BuildId>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The tag that a bare template name stands for.
pub const DEFAULT_TAG: &str = "default";

/// Where a build is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildState {
    /// Asked for, its steps not yet known.
    Waiting,
    Building,
    Ready(BuiltImage),
    Failed {
        message: String,
        /// The step that failed, as E2B counts them: `"1"`, or `base`, `finalize`.
        step: Option<String>,
    },
}

impl BuildState {
    /// A stable name; also E2B's.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Building => "building",
            Self::Ready(_) => "ready",
            Self::Failed { .. } => "error",
        }
    }
}

/// What a finished build gives a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// Digests of layers, bottom first.
    pub layers: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub user: String,
    pub workdir: Option<String>,
    /// Started in every new sandbox, in the background.
    pub start_cmd: Option<String>,
    /// Polled until it exits 0 before a new sandbox counts as ready.
    pub ready_cmd: Option<String>,
    pub security: SecurityOptions,
}

/// What a template may switch on. All off by default; each costs what its doc says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// `unshare`, `clone` with namespaces: the sandbox can then not be checkpointed while one lives.
    pub nested_namespaces: bool,
    /// io_uring: the sandbox can then not be checkpointed while a ring is open.
    pub io_uring: bool,
    /// userfaultfd: the sandbox can then not be checkpointed while one is open.
    pub userfaultfd: bool,
    /// Landlock: its restrictions are lost by a checkpoint.
    pub landlock: bool,
    /// POSIX message queues: the sandbox can then not be checkpointed while one is open, and those
    /// that nobody has open are lost by a checkpoint.
    pub message_queues: bool,
    /// What they run on. The options above are about the host's kernel, and mean nothing with
    /// another.
    pub runtime: Runtime,
}

/// What a sandbox runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Runtime {
    /// The host's kernel.
    #[default]
    Native,
    /// gVisor's: slower, and further from the host.
    Gvisor,
}

impl SecurityOptions {
    /// What the options that are on cost, a sentence each; empty if all are off.
    pub fn losses(&self) -> Vec<&'static str> {
        let Self {
            nested_namespaces,
            io_uring,
            userfaultfd,
            landlock,
            message_queues,
            runtime,
        } = *self;
        if runtime == Runtime::Gvisor {
            return vec![
                "gVisor: system calls are slower, and processes are not limited in number.",
            ];
        }
        let costs = [
            (
                nested_namespaces,
                "Nested namespaces: a sandbox cannot be checkpointed while one lives.",
            ),
            (
                io_uring,
                "io_uring: a sandbox cannot be checkpointed while a ring is open.",
            ),
            (
                userfaultfd,
                "userfaultfd: a sandbox cannot be checkpointed while one is open.",
            ),
            (
                landlock,
                "Landlock: its restrictions are lost by a checkpoint.",
            ),
            (
                message_queues,
                "Message queues: a sandbox cannot be checkpointed while one is open, and a \
                 checkpoint loses the others.",
            ),
        ];
        let on = costs.into_iter().filter(|(on, _)| *on);
        on.map(|(_, cost)| cost).collect()
    }
}

/// One build of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    pub id: BuildId,
    pub template: TemplateId,
    pub state: BuildState,
    /// Tags that move to this build when it is ready.
    pub tags: Vec<String>,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// One line of a build's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildLogLine {
    pub at: Timestamp,
    pub level: Level,
    pub step: Option<String>,
    pub message: String,
}
