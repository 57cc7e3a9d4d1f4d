//! Freezing sandboxes in place.

use std::sync::Arc;

use woodfrog_sandbox::{Capability, DriverError, Result};
use woodfrog_types::SandboxId;

use crate::driver::{Shared, blocking, require};
use crate::error::step;

/// Stops every process of a sandbox.
pub(crate) async fn pause(shared: &Arc<Shared>, id: &SandboxId) -> Result<()> {
    require(&shared.capabilities, Capability::Pause, "pausing a sandbox")?;
    set(shared, id, true).await
}

/// Lets them go on.
pub(crate) async fn resume(shared: &Arc<Shared>, id: &SandboxId) -> Result<()> {
    require(&shared.capabilities, Capability::Pause, "pausing a sandbox")?;
    set(shared, id, false).await
}

async fn set(shared: &Arc<Shared>, id: &SandboxId, frozen: bool) -> Result<()> {
    // A task of its own that holds the lock: a caller that goes away leaves it whole.
    let held = shared.locks.lock(id).await;
    let instance = shared.instance(id)?;
    if instance
        .has_ended()
        .map_err(|e| step("look at the sandbox", e))?
    {
        return Err(DriverError::NotFound { id: id.to_string() });
    }
    let group = shared.cgroup(id);
    let work = blocking(move || {
        let _held = held;
        if frozen {
            group.freeze().map_err(|e| step("freeze", e))
        } else {
            group.thaw().map_err(|e| step("thaw", e))
        }
    });
    work.await
}
