//! Resource use.

use std::collections::BTreeMap;

use serde::Serialize;
use woodfrog_types::metric::MetricSample;

/// One sample; sizes in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxMetric {
    pub timestamp: String,
    pub timestamp_unix: i64,
    pub cpu_count: u32,
    pub cpu_used_pct: f64,
    pub mem_used: u64,
    pub mem_total: u64,
    pub mem_cache: u64,
    pub disk_used: u64,
    pub disk_total: u64,
}

/// The latest sample of several sandboxes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SandboxesWithMetrics {
    pub sandboxes: BTreeMap<String, SandboxMetric>,
}

impl From<MetricSample> for SandboxMetric {
    fn from(sample: MetricSample) -> Self {
        Self {
            timestamp: sample.at.to_rfc3339(),
            timestamp_unix: sample.at.as_secs(),
            cpu_count: sample.cpu_count,
            cpu_used_pct: sample.cpu_used_pct,
            mem_used: sample.mem_used,
            mem_total: sample.mem_total,
            mem_cache: sample.mem_cache,
            disk_used: sample.disk_used,
            disk_total: sample.disk_total,
        }
    }
}
