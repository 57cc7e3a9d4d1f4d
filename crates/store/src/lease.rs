//! Which of several servers that share a store has a sandbox.

use async_trait::async_trait;
use woodfrog_types::node::{Lease, Node};
use woodfrog_types::{NodeId, RunId, SandboxId, SnapshotId};

use crate::Result;

/// What may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// What nobody has.
    Released,
    /// Also what somebody has who did not renew it in time.
    Expired,
}

/// What came of an attempt to take a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taking {
    /// It is this node's, and was or became so just now.
    Mine(Lease),
    /// It is another node's.
    Held(Lease),
    /// There is none: no such sandbox, or one from before there were leases.
    Nothing,
}

/// Leases of a store that several servers share. Each opens it as a node of its own; from then on
/// - a sandbox that it inserts is its own, in the same transaction;
/// - `sandbox_update`, `sandbox_update_with_snapshot`, `sandbox_remove` and `event_append` about a
///   sandbox whose lease another node (or a later process of the same node) has are refused with
///   [`crate::StoreError::Fenced`], checked in the transaction of the write;
/// - `sandbox_recover`, `sandbox_due`, `sandbox_next_deadline` and `build_unfinished` show what is
///   its own, the second and third also what is nobody's.
///
/// Times are the store's clock alone: servers need not agree about theirs.
///
/// The calls as they stand here are those of a store that is one server's own: there are no leases,
/// and everything is that server's.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// The node that this store was opened for; `None`: nobody shares it.
    fn node(&self) -> Option<&NodeId> {
        None
    }
    /// Says that this process is the node from now on: what the node has becomes this process's,
    /// and what nobody ever had, too, if there is no other node.
    async fn lease_begin(&self, _name: &str) -> Result<()> {
        Ok(())
    }
    /// A node; `None` if it never began.
    async fn node_fetch(&self, _id: &NodeId) -> Result<Option<Node>> {
        Ok(None)
    }
    /// The lease of a sandbox.
    async fn lease_fetch(&self, _sandbox: &SandboxId) -> Result<Option<Lease>> {
        Ok(None)
    }
    /// Takes a lease if it may be taken; one that this node has is renewed.
    async fn lease_take(&self, _sandbox: &SandboxId, _claim: Claim) -> Result<Taking> {
        Ok(Taking::Nothing)
    }
    /// Lets a lease go; one that is not this node's is left alone.
    async fn lease_release(&self, _sandbox: &SandboxId) -> Result<()> {
        Ok(())
    }
    /// Renews all leases of this process; the sandboxes that they are of.
    async fn lease_renew(&self) -> Result<Vec<SandboxId>> {
        Ok(Vec::new())
    }
    /// Asks the node that has a sandbox to let it go; what it said to an earlier wish is forgotten.
    async fn lease_want(&self, _sandbox: &SandboxId) -> Result<()> {
        Ok(())
    }
    /// Sandboxes of this node that another one wants and was not refused.
    async fn lease_wanted(&self) -> Result<Vec<SandboxId>> {
        Ok(Vec::new())
    }
    /// Answers a wish: the sandbox stays where it is.
    async fn lease_refuse(&self, _sandbox: &SandboxId, _why: &str) -> Result<()> {
        Ok(())
    }
    /// Snapshots whose record this node was the last to write, unless they are in the archive
    /// alone. `None`: all are its own.
    async fn snapshots_here(&self) -> Result<Option<Vec<SnapshotId>>> {
        Ok(None)
    }
    /// Unfinished runs whose record this node was the last to write. `None`: all are its own.
    async fn runs_here(&self) -> Result<Option<Vec<RunId>>> {
        Ok(None)
    }
}
