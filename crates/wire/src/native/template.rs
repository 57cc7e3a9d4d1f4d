//! Templates and their builds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use woodfrog_types::Timestamp;
use woodfrog_types::template::{
    Build as BuildRecord, BuildLogLine, BuildState, Runtime as RuntimeChoice, SecurityOptions,
    Template as TemplateRecord,
};

use super::sandbox::Resources;

/// A name under which images are built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Template {
    pub id: String,
    pub name: String,
    /// Made by the server and visible to every workspace.
    pub builtin: bool,
    pub resources: Resources,
    /// Tag → build id.
    pub tags: BTreeMap<String, String>,
    pub created_at: i64,
    pub updated_at: i64,
    /// The build that the default tag names.
    pub current: Option<Build>,
    /// What sandboxes of the current build may do beyond the default; null until it is ready.
    pub security: Option<Security>,
}

/// What sandboxes may do beyond the default. All off unless switched on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Security {
    /// `unshare`, `clone` with namespaces.
    pub nested_namespaces: bool,
    pub io_uring: bool,
    pub userfaultfd: bool,
    pub landlock: bool,
    /// POSIX message queues.
    pub message_queues: bool,
    pub runtime: Runtime,
}

/// What sandboxes run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// The host's kernel.
    #[default]
    Native,
    /// gVisor's: slower, and further from the host.
    Gvisor,
}

impl From<RuntimeChoice> for Runtime {
    fn from(runtime: RuntimeChoice) -> Self {
        match runtime {
            RuntimeChoice::Native => Self::Native,
            RuntimeChoice::Gvisor => Self::Gvisor,
        }
    }
}

impl From<Runtime> for RuntimeChoice {
    fn from(runtime: Runtime) -> Self {
        match runtime {
            Runtime::Native => Self::Native,
            Runtime::Gvisor => Self::Gvisor,
        }
    }
}

/// The options to set: what is not given is off.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SetSecurity {
    /// `unshare`, `clone` with namespaces: a sandbox cannot be checkpointed while one lives.
    pub nested_namespaces: bool,
    /// A sandbox cannot be checkpointed while a ring is open.
    pub io_uring: bool,
    /// A sandbox cannot be checkpointed while one is open.
    pub userfaultfd: bool,
    /// Its restrictions are lost by a checkpoint.
    pub landlock: bool,
    /// POSIX message queues: a sandbox cannot be checkpointed while one is open, and a checkpoint
    /// loses the others.
    pub message_queues: bool,
    /// What they run on; the options above mean nothing with gVisor.
    pub runtime: Runtime,
}

/// A template's options as they are now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TemplateSecurity {
    /// The template's name.
    pub name: String,
    /// The build that has the options.
    pub build: Build,
    pub security: Security,
    /// What the options that are on cost, a sentence each.
    pub losses: Vec<String>,
}

/// One build of a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Build {
    pub id: String,
    pub template_id: String,
    /// `waiting`, `building`, `ready` or `error`.
    pub status: String,
    /// Why it failed.
    pub error: Option<BuildError>,
    /// Tags that move to this build when it is ready.
    pub tags: Vec<String>,
    /// Digests of the layers of a ready build, bottom first.
    pub layers: Vec<String>,
    pub created_at: i64,
    pub finished_at: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BuildError {
    pub message: String,
    pub step: Option<String>,
}

/// One line of a build's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    pub at: i64,
    pub level: String,
    pub step: Option<String>,
    pub message: String,
}

/// A part of a build's log. `next` is the offset to go on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BuildLog {
    pub items: Vec<LogLine>,
    pub next: u64,
}

/// An image in a registry that becomes a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryImport {
    /// `debian:12`, `ghcr.io/x/y:z`.
    pub image: String,
    pub username: Option<String>,
    pub password: Option<String>,
}

impl From<BuildRecord> for Build {
    fn from(build: BuildRecord) -> Self {
        let status = build.state.as_str().to_owned();
        let (layers, error) = match build.state {
            BuildState::Ready(image) => (image.layers, None),
            BuildState::Failed { message, step } => {
                (Vec::new(), Some(BuildError { message, step }))
            }
            BuildState::Waiting | BuildState::Building => (Vec::new(), None),
        };
        Self {
            id: build.id.to_string(),
            template_id: build.template.to_string(),
            status,
            error,
            tags: build.tags,
            layers,
            created_at: build.created_at.as_millis(),
            finished_at: build.finished_at.map(Timestamp::as_millis),
        }
    }
}

impl From<SecurityOptions> for Security {
    fn from(options: SecurityOptions) -> Self {
        let SecurityOptions {
            nested_namespaces,
            io_uring,
            userfaultfd,
            landlock,
            message_queues,
            runtime,
        } = options;
        Self {
            nested_namespaces,
            io_uring,
            userfaultfd,
            landlock,
            message_queues,
            runtime: runtime.into(),
        }
    }
}

impl From<SetSecurity> for SecurityOptions {
    fn from(wanted: SetSecurity) -> Self {
        let SetSecurity {
            nested_namespaces,
            io_uring,
            userfaultfd,
            landlock,
            message_queues,
            runtime,
        } = wanted;
        Self {
            nested_namespaces,
            io_uring,
            userfaultfd,
            landlock,
            message_queues,
            runtime: runtime.into(),
        }
    }
}

impl TemplateSecurity {
    /// The reply for a build of the template of that name.
    pub fn new(name: String, build: BuildRecord) -> Self {
        let options = security(&build).unwrap_or_default();
        Self {
            name,
            build: build.into(),
            security: options.into(),
            losses: options.losses().into_iter().map(str::to_owned).collect(),
        }
    }
}

/// The options of a ready build.
fn security(build: &BuildRecord) -> Option<SecurityOptions> {
    match &build.state {
        BuildState::Ready(image) => Some(image.security),
        BuildState::Waiting | BuildState::Building | BuildState::Failed { .. } => None,
    }
}

impl Template {
    /// The reply for a template and its current build.
    pub fn new(template: TemplateRecord, current: Option<BuildRecord>) -> Self {
        Self {
            id: template.id.to_string(),
            name: template.name,
            builtin: template.workspace.is_none(),
            resources: template.resources.into(),
            tags: template
                .tags
                .into_iter()
                .map(|(tag, build)| (tag, build.to_string()))
                .collect(),
            created_at: template.created_at.as_millis(),
            updated_at: template.updated_at.as_millis(),
            security: current.as_ref().and_then(security).map(Into::into),
            current: current.map(Into::into),
        }
    }
}

impl From<BuildLogLine> for LogLine {
    fn from(line: BuildLogLine) -> Self {
        Self {
            at: line.at.as_millis(),
            level: line.level.as_str().to_owned(),
            step: line.step,
            message: line.message,
        }
    }
}

/// What a collection of layers did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LayersGone {
    /// Layers that are gone: no template, sandbox, snapshot or build needed them.
    pub layers: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Bytes of layers that only the cache of build steps keeps.
    pub cached_bytes: u64,
}
