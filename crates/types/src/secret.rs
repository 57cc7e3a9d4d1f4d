//! Secrets and volumes: what a workspace keeps beside its sandboxes.

use std::collections::BTreeMap;

use crate::{SecretId, Timestamp, VolumeId, WorkspaceId};

/// A secret as it is stored: its value is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub id: SecretId,
    pub workspace: WorkspaceId,
    /// Lower case, unique within the workspace.
    pub name: String,
    /// Counts the values it had, from 1; only the latest is kept.
    pub version: u64,
    pub metadata: BTreeMap<String, String>,
    pub value: Sealed,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Encrypted bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// Files that outlive sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub id: VolumeId,
    pub workspace: WorkspaceId,
    /// Unique within the workspace.
    pub name: String,
    /// What it may hold; `None`: there is no limit.
    pub size_bytes: Option<u64>,
    pub created_at: Timestamp,
}

/// A volume that a new sandbox is to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedMount {
    /// The volume's.
    pub name: String,
    pub path: String,
}

/// A volume in the file tree of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    pub volume: VolumeId,
    /// The volume's name, which it keeps for life.
    pub name: String,
    /// Where it is inside: absolute, without empty parts, `.` and `..`.
    pub path: String,
}
