//! Servers that share a store, and which of them has a sandbox.

use crate::{NodeId, SandboxId, Timestamp};

/// A server among those that share a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    /// For people.
    pub name: String,
    /// When it last renewed its leases, by the store's clock.
    pub seen_at: Timestamp,
}

/// The right to change a sandbox. It is there from the sandbox's first record on, and stays until
/// the sandbox is forgotten: its token rises over all who had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub sandbox: SandboxId,
    /// `None`: it was let go, and is in the archive.
    pub node: Option<NodeId>,
    /// One higher with every taking.
    pub token: u64,
    /// It was not renewed in time, by the store's clock: its node may be gone.
    pub over: bool,
    /// Who asked for it.
    pub wanted: Option<NodeId>,
    /// Why its node does not let it go, for who asked last.
    pub refused: Option<String>,
}
