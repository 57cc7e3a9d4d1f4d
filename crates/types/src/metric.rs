//! Resource use of a sandbox at one point in time.

use crate::Timestamp;

/// One sample. Sizes are bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricSample {
    /// When it was taken.
    pub at: Timestamp,
    /// vCPUs the sandbox may use.
    pub cpu_count: u32,
    /// Percent of one CPU used since the sample before (200 = two CPUs busy).
    pub cpu_used_pct: f64,
    /// Memory in use, without page cache.
    pub mem_used: u64,
    /// The memory limit.
    pub mem_total: u64,
    /// Page cache charged to the sandbox.
    pub mem_cache: u64,
    /// Disk in use above the template.
    pub disk_used: u64,
    /// The disk limit, or the size of the file system where there is none.
    pub disk_total: u64,
}
