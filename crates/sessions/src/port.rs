//! What sessions need of the machines that agents run in.

use async_trait::async_trait;
use woodfrog_engine::GuestLease;
use woodfrog_guest_client::proto::StartRequest;
use woodfrog_types::session::Session;
use woodfrog_types::{Fault, SandboxId, SnapshotId};

/// Sandboxes, or the one machine that stands for all of them.
#[async_trait]
pub trait Machines: Send + Sync + 'static {
    /// The guest, for one operation. Wakes the sandbox and waits for it.
    async fn guest(&self, sandbox: &SandboxId) -> Result<GuestLease, Fault>;

    /// Whether the sandbox runs now. Never wakes it.
    async fn is_awake(&self, sandbox: &SandboxId) -> bool;

    /// Whether there is no such sandbox any more.
    async fn is_gone(&self, sandbox: &SandboxId) -> bool;

    /// Whether there is such an agent at all: `UnsupportedAgent`.
    fn known(&self, agent: &str) -> Result<(), Fault>;

    /// How the agent is started there; brings it there first where that is allowed.
    async fn command(
        &self,
        sandbox: &SandboxId,
        guest: &GuestLease,
        session: &Session,
    ) -> Result<StartRequest, Fault>;

    /// Another sandbox for a session whose own is gone; `None` where none is made.
    async fn replace(&self, session: &Session) -> Result<Option<SandboxId>, Fault>;

    /// Another sandbox that is as the session's own was when this snapshot was taken. None of the
    /// agents that ran there goes on.
    async fn at_turn(&self, session: &Session, snapshot: &SnapshotId) -> Result<SandboxId, Fault>;

    /// Takes back a sandbox that nobody was told of.
    async fn discard(&self, session: &Session, sandbox: &SandboxId);

    /// Keeps what the sandbox is at the end of a turn, if this session's settings ask for it.
    async fn keep_turn(&self, session: &Session, turn: u64) -> Result<Option<SnapshotId>, Fault>;
}
