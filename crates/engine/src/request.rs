//! What callers ask for.

use std::collections::BTreeMap;
use std::time::Duration;

use woodfrog_types::key::{KeyReach, Scope};
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::{OnTimeout, Resources};
use woodfrog_types::secret::WantedMount;
use woodfrog_types::sleep::{SleepCause, SleepChanges};
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::workspace::{Role, UserId};
use woodfrog_types::{Timestamp, WorkspaceId};

/// A sandbox to be made.
#[derive(Debug, Clone)]
pub struct CreateSandbox {
    /// A template's id or name, `name:tag` allowed; or a snapshot's id or name.
    pub template: String,
    /// `None`: it lives until it is deleted.
    pub timeout: Option<Duration>,
    pub on_timeout: OnTimeout,
    pub auto_resume: bool,
    /// When it goes to sleep by itself; what is not said is as its workspace, else the server has it.
    pub sleep: SleepChanges,
    pub metadata: BTreeMap<String, String>,
    pub env: BTreeMap<String, String>,
    pub network: NetworkSpec,
    pub secure: bool,
    /// Volumes of the workspace, by name. None: those of the snapshot that it is made from.
    pub volumes: Vec<WantedMount>,
    /// Overrides the template's.
    pub resources: Option<Resources>,
    /// 1–255 characters of `[A-Za-z0-9_-]`: the same key gives the same sandbox for 24 hours.
    pub idempotency_key: Option<String>,
}

/// How a deadline moves. Durations count from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadlineChange {
    /// To exactly this, earlier or later; zero ends the sandbox now.
    Set(Duration),
    /// Only ever later.
    Extend(Duration),
    /// No deadline.
    Never,
}

/// An API key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub name: String,
    pub workspace: WorkspaceId,
    pub scope: Scope,
    /// Whom it acts for; `None`: itself.
    pub user: Option<UserId>,
    /// The most that it lets its holder be, in workspace scope.
    pub role: Role,
    /// Where it can be used.
    pub reach: KeyReach,
    pub expires_at: Option<Timestamp>,
}

impl NewKey {
    /// A key to do the work of a workspace, for as long as nobody revokes it.
    pub fn new(name: impl Into<String>, workspace: WorkspaceId) -> Self {
        Self {
            name: name.into(),
            workspace,
            scope: Scope::Workspace,
            user: None,
            role: Role::Member,
            reach: KeyReach::Bound,
            expires_at: None,
        }
    }
}

/// A template (or a new build of one) that is asked for.
#[derive(Debug, Clone)]
pub struct NewTemplate {
    /// `[a-z0-9][a-z0-9._-]*`, at most 128 bytes; a `:tag` suffix is allowed.
    pub name: String,
    pub tags: Vec<String>,
    pub resources: Option<Resources>,
}

/// What a build starts from.
#[derive(Debug, Clone)]
pub enum TemplateBase {
    /// A registry image: `debian:12`, `ghcr.io/x/y:z`.
    Image {
        reference: String,
        username: Option<String>,
        password: Option<String>,
    },
    /// Another template, by id or name.
    Template(String),
}

/// One step of a build.
#[derive(Debug, Clone)]
pub enum TemplateStep {
    /// Files of an uploaded archive (by its hash) to a path.
    Copy {
        src: String,
        dst: String,
        user: Option<String>,
        mode: Option<u32>,
        files_hash: String,
        force: bool,
    },
    Run {
        command: String,
        user: Option<String>,
        force: bool,
    },
    Env {
        pairs: Vec<(String, String)>,
    },
    Workdir {
        path: String,
    },
    User {
        name: String,
    },
}

/// A build's instructions.
#[derive(Debug, Clone)]
pub struct StartBuild {
    pub base: TemplateBase,
    pub steps: Vec<TemplateStep>,
    pub start_cmd: Option<String>,
    pub ready_cmd: Option<String>,
    /// Do not use cached layers.
    pub force: bool,
}

/// A sandbox is to be put to sleep on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HibernateRequest {
    pub content: SnapshotContent,
    /// [`SleepCause::Requested`] or [`SleepCause::Held`]: decides who may wake it.
    pub cause: SleepCause,
}

/// A sandbox is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeRequest {
    /// `Filesystem`: it boots anew with its files, though its memory may be there.
    pub content: SnapshotContent,
    pub deadline: Option<DeadlineChange>,
    pub on_timeout: Option<OnTimeout>,
}

/// A snapshot is to be taken of a sandbox that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// `[a-z0-9][a-z0-9._-]*`, at most 128 bytes, unique in the workspace.
    pub name: Option<String>,
    pub content: SnapshotContent,
    pub labels: BTreeMap<String, String>,
}

/// Copies of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkRequest {
    /// 1 to [`crate::FORK_MAX`].
    pub count: u32,
    /// Of each copy; `None`: until it is deleted.
    pub timeout: Option<Duration>,
}
