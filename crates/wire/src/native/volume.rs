//! Volumes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use woodfrog_types::secret::Volume as Record;

/// A volume to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVolume {
    /// `[A-Za-z0-9_-]`, at most 128 characters; unique in the workspace.
    pub name: String,
    /// What it may hold, files and the file system's own needs; default: what the server gives. Some
    /// servers cannot limit volumes and refuse it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size_bytes: Option<u64>,
}

/// Files that outlive sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    pub id: String,
    pub name: String,
    /// What it may hold; absent: it has no limit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size_bytes: Option<u64>,
    /// What it takes, as of half a minute ago at most. Volumes without a limit are not counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used_bytes: Option<u64>,
    pub created_at: i64,
    /// Opens its content at `/volumecontent/{id}`. Not in lists, and not for viewers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<String>,
}

impl From<Record> for Volume {
    fn from(record: Record) -> Self {
        Self {
            id: record.id.to_string(),
            name: record.name,
            size_bytes: record.size_bytes,
            used_bytes: None,
            created_at: record.created_at.as_millis(),
            token: None,
        }
    }
}

impl Volume {
    /// With its token, if it has one.
    #[must_use]
    pub fn with_token(mut self, token: String) -> Self {
        self.token = Some(token).filter(|token| !token.is_empty());
        self
    }
}
