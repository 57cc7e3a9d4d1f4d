//! What a sandbox uses: gVisor's own processes count as its.

use std::time::Duration;

use woodfrog_linux::btrfs;
use woodfrog_sandbox::{Result, Usage};
use woodfrog_types::SandboxId;

use crate::driver::Shared;
use crate::error::step;

/// Reads cgroup and quota. Blocking.
pub(crate) fn usage(shared: &Shared, id: &SandboxId) -> Result<Usage> {
    let used = shared
        .cgroup(id)
        .usage()
        .map_err(|e| step("read the cgroup", e))?;
    let disk_bytes = if shared.has_quotas() {
        let used = btrfs::used(&shared.paths.sandbox(id)).map_err(|e| step("read the quota", e))?;
        Some(used)
    } else {
        None
    };
    // The memory of what runs inside is one shared file of the sentry's, which the kernel counts
    // among the cache.
    let cache = used.cache_bytes.saturating_sub(used.shmem_bytes);
    Ok(Usage {
        cpu: Duration::from_nanos(used.cpu_nanos),
        memory_bytes: used.memory_bytes.saturating_sub(cache),
        memory_cache_bytes: cache,
        pids: u32::try_from(used.pids).unwrap_or(u32::MAX),
        disk_bytes,
    })
}
