//! The store's port: what must be remembered, per aggregate.
//!
//! Promises that every adapter keeps (and the conformance suite checks):
//! - a call that returned `Ok` is durable: it survives `kill -9` and power loss;
//! - a write names the generation it saw and fails with [`StoreError::Conflict`] if another
//!   writer was first; nothing is half written;
//! - lists are stable under concurrent inserts: no item is shown twice or skipped because of one.
//! - times and durations are kept to the millisecond.
//!
//! A call whose future is dropped may or may not have written; it is never half done.
#![forbid(unsafe_code)]

mod analytics;
mod billing;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod cursor;
mod error;
mod lease;
pub mod memory;
pub mod records;
mod run;
mod sleep;

use async_trait::async_trait;
use woodfrog_types::audit::{AuditEnds, AuditEntry, AuditFilter};
use woodfrog_types::event::SandboxEvent;
use woodfrog_types::key::ApiKey;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox::{Sandbox, SandboxFilter};
use woodfrog_types::sandbox_session::{SandboxSession, SandboxSessionFilter};
use woodfrog_types::secret::{Secret, Volume};
use woodfrog_types::session::{LogEnd, Session, SessionFace, SessionFilter, Stream, Turn};
use woodfrog_types::snapshot::{Snapshot, SnapshotFilter};
use woodfrog_types::template::{Build, BuildLogLine, Template};
use woodfrog_types::workspace::{LimitsRecord, Member, Role, UserId, Workspace};
use woodfrog_types::{
    BuildId, KeyId, SandboxId, SandboxSessionId, SecretId, SessionId, SnapshotId, TemplateId,
    Timestamp, VolumeId, WorkspaceId,
};

pub use analytics::AnalyticsStore;
pub use billing::{BudgetStore, MeterStore, PriceStore, Replay, WebhookStore, moment};
pub use error::StoreError;
pub use lease::{Claim, LeaseStore, Taking};
pub use records::{
    Damaged, IdempotencyEntry, IdempotencyOutcome, NewEvent, PersistedEvent, PersistedSession,
    Recovery, SessionAppend, SessionSlice,
};

pub use run::{
    Admitted, ArtifactPut, ArtifactStore, RunStore, RunWrite, RunWritten, StartRate, UsageStore,
    Whose,
};
pub use sleep::SleepStore;

/// A result of the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Sandboxes.
#[async_trait]
pub trait SandboxStore: Send + Sync {
    /// Adds a sandbox and its first events in one transaction. `Conflict` if its generation is
    /// not 1, `Constraint` if the id is taken.
    async fn sandbox_insert(&self, sandbox: &Sandbox, events: Vec<NewEvent>) -> Result<()>;
    /// Replaces the record whose generation is `sandbox.generation - 1`, and appends events, in
    /// one transaction. `Conflict` if the stored generation is another, `NotFound` if it is gone.
    async fn sandbox_update(&self, sandbox: &Sandbox, events: Vec<NewEvent>) -> Result<()>;
    /// Removes the record and appends events; the log stays. Its session, if it has one, ends at
    /// the time of the last of these events. Removing what is not there is `Ok`
    /// and appends nothing, so a repeated removal leaves one trace.
    async fn sandbox_remove(&self, id: &SandboxId, events: Vec<NewEvent>) -> Result<()>;
    /// One sandbox, of whatever workspace.
    async fn sandbox_fetch(&self, id: &SandboxId) -> Result<Option<Sandbox>>;
    /// A workspace's sandboxes that match, in the filter's order of `started_at` (then id).
    /// Those in state `Deleting` are left out unless asked for; `started_after` is exclusive. A damaged record is
    /// left out and logged, so that it does not hide the others.
    async fn sandbox_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SandboxFilter,
        page: &PageRequest,
    ) -> Result<Page<Sandbox>>;
    /// Every sandbox of every workspace and state, by id. `Corrupt` if one of them cannot be read.
    async fn sandbox_all(&self) -> Result<Vec<Sandbox>>;
    /// Sandboxes of every workspace and state that have the label
    /// [`RUN_LABEL`](woodfrog_types::run::RUN_LABEL), after `after`, by id; at most `limit`. Damaged
    /// records are left out and logged.
    async fn sandbox_of_runs(
        &self,
        after: Option<&SandboxId>,
        limit: usize,
    ) -> Result<Vec<Sandbox>>;
    /// As [`SandboxStore::sandbox_all`], for recovery, of this node ([`LeaseStore`]): damaged records are told apart, so that
    /// they neither hide the others nor make what they stand for look like nobody's.
    async fn sandbox_recover(&self) -> Result<Recovery>;
    /// Ids of sandboxes that are due ([`woodfrog_types::sandbox::Sandbox::due`]) at or before
    /// `now`, earliest first; from an index, so it costs what is due and not what exists.
    async fn sandbox_due(&self, now: Timestamp, limit: usize) -> Result<Vec<SandboxId>>;
    /// The earliest [`woodfrog_types::sandbox::Sandbox::due`] of all sandboxes.
    async fn sandbox_next_deadline(&self) -> Result<Option<Timestamp>>;
    /// How many sandboxes the workspace has that are not being deleted.
    async fn sandbox_count(&self, workspace: &WorkspaceId) -> Result<u64>;
    /// How many of these run as whoever uses them sees it: all but those that are
    /// [kept asleep](woodfrog_types::sandbox::SandboxState::is_kept_asleep).
    async fn sandbox_count_running(&self, workspace: &WorkspaceId) -> Result<u64>;
}

/// The log of each sandbox: dense sequence numbers from 1.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Appends and returns the sequence number of the last one (0 for an empty log). The sandbox
    /// itself need not exist (any more).
    async fn event_append(&self, sandbox: &SandboxId, events: Vec<NewEvent>) -> Result<u64>;
    /// Events after sequence number `after`, oldest first.
    async fn event_list(
        &self,
        sandbox: &SandboxId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<SandboxEvent>>;
    /// Drops the events of sandboxes that are gone and whose last event is older than `before`.
    /// Returns how many sandboxes' logs were dropped; at most `limit`.
    async fn event_trim(&self, before: Timestamp, limit: usize) -> Result<u64>;
}

/// Snapshots.
#[async_trait]
pub trait SnapshotStore: Send + Sync {
    /// Adds a snapshot. `Conflict` if its generation is not 1, `Constraint` if the id or, in its
    /// workspace, the name is taken.
    async fn snapshot_insert(&self, snapshot: &Snapshot) -> Result<()>;
    /// Replaces the record whose generation is one lower. `Conflict` if the stored generation is
    /// another, `NotFound` if it is gone, `Constraint` if its new name is taken.
    async fn snapshot_update(&self, snapshot: &Snapshot) -> Result<()>;
    /// As [`SandboxStore::sandbox_update`] and [`SnapshotStore::snapshot_update`] (or, at
    /// generation 1, [`SnapshotStore::snapshot_insert`]) in one transaction: a sandbox and the
    /// snapshot that it falls asleep in change together or not at all.
    async fn sandbox_update_with_snapshot(
        &self,
        sandbox: &Sandbox,
        events: Vec<NewEvent>,
        snapshot: &Snapshot,
    ) -> Result<()>;
    /// Removes the record. Removing what is not there is `Ok`.
    async fn snapshot_remove(&self, id: &SnapshotId) -> Result<()>;
    /// One snapshot, of whatever workspace.
    async fn snapshot_fetch(&self, id: &SnapshotId) -> Result<Option<Snapshot>>;
    /// By name, among those of the workspace that are not being deleted.
    async fn snapshot_by_name(
        &self,
        workspace: &WorkspaceId,
        name: &str,
    ) -> Result<Option<Snapshot>>;
    /// A workspace's snapshots that match, newest first (by `created_at`, then id). Those being
    /// deleted are left out.
    async fn snapshot_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SnapshotFilter,
        page: &PageRequest,
    ) -> Result<Page<Snapshot>>;
    /// Every snapshot of every workspace and state, by id.
    async fn snapshot_all(&self) -> Result<Vec<Snapshot>>;
    /// What the workspace's snapshots that are not being deleted take: the sum of their written
    /// and disk bytes.
    async fn snapshot_usage(&self, workspace: &WorkspaceId) -> Result<u64>;
}

/// Sandbox sessions: what applications remember about their sandboxes.
#[async_trait]
pub trait SandboxSessionStore: Send + Sync {
    /// Adds a session. `Constraint` if the id is taken or the sandbox has one, `NotFound` if
    /// there is no such sandbox (any more).
    async fn sandbox_session_insert(&self, session: &SandboxSession) -> Result<()>;
    /// Remembers that the sandbox was used then; it never moves back. `NotFound` if it is gone.
    async fn sandbox_session_touch(&self, id: &SandboxSessionId, at: Timestamp) -> Result<()>;
    /// `false` if there was none.
    async fn sandbox_session_remove(&self, id: &SandboxSessionId) -> Result<bool>;
    /// One session, of whatever workspace.
    async fn sandbox_session_fetch(&self, id: &SandboxSessionId) -> Result<Option<SandboxSession>>;
    /// The session that a sandbox has, or had when it was there.
    async fn sandbox_session_of(&self, sandbox: &SandboxId) -> Result<Option<SandboxSession>>;
    /// A workspace's sessions that match, oldest first (then by id). The state is that of the
    /// stored sandbox.
    async fn sandbox_session_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SandboxSessionFilter,
        page: &PageRequest,
    ) -> Result<Page<SandboxSession>>;
    /// Forgets sessions that ended before `before`; returns how many, at most `limit`.
    async fn sandbox_session_trim(&self, before: Timestamp, limit: usize) -> Result<u64>;
}

/// Templates and their builds.
#[async_trait]
pub trait TemplateStore: Send + Sync {
    /// Adds a template. `Constraint` if the workspace has one of that name; the server's names
    /// (workspace `None`) are a space of their own, which a workspace's name may shadow.
    async fn template_insert(&self, template: &Template) -> Result<()>;
    /// Replaces a template by id. `NotFound` if it is gone, `Constraint` if its new name is taken.
    async fn template_update(&self, template: &Template) -> Result<()>;
    /// Removes a template and its builds and logs. Removing what is not there is `Ok`.
    async fn template_remove(&self, id: &TemplateId) -> Result<()>;
    /// One template, of whatever workspace.
    async fn template_fetch(&self, id: &TemplateId) -> Result<Option<Template>>;
    /// By name: the workspace's own, else the server's.
    async fn template_by_name(
        &self,
        workspace: &WorkspaceId,
        name: &str,
    ) -> Result<Option<Template>>;
    /// The workspace's templates and the server's, by name.
    async fn template_list(
        &self,
        workspace: &WorkspaceId,
        page: &PageRequest,
    ) -> Result<Page<Template>>;
    /// Adds a build. `NotFound` if its template is gone, `Constraint` if the id is taken.
    async fn build_insert(&self, build: &Build) -> Result<()>;
    /// Replaces a build by id; its template never changes. `NotFound` if it is gone.
    async fn build_update(&self, build: &Build) -> Result<()>;
    async fn build_fetch(&self, id: &BuildId) -> Result<Option<Build>>;
    /// A template's builds, newest first.
    async fn build_list(&self, template: &TemplateId, page: &PageRequest) -> Result<Page<Build>>;
    /// Builds of this node that are waiting or building, oldest first: what a restart must end or
    /// resume.
    async fn build_unfinished(&self) -> Result<Vec<Build>>;
    /// Appends to a build's log. `NotFound` if the build is gone.
    async fn build_log_append(&self, build: &BuildId, lines: Vec<BuildLogLine>) -> Result<()>;
    /// Lines from `offset` (0 is the first).
    async fn build_log_list(
        &self,
        build: &BuildId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<BuildLogLine>>;
    /// Remembers that a cache key of a build step gave this layer.
    async fn layer_cache_put(&self, key: &str, layer: &str, config: &str) -> Result<()>;
    /// The layer and image config (JSON) that a cache key gave.
    async fn layer_cache_get(&self, key: &str) -> Result<Option<(String, String)>>;
    /// Every layer digest that the step cache has, sorted.
    async fn layers_cached(&self) -> Result<Vec<String>>;
    /// Takes a layer out of the step cache.
    async fn layer_cache_forget(&self, layer: &str) -> Result<()>;
    /// Every layer digest that a build refers to, sorted: what must not be removed. `Corrupt` if
    /// one of them cannot be read.
    async fn layers_in_use(&self) -> Result<Vec<String>>;
}

/// API keys.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// Adds a key. `Constraint` if its id or digest is taken.
    async fn key_insert(&self, key: &ApiKey) -> Result<()>;
    /// Replaces the secrets (digest, hint, previous) and the expiry of a key. `NotFound` if it is
    /// gone, `Constraint` if its digest is taken.
    async fn key_update(&self, key: &ApiKey) -> Result<()>;
    /// By its secret, or by the one before. Whether that is still taken is not looked at.
    async fn key_by_digest(&self, digest: &[u8; 32]) -> Result<Option<ApiKey>>;
    async fn key_fetch(&self, id: &KeyId) -> Result<Option<ApiKey>>;
    /// All keys, oldest first; of one workspace if given.
    async fn key_list(&self, workspace: Option<&WorkspaceId>) -> Result<Vec<ApiKey>>;
    /// `false` if there was none.
    async fn key_remove(&self, id: &KeyId) -> Result<bool>;
    /// Remembers the last use; it never moves back, and a key that is gone is no error.
    async fn key_touch(&self, id: &KeyId, at: Timestamp) -> Result<()>;
}

/// Workspaces, the people in them, and what they may use.
#[async_trait]
pub trait WorkspaceStore: Send + Sync {
    /// Adds a workspace and its owner as a member in one transaction. `Conflict` if its
    /// generation is not 1, `Constraint` if the id is taken.
    async fn workspace_insert(&self, workspace: &Workspace) -> Result<()>;
    /// Replaces the record whose generation is one lower; owner and age never change. `Conflict`
    /// if the stored generation is another, `NotFound` if it is gone.
    async fn workspace_update(&self, workspace: &Workspace) -> Result<()>;
    async fn workspace_fetch(&self, id: &WorkspaceId) -> Result<Option<Workspace>>;
    /// Every workspace, oldest first (by `created_at`, then id).
    async fn workspace_list(&self, page: &PageRequest) -> Result<Page<Workspace>>;
    /// Where somebody is a member and as what, oldest workspace first.
    async fn workspace_of(&self, user: &UserId) -> Result<Vec<(Workspace, Role)>>;
    /// Those that are being removed, the one first that has been for longest.
    async fn workspace_removing(&self) -> Result<Vec<Workspace>>;
    /// Removes the record, the members, the limits, what was said about sleep and the keys in one
    /// transaction; the audit log stays. `false` if there was no such workspace.
    async fn workspace_purge(&self, id: &WorkspaceId) -> Result<bool>;
    /// Adds a member. `Constraint` if they are in it, `NotFound` if there is no such workspace.
    async fn member_insert(&self, member: &Member) -> Result<()>;
    /// Gives a member another role. `NotFound` if there is no such member.
    async fn member_update(&self, workspace: &WorkspaceId, user: &UserId, role: Role)
    -> Result<()>;
    /// `false` if there was none.
    async fn member_remove(&self, workspace: &WorkspaceId, user: &UserId) -> Result<bool>;
    async fn member_fetch(&self, workspace: &WorkspaceId, user: &UserId) -> Result<Option<Member>>;
    /// A workspace's members, the one first that has been for longest (then by name).
    async fn member_list(&self, workspace: &WorkspaceId) -> Result<Vec<Member>>;
    /// `None` while nobody set any.
    async fn limits_fetch(&self, workspace: &WorkspaceId) -> Result<Option<LimitsRecord>>;
    /// Stores limits; generation 1 are the first. `Conflict` if the stored generation is not the
    /// one before.
    async fn limits_put(&self, limits: &LimitsRecord) -> Result<()>;
}

/// The audit logs: dense places per workspace from 1, each with the hash of the chain.
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// Appends entries of one workspace, all of them or none. `Conflict` if they do not follow on
    /// the end of the log. Their hashes are the caller's affair.
    async fn audit_append(&self, entries: &[AuditEntry]) -> Result<()>;
    async fn audit_ends(&self, workspace: &WorkspaceId) -> Result<AuditEnds>;
    /// Entries that match, newest first.
    async fn audit_list(
        &self,
        workspace: &WorkspaceId,
        filter: &AuditFilter,
        page: &PageRequest,
    ) -> Result<Page<AuditEntry>>;
    /// Entries after place `after`, in order.
    async fn audit_read(
        &self,
        workspace: &WorkspaceId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>>;
    /// Drops entries from the beginning that are older than `before`, at most `limit`, and
    /// remembers the place and the hash of the last one. Stops at the first that is younger.
    /// Returns how many.
    async fn audit_trim(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64>;
    /// Workspaces that have a log, gone ones included.
    async fn audit_workspaces(&self) -> Result<Vec<WorkspaceId>>;
}

/// Secrets, their values sealed.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// Adds a secret. `Constraint` if its id or, in its workspace, the name is taken.
    async fn secret_insert(&self, secret: &Secret) -> Result<()>;
    /// Replaces the record whose version is one lower; workspace and name never change.
    /// `Conflict` if the stored version is another, `NotFound` if it is gone.
    async fn secret_update(&self, secret: &Secret) -> Result<()>;
    /// One secret, of whatever workspace.
    async fn secret_fetch(&self, id: &SecretId) -> Result<Option<Secret>>;
    async fn secret_by_name(&self, workspace: &WorkspaceId, name: &str) -> Result<Option<Secret>>;
    /// A workspace's secrets, by name.
    async fn secret_list(
        &self,
        workspace: &WorkspaceId,
        page: &PageRequest,
    ) -> Result<Page<Secret>>;
    /// `false` if there was none.
    async fn secret_remove(&self, id: &SecretId) -> Result<bool>;
    /// How many secrets the workspace has.
    async fn secret_count(&self, workspace: &WorkspaceId) -> Result<u64>;
}

/// Volumes: what they are called; their content is elsewhere.
#[async_trait]
pub trait VolumeStore: Send + Sync {
    /// Adds a volume. `Constraint` if its id or, in its workspace, the name is taken.
    async fn volume_insert(&self, volume: &Volume) -> Result<()>;
    /// One volume, of whatever workspace.
    async fn volume_fetch(&self, id: &VolumeId) -> Result<Option<Volume>>;
    /// All volumes, by name; of one workspace if given.
    async fn volume_list(&self, workspace: Option<&WorkspaceId>) -> Result<Vec<Volume>>;
    /// `false` if there was none.
    async fn volume_remove(&self, id: &VolumeId) -> Result<bool>;
}

/// Sessions with agents, and their logs.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Adds a session with empty logs and epoch 0. `Conflict` if its generation is not 1,
    /// `Constraint` if the id or, where it holds one, its name is taken.
    async fn session_insert(&self, session: &Session) -> Result<()>;
    /// Replaces the record whose generation is one lower. `Conflict` if the stored generation is
    /// another, `NotFound` if it is gone, `Constraint` if its name is taken.
    async fn session_update(&self, session: &Session) -> Result<()>;
    /// One session, of whatever workspace.
    async fn session_fetch(&self, id: &SessionId) -> Result<Option<Session>>;
    /// The one that holds the name.
    async fn session_by_name(
        &self,
        sandbox: &SandboxId,
        face: SessionFace,
        name: &str,
    ) -> Result<Option<Session>>;
    /// A workspace's sessions that match, newest first (by `created_at`, then id).
    async fn session_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SessionFilter,
        page: &PageRequest,
    ) -> Result<Page<Session>>;
    /// Takes the session over: whoever claimed it before can append nothing from now on.
    /// `NotFound` if it is gone.
    async fn session_claim(&self, id: &SessionId) -> Result<(Session, LogEnd)>;
    /// Appends all of it or nothing, and returns where the logs stand then. `Conflict` if the
    /// session was claimed by somebody else or the record's generation is not the next one (or
    /// the record is another session's), `Constraint` if the record's name is taken, `NotFound`
    /// if the session is gone.
    async fn session_append(&self, append: SessionAppend) -> Result<LogEnd>;
    /// At most `limit` entries after place `after`, and no more than `bytes` of payload and wire
    /// form, but one entry at least if there is any (and `limit` is not 0). What was trimmed is
    /// left out: the slice's end says where the log begins. `NotFound` if the session is gone.
    async fn session_read(
        &self,
        id: &SessionId,
        stream: Stream,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<SessionSlice>;
    /// The last `limit` entries up to and with place `upto`, newest first. `NotFound` if the
    /// session is gone.
    async fn session_read_back(
        &self,
        id: &SessionId,
        stream: Stream,
        upto: u64,
        limit: usize,
    ) -> Result<SessionSlice>;
    /// Drops the entries of a stream before place `before`; places are not given out again.
    /// `NotFound` if the session is gone.
    async fn session_trim(&self, id: &SessionId, stream: Stream, before: u64) -> Result<LogEnd>;
    /// Turns after number `after`, oldest first; none of a session that is gone.
    async fn session_turns(&self, id: &SessionId, after: u64, limit: usize) -> Result<Vec<Turn>>;
    /// Removes the session, its logs and its turns. `false` if there was none.
    async fn session_remove(&self, id: &SessionId) -> Result<bool>;
    /// Sessions of all workspaces after this id, by id.
    async fn session_scan(&self, after: Option<&SessionId>, limit: usize)
    -> Result<Vec<SessionId>>;
    /// Ended sessions whose end is before `before`, oldest first.
    async fn session_ended(&self, before: Timestamp, limit: usize) -> Result<Vec<SessionId>>;
}

/// What clients persist of their own sessions.
#[async_trait]
pub trait PersistStore: Send + Sync {
    /// Adds or replaces it; `created_at` of one that is there stays.
    async fn persist_session_put(
        &self,
        workspace: &WorkspaceId,
        session: &PersistedSession,
    ) -> Result<()>;
    async fn persist_session_fetch(
        &self,
        workspace: &WorkspaceId,
        id: &str,
    ) -> Result<Option<PersistedSession>>;
    /// Removes it with its events; `false` if there was no such session. Events go either way.
    async fn persist_session_remove(&self, workspace: &WorkspaceId, id: &str) -> Result<bool>;
    /// By `created_at`, then id.
    async fn persist_session_list(
        &self,
        workspace: &WorkspaceId,
        page: &PageRequest,
    ) -> Result<Page<PersistedSession>>;
    /// Adds an event; the session need not be there. Once more the same id, session and index is
    /// `Ok` and changes nothing; `Constraint` if the id or the session's index is taken otherwise,
    /// or the index is past [`i64::MAX`].
    async fn persist_event_insert(
        &self,
        workspace: &WorkspaceId,
        event: &PersistedEvent,
    ) -> Result<()>;
    /// Events of one session after index `after`, by index.
    async fn persist_event_list(
        &self,
        workspace: &WorkspaceId,
        session: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PersistedEvent>>;
    /// The last events of one session, the last one first.
    async fn persist_event_last(
        &self,
        workspace: &WorkspaceId,
        session: &str,
        limit: usize,
    ) -> Result<Vec<PersistedEvent>>;
    /// Events of the session.
    async fn persist_event_count(&self, workspace: &WorkspaceId, session: &str) -> Result<u64>;
}

/// Small things that the server must remember about itself, and idempotency keys.
#[async_trait]
pub trait SettingStore: Send + Sync {
    async fn setting_get(&self, name: &str) -> Result<Option<Vec<u8>>>;
    /// Stores `value` unless the name is taken; returns what is stored now.
    async fn setting_init(&self, name: &str, value: &[u8]) -> Result<Vec<u8>>;
    async fn setting_put(&self, name: &str, value: &[u8]) -> Result<()>;
    /// Claims an idempotency key for a request (identified by `fingerprint`); the entry's own
    /// outcome is taken as `InProgress`.
    /// `Ok(None)`: claimed now. `Ok(Some(..))`: claimed before, with what is known of it.
    async fn idempotency_claim(&self, entry: &IdempotencyEntry)
    -> Result<Option<IdempotencyEntry>>;
    /// Records how the request of a claimed key ended, or frees the key. A key that was forgotten
    /// meanwhile is no error.
    async fn idempotency_finish(
        &self,
        workspace: &WorkspaceId,
        key: &str,
        outcome: IdempotencyOutcome,
    ) -> Result<()>;
    /// Forgets keys claimed before `before`; returns how many.
    async fn idempotency_trim(&self, before: Timestamp) -> Result<u64>;
}

/// All of it; what the engine is given.
pub trait Store:
    SandboxStore
    + SnapshotStore
    + SandboxSessionStore
    + SleepStore
    + EventStore
    + TemplateStore
    + KeyStore
    + WorkspaceStore
    + AuditStore
    + SecretStore
    + VolumeStore
    + SessionStore
    + PersistStore
    + SettingStore
    + RunStore
    + UsageStore
    + ArtifactStore
    + PriceStore
    + BudgetStore
    + WebhookStore
    + MeterStore
    + AnalyticsStore
    + LeaseStore
    + 'static
{
}

impl<T> Store for T where
    T: SandboxStore
        + SnapshotStore
        + SandboxSessionStore
        + SleepStore
        + EventStore
        + TemplateStore
        + KeyStore
        + WorkspaceStore
        + AuditStore
        + SecretStore
        + VolumeStore
        + SessionStore
        + PersistStore
        + SettingStore
        + RunStore
        + UsageStore
        + ArtifactStore
        + PriceStore
        + BudgetStore
        + WebhookStore
        + MeterStore
        + AnalyticsStore
        + LeaseStore
        + 'static
{
}
