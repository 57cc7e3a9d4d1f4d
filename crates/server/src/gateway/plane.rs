//! What the data plane needs of the engine.

use async_trait::async_trait;
use tokio::net::TcpStream;
use woodfrog_engine::{Engine, GuestLease, SandboxAccess};
use woodfrog_types::{Fault, SandboxId};

/// The engine as the data plane sees it: no principal, since a request shows a sandbox's own
/// token. A port of its own, so that the data plane is tested against real guests without an
/// engine.
#[async_trait]
pub trait DataPlane: Send + Sync + 'static {
    /// What it takes to reach a sandbox; never wakes it. `SandboxNotFound` if there is none.
    async fn peek(&self, id: &SandboxId) -> Result<SandboxAccess, Fault>;

    /// The sandbox that the check accepts; never wakes it.
    async fn access_by_signature(
        &self,
        check: &(dyn for<'a> Fn(&'a SandboxAccess) -> bool + Send + Sync),
    ) -> Option<SandboxAccess>;

    /// The sandbox's guest, for one operation. Wakes it and waits for it if any access may; else
    /// `Asleep`. Comes after every check of who is asking.
    async fn guest(&self, id: &SandboxId) -> Result<GuestLease, Fault>;

    /// `PortNotOpen` if nothing listens, not even a moment later.
    async fn port_connect(&self, id: &SandboxId, port: u16) -> Result<TcpStream, Fault>;
}

#[async_trait]
impl DataPlane for Engine {
    async fn peek(&self, id: &SandboxId) -> Result<SandboxAccess, Fault> {
        Engine::peek(self, id).await
    }

    async fn access_by_signature(
        &self,
        check: &(dyn for<'a> Fn(&'a SandboxAccess) -> bool + Send + Sync),
    ) -> Option<SandboxAccess> {
        Engine::access_by_signature(self, check).await
    }

    async fn guest(&self, id: &SandboxId) -> Result<GuestLease, Fault> {
        Engine::guest(self, id).await
    }

    async fn port_connect(&self, id: &SandboxId, port: u16) -> Result<TcpStream, Fault> {
        Engine::port_connect(self, id, port).await
    }
}
