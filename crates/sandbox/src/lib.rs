//! The driver's port: what makes sandboxes, and what is asked of it.
//!
//! A driver makes an isolated machine from layers, hands out connections to the guest in it, and
//! removes it without a trace. It knows nothing of workspaces, deadlines or HTTP.
#![forbid(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
pub mod spec;

use async_trait::async_trait;
use tokio::net::UnixStream;
use woodfrog_types::sandbox::InstanceState;
use woodfrog_types::{SandboxId, SnapshotId};

pub use error::DriverError;
pub use spec::{
    Adopted, Capabilities, Capability, CheckpointSpec, Checkpointed, Egress, LaunchSpec, Launched,
    Outbound, RestoreSpec, SnapshotHealth, Then, Usage, VolumeSpec,
};

/// A result of a driver.
pub type Result<T> = std::result::Result<T, DriverError>;

/// Makes and removes sandboxes. All methods are safe to call concurrently for different ids; for
/// one id the engine never has two calls under way, except [`Driver::usage`], [`Driver::exited`]
/// and [`Driver::connect`].
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// A stable name: `native`.
    fn name(&self) -> &'static str;

    /// What this driver can do on this machine.
    fn capabilities(&self) -> &Capabilities;

    /// Makes and starts a sandbox. On error nothing of it is left. If the future is dropped it may
    /// be made all the same: [`Driver::destroy`] then waits for that. `AlreadyExists` if the id is
    /// in use. The guest may need a few more milliseconds until it accepts connections;
    /// [`Driver::connect`] waits for it.
    async fn launch(&self, spec: LaunchSpec) -> Result<Launched>;

    /// Finds a sandbox again that an earlier server process launched. `NotFound` if it is not
    /// running any more; whatever is left of it then is removed by [`Driver::destroy`].
    async fn adopt(&self, id: &SandboxId, instance: &InstanceState) -> Result<Adopted>;

    /// Ends every process of the sandbox and removes all that it had on the machine: mounts,
    /// cgroups, network, files. Idempotent; an unknown id is `Ok`.
    async fn destroy(&self, id: &SandboxId) -> Result<()>;

    /// Removes whatever of this driver is on the machine that belongs to none of `live`.
    /// Returns what was removed, for the log.
    async fn reconcile(&self, live: &[SandboxId]) -> Result<Vec<String>>;

    /// A new connection to the sandbox's guest, peer checked. Waits while the guest starts, at
    /// most 10 s.
    async fn connect(&self, id: &SandboxId) -> Result<UnixStream>;

    /// Resolves when the sandbox's init has ended, with a sentence about how; `NotFound` for an
    /// unknown id. May be awaited by several tasks.
    async fn exited(&self, id: &SandboxId) -> Result<String>;

    /// Refuses an egress policy that no sandbox may have on this machine: one with a proxy at an
    /// address that the operator did not open. Looks names up.
    async fn check_egress(&self, _egress: &Egress) -> Result<()> {
        Ok(())
    }

    /// Replaces the sandbox's egress policy; in force for new connections when it returns.
    async fn set_egress(&self, id: &SandboxId, egress: Egress) -> Result<()>;

    /// What it uses now.
    async fn usage(&self, id: &SandboxId) -> Result<Usage>;

    /// Freezes every process of a sandbox in place. Idempotent. Connections to its guest are taken
    /// but not answered until [`Driver::resume`].
    async fn pause(&self, id: &SandboxId) -> Result<()>;

    /// Lets a paused sandbox go on. Idempotent.
    async fn resume(&self, id: &SandboxId) -> Result<()>;

    /// Takes a snapshot of a running or paused sandbox. When it returns `Ok` the snapshot is
    /// durable and complete. On an error nothing of the snapshot is left and the sandbox goes on
    /// as before; [`DriverError::Checkpoint`] says why its memory cannot be saved. No operation
    /// on the guest may be under way: connections that are open are closed.
    async fn checkpoint(&self, id: &SandboxId, spec: CheckpointSpec) -> Result<Checkpointed>;

    /// Makes a sandbox from a snapshot, which stays as it is. On error nothing of it is left but
    /// what was there before. [`DriverError::Snapshot`] if the snapshot cannot be used.
    async fn restore(&self, spec: RestoreSpec) -> Result<Launched>;

    /// Removes a snapshot. Idempotent; an unknown id is `Ok`.
    async fn snapshot_remove(&self, snapshot: &SnapshotId) -> Result<()>;

    /// Reads a snapshot back and compares it with what was written. `NotFound` for an unknown id.
    async fn snapshot_verify(&self, snapshot: &SnapshotId) -> Result<SnapshotHealth>;

    /// Every complete snapshot on this machine; removes what is left of unfinished ones. Not to be
    /// called while one is being taken.
    async fn snapshot_reconcile(&self, known: &[SnapshotId]) -> Result<Vec<SnapshotId>>;

    /// The folder of a complete snapshot, to be read, and for the archive.
    async fn snapshot_export(&self, snapshot: &SnapshotId) -> Result<std::path::PathBuf>;

    /// An empty folder to put an archived snapshot into, followed by
    /// [`Driver::snapshot_import_finish`], which checks it and makes it a complete snapshot.
    async fn snapshot_import_begin(&self, snapshot: &SnapshotId) -> Result<std::path::PathBuf>;

    /// See [`Driver::snapshot_import_begin`].
    async fn snapshot_import_finish(&self, snapshot: &SnapshotId) -> Result<()>;

    /// Turns what a stopped or running sandbox wrote (its writable layer) into a directory that
    /// the caller may move away. Only for sandboxes that no process runs in: call it after the
    /// guest was asked to end, before [`Driver::destroy`].
    async fn take_upper(&self, id: &SandboxId) -> Result<std::path::PathBuf>;

    /// Opens the directory with what a sandbox wrote (its writable layer), to be read while it runs
    /// or sleeps on this machine. What is in it is not to be trusted: no link may be followed.
    /// `Unsupported` where it cannot be seen from outside.
    async fn open_upper(&self, id: &SandboxId) -> Result<std::os::fd::OwnedFd>;

    /// Names of the layers' folders that sandboxes of this driver run on, those that stand still and
    /// those that nobody knows any more included. An error if it cannot tell of one.
    async fn layers_in_use(&self) -> Result<std::collections::BTreeSet<String>>;

    /// Ends what belongs to the driver but not to a sandbox (helper processes). Sandboxes go on.
    async fn shutdown(&self);
}
