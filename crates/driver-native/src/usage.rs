//! What a sandbox uses.

use std::fs::File;
use std::time::Duration;

use woodfrog_linux::btrfs;
use woodfrog_linux::pool::Kind;
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
    let disk_bytes = match shared.pool {
        Kind::Btrfs => File::open(shared.paths.sandbox(id))
            .and_then(|dir| btrfs::usage(&dir))
            .map_err(|e| step("read the quota", e))?,
        Kind::Plain { .. } => None,
    };
    Ok(Usage {
        cpu: Duration::from_nanos(used.cpu_nanos),
        memory_bytes: used.memory_bytes.saturating_sub(used.cache_bytes),
        memory_cache_bytes: used.cache_bytes,
        pids: u32::try_from(used.pids).unwrap_or(u32::MAX),
        disk_bytes,
    })
}
