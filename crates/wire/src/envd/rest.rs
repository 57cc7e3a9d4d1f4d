//! The REST routes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The body of every refused REST request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The HTTP status.
    pub code: u16,
    pub message: String,
}

/// One written file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WriteInfo {
    pub name: String,
    /// Absolute.
    pub path: String,
    /// Always `file`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Body of the route that joins files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Compose {
    pub source_paths: Vec<String>,
    pub destination: String,
    pub username: Option<String>,
}

/// Use of resources now. Bytes unless the name says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metrics {
    /// Unix seconds.
    pub ts: u64,
    pub cpu_count: u32,
    pub cpu_used_pct: f64,
    pub mem_total: u64,
    pub mem_used: u64,
    pub mem_cache: u64,
    pub mem_total_mib: u64,
    pub mem_used_mib: u64,
    pub disk_used: u64,
    pub disk_total: u64,
}

/// What the proxy answers when a request cannot be brought to where it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayError {
    pub sandbox_id: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub code: u16,
}
