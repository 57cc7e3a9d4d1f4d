//! Snapshots.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use woodfrog_types::snapshot::{
    Snapshot as Record, SnapshotPurpose, SnapshotSize as DomainSize, SnapshotState,
};

use super::sandbox::Resources;
use super::sleep::Content;

/// What a sandbox was at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    pub id: String,
    /// Unique in the workspace.
    pub name: Option<String>,
    /// The sandbox that it was taken of.
    pub source: String,
    /// The snapshot that it shares unchanged parts with; it may be gone.
    pub parent: Option<String>,
    pub content: Content,
    /// `checkpoint` (somebody asked for it), `sleep` (a sleeping sandbox is in it), `warm` (a
    /// started template is in it) or `fork`.
    pub purpose: String,
    /// The sandbox that sleeps in it.
    pub sandbox_id: Option<String>,
    /// `writing`, `ready`, `damaged` or `deleting`.
    pub state: String,
    /// What is damaged.
    pub damage: Option<String>,
    /// `local`, `archive`, or `both`.
    pub place: String,
    pub labels: BTreeMap<String, String>,
    pub template_id: String,
    pub template: Option<String>,
    pub build_id: String,
    pub resources: Resources,
    /// The driver that wrote it and that alone can read it.
    pub driver: String,
    pub size: SnapshotSize,
    pub created_at: i64,
}

/// What a snapshot takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotSize {
    /// Memory of its processes, zero pages left out.
    pub memory_bytes: u64,
    /// Of those, what had to be written: the rest is shared with the parent.
    pub written_bytes: u64,
    /// Files that the sandbox wrote above its template, where the driver can tell.
    pub disk_bytes: u64,
}

impl From<DomainSize> for SnapshotSize {
    fn from(size: DomainSize) -> Self {
        Self {
            memory_bytes: size.memory_bytes,
            written_bytes: size.written_bytes,
            disk_bytes: size.disk_bytes,
        }
    }
}

impl From<Record> for Snapshot {
    fn from(record: Record) -> Self {
        let sandbox_id = match &record.purpose {
            SnapshotPurpose::Sleep { sandbox } => Some(sandbox.to_string()),
            SnapshotPurpose::Checkpoint | SnapshotPurpose::Warm { .. } | SnapshotPurpose::Fork => {
                None
            }
        };
        let state = record.state.as_str().to_owned();
        let damage = match record.state {
            SnapshotState::Damaged { detail } => Some(detail),
            SnapshotState::Writing | SnapshotState::Ready | SnapshotState::Deleting => None,
        };
        Self {
            id: record.id.to_string(),
            name: record.name,
            source: record.source.to_string(),
            parent: record.parent.map(|id| id.to_string()),
            content: record.content.into(),
            purpose: record.purpose.as_str().to_owned(),
            sandbox_id,
            state,
            damage,
            place: record.place.as_str().to_owned(),
            labels: record.labels,
            template_id: record.template.to_string(),
            template: record.template_alias,
            build_id: record.build.to_string(),
            resources: record.resources.into(),
            driver: record.driver,
            size: record.size.into(),
            created_at: record.created_at.as_millis(),
        }
    }
}

/// Which snapshots a list wants, besides paging.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SnapshotQuery {
    /// The sandbox that they were taken of.
    pub source: Option<String>,
    pub name: Option<String>,
    /// `key=value`, separated by commas: every pair must be there.
    pub labels: Option<String>,
    /// Also those that the server keeps for itself (of sleeping sandboxes, warm templates, forks).
    pub internal: Option<bool>,
    /// Items of the page, 1 to 100; 100 if absent.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// Labels to set; `null` removes one, what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLabels {
    pub labels: BTreeMap<String, Option<String>>,
}

/// What a collection removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcReport {
    /// Ids of snapshots that nothing referred to.
    pub removed: Vec<String>,
    pub bytes: u64,
    /// Bytes that were removed from the archive. What nothing refers to stays there for half a
    /// day from when that is first noticed.
    #[serde(default)]
    pub archive_bytes: u64,
}
