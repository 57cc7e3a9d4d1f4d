//! What all tasks of one engine share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use woodfrog_core::admission::{self, Caps, Present};
use woodfrog_core::token::ServerSecret;
use woodfrog_sandbox::Driver;
use woodfrog_store::Store;
use woodfrog_types::{Fault, SandboxId, Timestamp, WorkspaceId};

use crate::fault;
use crate::images::Images;
use crate::keys::KeyCache;
use crate::ports::Options;
use crate::sandbox::deadline::Alarm;
use crate::sandbox::live::Live;
use crate::template::Builds;

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) options: Options,
    pub(crate) secret: ServerSecret,
    pub(crate) started_at: Timestamp,
    pub(crate) registry: Registry,
    pub(crate) alarm: Alarm,
    pub(crate) keys: KeyCache,
    pub(crate) builds: Builds,
    pub(crate) tasks: TaskTracker,
    /// Cancelled once: no new work, and owners let go of their sandboxes.
    pub(crate) stopping: CancellationToken,
}

impl Inner {
    /// Refuses new work during a shutdown.
    pub(crate) fn accepting(&self) -> Result<(), Fault> {
        if self.stopping.is_cancelled() {
            return Err(fault::stopping());
        }
        Ok(())
    }
}

/// The sandboxes that have an owner task, and the count that admission goes by.
#[derive(Default)]
pub(crate) struct Registry {
    live: RwLock<HashMap<SandboxId, Arc<Live>>>,
    counts: Arc<Mutex<HashMap<WorkspaceId, usize>>>,
}

impl Registry {
    pub(crate) fn get(&self, id: &SandboxId) -> Option<Arc<Live>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.get(id).cloned()
    }

    pub(crate) fn insert(&self, live: Arc<Live>) {
        let mut all = self.live.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(live.id.clone(), live);
    }

    pub(crate) fn remove(&self, id: &SandboxId) {
        let mut all = self.live.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(id);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.values().cloned().collect()
    }

    /// Takes a place for a new sandbox; it is free again when the place is dropped.
    pub(crate) fn reserve(&self, workspace: &WorkspaceId, caps: Caps) -> Result<Place, Fault> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let present = Present {
            server: counts.values().sum(),
            workspace: counts.get(workspace).copied().unwrap_or(0),
        };
        admission::admit(present, caps)?;
        *counts.entry(workspace.clone()).or_insert(0) += 1;
        Ok(Place {
            counts: Arc::clone(&self.counts),
            workspace: workspace.clone(),
        })
    }
}

/// A sandbox's place under the caps.
pub(crate) struct Place {
    counts: Arc<Mutex<HashMap<WorkspaceId, usize>>>,
    workspace: WorkspaceId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.workspace) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.workspace);
            }
        }
    }
}
