//! The data plane's way into a sandbox.

use woodfrog_guest_client::GuestClient;
use woodfrog_types::SandboxId;
use woodfrog_types::network::NetworkSpec;

/// What the gateway must know to let a request in. Cheap: served from memory.
#[derive(Debug, Clone)]
pub struct SandboxAccess {
    pub id: SandboxId,
    pub secure: bool,
    pub access_token: String,
    pub traffic_token: Option<String>,
    pub network: NetworkSpec,
    /// Whose files and processes a request means that names no user.
    pub default_user: String,
    pub default_workdir: Option<String>,
}

/// A running sandbox's guest, held for one operation. While it is held the sandbox counts as
/// active. Streams select on [`GuestLease::ended`] and abort when it resolves.
#[derive(Clone)]
pub struct GuestLease {
    client: GuestClient,
    ended: tokio_util::sync::CancellationToken,
}

impl GuestLease {
    /// Wraps a client of a running sandbox.
    pub fn new(client: GuestClient, ended: tokio_util::sync::CancellationToken) -> Self {
        Self { client, ended }
    }

    /// Resolves once the sandbox is ending: what streams from it stops without a final frame.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl std::ops::Deref for GuestLease {
    type Target = GuestClient;

    fn deref(&self) -> &GuestClient {
        &self.client
    }
}
