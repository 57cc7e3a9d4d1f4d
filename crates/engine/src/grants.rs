//! Who was found out lately: what a credential stands for is not looked up at every request.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use woodfrog_types::key::Principal;
use woodfrog_types::sleep::SleepChanges;
use woodfrog_types::workspace::WorkspaceLimits;
use woodfrog_types::{KeyId, Timestamp, WorkspaceId};

/// How long what was found is not looked up again. Another server that shares the store learns of a
/// revoked key or a removed member within this time; this one at once.
pub(crate) const TTL: Duration = Duration::from_secs(5);
/// Credentials, and workspaces, that are remembered.
const ENTRIES_MAX: usize = 4096;

/// A credential and the workspace that was asked for with it.
pub(crate) type Asked = ([u8; 32], Option<String>);

/// What a credential stands for.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) principal: Principal,
    /// It is worthless from then on.
    pub(crate) expires_at: Option<Timestamp>,
    /// The key whose use is to be recorded, and the minute of the last recorded one.
    pub(crate) used: Option<(KeyId, i64)>,
}

/// What a workspace may use, what it says about sleep, and whether it is being removed.
#[derive(Debug, Clone)]
pub(crate) struct Tenancy {
    pub(crate) limits: WorkspaceLimits,
    pub(crate) sleep: SleepChanges,
    pub(crate) removing: bool,
}

struct Kept<T> {
    value: T,
    until: Instant,
}

/// What was found out lately.
pub(crate) struct Grants {
    grants: Mutex<HashMap<Asked, Kept<Grant>>>,
    tenancies: Mutex<HashMap<WorkspaceId, Kept<Tenancy>>>,
    /// Rises when somebody may have lost something.
    changes: watch::Sender<u64>,
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            grants: Mutex::default(),
            tenancies: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Grants {
    pub(crate) fn get(&self, asked: &Asked) -> Option<Grant> {
        get(&self.grants, asked)
    }

    pub(crate) fn put(&self, asked: Asked, grant: Grant) {
        put(&self.grants, asked, grant);
    }

    /// The same grant, its use recorded; its time is not prolonged.
    pub(crate) fn used(&self, asked: &Asked, minute: i64) {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, last)) = grants
            .get_mut(asked)
            .and_then(|kept| kept.value.used.as_mut())
        {
            *last = minute;
        }
    }

    pub(crate) fn tenancy(&self, workspace: &WorkspaceId) -> Option<Tenancy> {
        get(&self.tenancies, workspace)
    }

    pub(crate) fn put_tenancy(&self, workspace: WorkspaceId, tenancy: Tenancy) {
        put(&self.tenancies, workspace, tenancy);
    }

    /// Something about keys, members or workspaces changed: everything is looked up again, by open
    /// streams too.
    pub(crate) fn forget(&self) {
        let grants = self.grants.lock();
        grants.unwrap_or_else(PoisonError::into_inner).clear();
        let tenancies = self.tenancies.lock();
        tenancies.unwrap_or_else(PoisonError::into_inner).clear();
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

fn get<K: std::hash::Hash + Eq, T: Clone>(map: &Mutex<HashMap<K, Kept<T>>>, key: &K) -> Option<T> {
    let map = map.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = map.get(key).filter(|kept| kept.until > Instant::now());
    kept.map(|kept| kept.value.clone())
}

fn put<K: std::hash::Hash + Eq, T>(map: &Mutex<HashMap<K, Kept<T>>>, key: K, value: T) {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    if map.len() >= ENTRIES_MAX {
        map.clear();
    }
    let until = Instant::now() + TTL;
    map.insert(key, Kept { value, until });
}
