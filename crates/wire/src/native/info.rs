//! What this server is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    pub name: String,
    pub version: String,
    pub api: String,
    /// The wildcard domain of ports inside sandboxes, if the server has one.
    pub domain: Option<String>,
    /// The daemon version that E2B clients are told.
    pub envd_version: String,
    /// The workspace of the key that asked.
    pub workspace: String,
    pub sandboxes_running: u64,
    pub limits: Limits,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Limits {
    pub sandbox_timeout_seconds_max: u64,
    pub cpu_count_max: u32,
    pub memory_bytes_max: u64,
    pub json_body_bytes_max: usize,
    pub page_items_max: usize,
}
