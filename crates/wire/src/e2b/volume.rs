//! Volumes and their content.

use serde::{Deserialize, Serialize};
use woodfrog_types::secret::Volume as Record;

/// Body of the create route.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct NewVolume {
    pub name: String,
}

/// One volume of a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Volume {
    #[serde(rename = "volumeID")]
    pub volume_id: String,
    pub name: String,
}

/// Reply of the create and details routes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VolumeAndToken {
    #[serde(flatten)]
    pub volume: Volume,
    /// What the content routes take as bearer.
    pub token: String,
}

impl From<Record> for Volume {
    fn from(record: Record) -> Self {
        Self {
            volume_id: record.id.to_string(),
            name: record.name,
        }
    }
}

/// One entry of a volume.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VolumeEntry {
    pub name: String,
    /// `file`, `directory`, `symlink` or `unknown`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub path: String,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub atime: String,
    pub mtime: String,
    pub ctime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Body of the route that sets attributes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeAttributes {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
}
