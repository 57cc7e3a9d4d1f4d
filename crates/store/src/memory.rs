//! The in-memory model: the simplest code that keeps the port's promises, except durability.
//! Tests of the engine use it, and adapters are compared with it.

mod analytics;
mod audit;
mod billing;
mod events;
mod keys;
mod leases;
mod persist;
mod runs;
mod sandbox_sessions;
mod sandboxes;
mod secrets;
mod sessions;
mod settings;
mod sleep;
mod snapshots;
mod templates;
mod workspaces;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use woodfrog_types::artifact::Artifact;
use woodfrog_types::audit::{AuditEnds, AuditEntry};
use woodfrog_types::event::SandboxEvent;
use woodfrog_types::key::ApiKey;
use woodfrog_types::page::Page;
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::sandbox_session::SandboxSession;
use woodfrog_types::secret::{Secret, Volume};
use woodfrog_types::sleep::{Hold, SleepDefaults};
use woodfrog_types::snapshot::Snapshot;
use woodfrog_types::template::{Build, BuildLogLine, Template};
use woodfrog_types::workspace::{LimitsRecord, Member, UserId, Workspace};
use woodfrog_types::{
    ArtifactId, BuildId, KeyId, RunId, SandboxId, SandboxSessionId, SecretId, SessionId,
    SnapshotId, TemplateId, VolumeId, WorkspaceId,
};

use crate::records::{Damaged, IdempotencyEntry, PersistedEvent, PersistedSession};

/// A store that forgets everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    member: Option<leases::Member>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on recovery meets these records damaged.
    pub fn set_damaged(&self, damaged: Vec<Damaged>) {
        self.lock().damaged = damaged;
    }

    /// One lock makes every call a transaction; it is never held across an await.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    snapshots: BTreeMap<SnapshotId, Snapshot>,
    sandbox_sessions: BTreeMap<SandboxSessionId, SandboxSession>,
    damaged: Vec<Damaged>,
    logs: BTreeMap<SandboxId, Vec<SandboxEvent>>,
    templates: BTreeMap<TemplateId, Template>,
    builds: BTreeMap<BuildId, Build>,
    build_logs: BTreeMap<BuildId, Vec<BuildLogLine>>,
    /// Cache key → (layer, image config).
    layer_cache: BTreeMap<String, (String, String)>,
    keys: BTreeMap<KeyId, ApiKey>,
    workspaces: BTreeMap<WorkspaceId, Workspace>,
    members: BTreeMap<(WorkspaceId, UserId), Member>,
    limits: BTreeMap<WorkspaceId, LimitsRecord>,
    sleep_defaults: BTreeMap<WorkspaceId, SleepDefaults>,
    holds: BTreeMap<SandboxId, BTreeMap<String, Hold>>,
    audit: BTreeMap<WorkspaceId, (AuditEnds, Vec<AuditEntry>)>,
    secrets: BTreeMap<SecretId, Secret>,
    volumes: BTreeMap<VolumeId, Volume>,
    sessions: BTreeMap<SessionId, sessions::Kept>,
    /// By workspace and the client's id.
    persisted_sessions: BTreeMap<(WorkspaceId, String), PersistedSession>,
    persisted_events: BTreeMap<(WorkspaceId, String), PersistedEvent>,
    settings: BTreeMap<String, Vec<u8>>,
    runs: BTreeMap<RunId, runs::Kept>,
    books: runs::Books,
    artifacts: BTreeMap<ArtifactId, Artifact>,
    money: billing::Money,
    idempotency: BTreeMap<(WorkspaceId, String), IdempotencyEntry>,
    leases: leases::Leases,
}

/// Cuts a page out of `items`, which are sorted and begin after the cursor.
fn cut_page<T>(
    items: impl Iterator<Item = T>,
    limit: usize,
    cursor_of: impl Fn(&T) -> String,
) -> Page<T> {
    let mut items: Vec<T> = items.take(limit + 1).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(cursor_of);
    Page { items, next }
}
