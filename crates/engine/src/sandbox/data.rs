//! The data plane: from memory, without a principal. The caller checks tokens.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use woodfrog_types::{Code, Fault, SandboxId};

use crate::access::{GuestLease, SandboxAccess};
use crate::engine::Engine;
use crate::guest;
use crate::sandbox::live::Live;

/// Tries to reach a port inside before it counts as closed, and the pause that grows with each.
const PORT_TRIES: u32 = 5;
const PORT_PAUSE: Duration = Duration::from_millis(100);

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
        let live = self.reachable(id)?;
        let client = guest::client(&self.inner, id);
        Ok(GuestLease::new(client, live.ended.clone()))
    }

    /// A connection to a port inside, made from inside to its loopback. A port that is just being
    /// opened is tried again for a second; then `PortNotOpen`.
    pub async fn port_connect(&self, id: &SandboxId, port: u16) -> Result<TcpStream, Fault> {
        let live = self.reachable(id)?;
        let client = guest::client(&self.inner, id);
        let mut tries = 1;
        loop {
            let refused = match client.connect(port).await.map_err(guest::guest_fault) {
                Ok(stream) => return Ok(stream),
                Err(fault) if fault.code == Code::PortNotOpen => fault,
                Err(_) if live.ended.is_cancelled() => {
                    return Err(Fault::sandbox_not_found(id.as_str()));
                }
                Err(fault) => return Err(fault),
            };
            if tries == PORT_TRIES {
                return Err(Fault::new(
                    Code::PortNotOpen,
                    "The sandbox is running but port is not open",
                )
                .because(refused));
            }
            tokio::select! {
                () = live.ended.cancelled() => return Err(Fault::sandbox_not_found(id.as_str())),
                () = tokio::time::sleep(PORT_PAUSE * tries) => tries += 1,
            }
        }
    }

    fn reachable(&self, id: &SandboxId) -> Result<Arc<Live>, Fault> {
        self.inner.accepting()?;
        let live = self
            .inner
            .registry
            .get(id)
            .filter(|live| live.access().is_some())
            .ok_or_else(|| Fault::sandbox_not_found(id.as_str()))?;
        live.touch();
        Ok(live)
    }
}
