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
    pub created_at: Timestamp,
}
