//! Secrets. Requests show themselves nowhere: they have no `Debug`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use woodfrog_types::secret::Secret as Record;

/// Body of the create route.
#[derive(Deserialize)]
pub struct NewSecret {
    pub name: String,
    pub value: String,
    pub metadata: Option<BTreeMap<String, String>>,
}

/// Body of the update route.
#[derive(Deserialize)]
pub struct SecretUpdate {
    pub value: String,
    pub metadata: Option<BTreeMap<String, String>>,
}

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    #[serde(rename = "secretID")]
    pub secret_id: String,
    pub name: String,
    pub current_version: u64,
    pub metadata: BTreeMap<String, String>,
    pub created_at: String,
    pub updated_at: String,
}

impl From<Record> for Secret {
    fn from(record: Record) -> Self {
        Self {
            secret_id: record.id.to_string(),
            name: record.name,
            current_version: record.version,
            metadata: record.metadata,
            created_at: record.created_at.to_rfc3339(),
            updated_at: record.updated_at.to_rfc3339(),
        }
    }
}
