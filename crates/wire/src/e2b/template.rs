//! Templates, their builds and tags.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use woodfrog_types::sandbox::Resources;
use woodfrog_types::template::{Build, BuildLogLine, BuildState, Template as Record};
use woodfrog_types::{BuildId, Fault, Timestamp};

use super::ENVD_VERSION;

/// Body of the create route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NewTemplate {
    pub name: Option<String>,
    /// The deprecated spelling of `name`.
    pub alias: Option<String>,
    pub tags: Option<Vec<String>>,
    pub cpu_count: Option<u32>,
    #[serde(rename = "memoryMB")]
    pub memory_mb: Option<u64>,
    pub min_free_disk_mb: Option<u64>,
}

impl NewTemplate {
    /// The name, whichever way it was given.
    pub fn take_name(&mut self) -> Result<String, Fault> {
        self.name
            .take()
            .or_else(|| self.alias.take())
            .filter(|name| !name.is_empty())
            .ok_or_else(|| Fault::invalid("name", "name is required"))
    }

    /// The resources, if the request names any.
    pub fn resources(&self) -> Option<Resources> {
        if self.cpu_count.is_none() && self.memory_mb.is_none() && self.min_free_disk_mb.is_none() {
            return None;
        }
        let default = Resources::default();
        let bytes = |mb: u64| mb.saturating_mul(1 << 20);
        Some(Resources {
            cpu_count: self.cpu_count.unwrap_or(default.cpu_count),
            memory_bytes: self.memory_mb.map_or(default.memory_bytes, bytes),
            disk_bytes: self
                .min_free_disk_mb
                .map_or(default.disk_bytes, |mb| bytes(mb).max(default.disk_bytes)),
            pids: default.pids,
        })
    }
}

/// Reply of the create route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateRequested {
    #[serde(rename = "templateID")]
    pub template_id: String,
    #[serde(rename = "buildID")]
    pub build_id: String,
    pub public: bool,
    pub names: Vec<String>,
    pub tags: Vec<String>,
    pub aliases: Vec<String>,
}

impl TemplateRequested {
    /// The reply for a template and its new build.
    pub fn new(template: &Record, build: &Build) -> Self {
        Self {
            template_id: template.id.to_string(),
            build_id: build.id.to_string(),
            public: template.workspace.is_none(),
            names: vec![template.name.clone()],
            tags: build.tags.clone(),
            aliases: vec![template.name.clone()],
        }
    }
}

/// Reply of the file route: where to upload an archive, unless it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileUpload {
    pub present: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Body of the route that starts a build.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BuildStart {
    pub from_image: Option<String>,
    pub from_template: Option<String>,
    pub from_image_registry: Option<Value>,
    pub force: Option<bool>,
    pub steps: Option<Vec<Step>>,
    pub start_cmd: Option<String>,
    pub ready_cmd: Option<String>,
}

/// One step of a build, not yet understood.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    #[serde(rename = "type")]
    pub kind: String,
    pub args: Option<Vec<String>>,
    pub files_hash: Option<String>,
    pub force: Option<bool>,
}

/// Reply of the status route.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildInfo {
    #[serde(rename = "templateID")]
    pub template_id: String,
    #[serde(rename = "buildID")]
    pub build_id: String,
    pub status: &'static str,
    pub logs: Vec<String>,
    pub log_entries: Vec<BuildLogEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BuildLogEntry {
    pub timestamp: String,
    pub level: &'static str,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// Why a build failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    pub log_entries: [(); 0],
}

/// Reply of the build log route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BuildLogs {
    pub logs: Vec<BuildLogEntry>,
}

impl From<BuildLogLine> for BuildLogEntry {
    fn from(line: BuildLogLine) -> Self {
        Self {
            timestamp: line.at.to_rfc3339(),
            level: line.level.as_str(),
            message: line.message,
            step: line.step,
        }
    }
}

impl BuildInfo {
    /// The reply for a build and a part of its log.
    pub fn new(build: Build, log: Vec<BuildLogLine>) -> Self {
        let log_entries: Vec<BuildLogEntry> = log.into_iter().map(Into::into).collect();
        Self {
            template_id: build.template.to_string(),
            build_id: build.id.to_string(),
            status: build.state.as_str(),
            logs: log_entries
                .iter()
                .map(|entry| entry.message.clone())
                .collect(),
            log_entries,
            reason: match build.state {
                BuildState::Failed { message, step } => Some(Reason {
                    message,
                    step,
                    log_entries: [],
                }),
                BuildState::Waiting | BuildState::Building | BuildState::Ready(_) => None,
            },
        }
    }
}

/// One template of a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    #[serde(rename = "templateID")]
    pub template_id: String,
    #[serde(rename = "buildID")]
    pub build_id: String,
    pub build_status: &'static str,
    pub build_count: usize,
    pub names: Vec<String>,
    pub aliases: Vec<String>,
    pub public: bool,
    pub cpu_count: u32,
    #[serde(rename = "memoryMB")]
    pub memory_mb: u64,
    #[serde(rename = "diskSizeMB")]
    pub disk_size_mb: u64,
    pub envd_version: &'static str,
    pub created_at: String,
    pub updated_at: String,
    /// Not counted here.
    pub last_spawned_at: Option<String>,
    pub spawn_count: u64,
    pub created_by: Option<()>,
}

impl Template {
    /// The entry for a template and the build that its default tag names.
    pub fn new(template: &Record, current: Option<&Build>) -> Self {
        Self {
            template_id: template.id.to_string(),
            build_id: current.map_or_else(|| ZERO_UUID.to_owned(), |build| build.id.to_string()),
            build_status: current.map_or("waiting", |build| build.state.as_str()),
            build_count: distinct(&template.tags),
            names: vec![template.name.clone()],
            aliases: vec![template.name.clone()],
            public: template.workspace.is_none(),
            cpu_count: template.resources.cpu_count,
            memory_mb: template.resources.memory_bytes >> 20,
            disk_size_mb: template.resources.disk_bytes >> 20,
            envd_version: ENVD_VERSION,
            created_at: template.created_at.to_rfc3339(),
            updated_at: template.updated_at.to_rfc3339(),
            last_spawned_at: None,
            spawn_count: 0,
            created_by: None,
        }
    }
}

/// Stands for "no build" where clients want a UUID.
const ZERO_UUID: &str = "00000000-0000-0000-0000-000000000000";

fn distinct(tags: &BTreeMap<String, BuildId>) -> usize {
    tags.values()
        .collect::<std::collections::BTreeSet<_>>()
        .len()
}

/// Reply of the details route.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateWithBuilds {
    #[serde(rename = "templateID")]
    pub template_id: String,
    pub names: Vec<String>,
    pub aliases: Vec<String>,
    pub public: bool,
    pub created_at: String,
    pub updated_at: String,
    pub last_spawned_at: Option<String>,
    pub spawn_count: u64,
    pub builds: Vec<TemplateBuild>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateBuild {
    #[serde(rename = "buildID")]
    pub build_id: String,
    pub status: &'static str,
    pub created_at: String,
    pub updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    pub cpu_count: u32,
    #[serde(rename = "memoryMB")]
    pub memory_mb: u64,
    #[serde(rename = "diskSizeMB")]
    pub disk_size_mb: u64,
    pub envd_version: &'static str,
}

impl TemplateWithBuilds {
    /// The reply for a template and a page of its builds.
    pub fn new(template: &Record, builds: &[Build]) -> Self {
        let entry = |build: &Build| TemplateBuild {
            build_id: build.id.to_string(),
            status: build.state.as_str(),
            created_at: build.created_at.to_rfc3339(),
            updated_at: build.finished_at.unwrap_or(build.created_at).to_rfc3339(),
            finished_at: build.finished_at.map(Timestamp::to_rfc3339),
            cpu_count: template.resources.cpu_count,
            memory_mb: template.resources.memory_bytes >> 20,
            disk_size_mb: template.resources.disk_bytes >> 20,
            envd_version: ENVD_VERSION,
        };
        Self {
            template_id: template.id.to_string(),
            names: vec![template.name.clone()],
            aliases: vec![template.name.clone()],
            public: template.workspace.is_none(),
            created_at: template.created_at.to_rfc3339(),
            updated_at: template.updated_at.to_rfc3339(),
            last_spawned_at: None,
            spawn_count: 0,
            builds: builds.iter().map(entry).collect(),
        }
    }
}

/// Reply of the alias route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TemplateAlias {
    #[serde(rename = "templateID")]
    pub template_id: String,
    pub public: bool,
}

/// Body of the update route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct TemplateUpdate {
    pub public: Option<bool>,
}

/// Reply of the update route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TemplateUpdated {
    pub names: Vec<String>,
}

/// Body of the route that gives tags.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AssignTags {
    pub target: String,
    pub tags: Vec<String>,
}

/// Body of the route that takes tags away.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RemoveTags {
    pub name: String,
    pub tags: Vec<String>,
}

/// Reply of the route that gives tags.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AssignedTags {
    #[serde(rename = "buildID")]
    pub build_id: String,
    pub tags: Vec<String>,
}

/// One tag of a template.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TemplateTag {
    pub tag: String,
    #[serde(rename = "buildID")]
    pub build_id: String,
    #[serde(rename = "createdAt")]
    pub created_at: String,
}

/// The tags of a template, by name.
pub fn tags(template: &Record) -> Vec<TemplateTag> {
    let entry = |(tag, build): (&String, &BuildId)| TemplateTag {
        tag: tag.clone(),
        build_id: build.to_string(),
        created_at: template.updated_at.to_rfc3339(),
    };
    template.tags.iter().map(entry).collect()
}
