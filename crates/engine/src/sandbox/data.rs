//! The data plane: from memory, without a principal. The caller checks tokens.

use woodfrog_guest_client::GuestClient;
use woodfrog_types::{Fault, SandboxId};

use crate::access::{GuestLease, SandboxAccess};
use crate::engine::Engine;

impl Engine {
    /// What the gateway must know of a running sandbox; `SandboxNotFound` for all others.
    pub async fn access(&self, id: &SandboxId) -> Result<SandboxAccess, Fault> {
        let access = self.inner.registry.get(id).and_then(|live| live.access());
        access
            .map(|access| SandboxAccess::clone(&access))
            .ok_or_else(|| Fault::sandbox_not_found(id.as_str()))
    }

    /// The running sandbox that `check` accepts: for signed URLs that do not name theirs.
    pub async fn access_by_signature(
        &self,
        check: impl Fn(&SandboxAccess) -> bool,
    ) -> Option<SandboxAccess> {
        let all = self.inner.registry.all();
        all.iter()
            .filter_map(|live| live.access())
            .find(|access| check(access))
            .map(|access| SandboxAccess::clone(&access))
    }

    /// A running sandbox's guest, for one operation.
    pub async fn guest(&self, id: &SandboxId) -> Result<GuestLease, Fault> {
        self.inner.accepting()?;
        let live = self
            .inner
            .registry
            .get(id)
            .filter(|live| live.access().is_some())
            .ok_or_else(|| Fault::sandbox_not_found(id.as_str()))?;
        live.touch();
        Ok(GuestLease::new(GuestClient {}, live.ended.clone()))
    }
}
