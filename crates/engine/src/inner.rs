//! What all tasks of one engine share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use woodfrog_core::admission::{self, Caps, Present, Quota, Used};
use woodfrog_core::token::ServerSecret;
use woodfrog_sandbox::Driver;
use woodfrog_store::Store;
use woodfrog_types::{Fault, SandboxId, Timestamp, WorkspaceId};

use crate::agent_sandbox::Turns;
use crate::audit::Audit;
use crate::fault;
use crate::grants::Grants;
use crate::images::Images;
use crate::layers::LayerUses;
use crate::lease::moving::Moves;
use crate::ports::Options;
use crate::rates::Rates;
use crate::sandbox::attic::Attic;
use crate::sandbox::deadline::Alarm;
use crate::sandbox::gate::Gates;
use crate::sandbox::live::Live;
use crate::sandbox::shelf::Pins;
use crate::sandbox::spares::Spares;
use crate::sandbox::warm::Warm;
use crate::template::Builds;
use crate::transition::Observed;
use crate::volumes::VolumePins;
use crate::workspaces::removal::Removals;

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) options: Options,
    pub(crate) secret: ServerSecret,
    pub(crate) started_at: Timestamp,
    pub(crate) registry: Registry,
    pub(crate) alarm: Alarm,
    pub(crate) grants: Grants,
    pub(crate) audit: Arc<Audit>,
    pub(crate) rates: Rates,
    pub(crate) removals: Removals,
    pub(crate) builds: Builds,
    pub(crate) pins: Pins,
    pub(crate) volume_pins: VolumePins,
    pub(crate) attic: Attic,
    pub(crate) observed: Observed,
    pub(crate) warm: Warm,
    pub(crate) spares: Spares,
    pub(crate) agent_turns: Turns,
    pub(crate) moves: Moves,
    pub(crate) layer_uses: LayerUses,
    /// Held while layers are removed that nothing needs.
    pub(crate) collecting: tokio::sync::Mutex<()>,
    /// Held while a layer comes from the archive.
    pub(crate) fetching: tokio::sync::Mutex<()>,
    /// Callers that wait for a place.
    pub(crate) waiting: AtomicUsize,
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
    counts: Arc<Counts>,
    pub(crate) gates: Gates,
}

#[derive(Default)]
struct Counts {
    by_workspace: Mutex<HashMap<WorkspaceId, Used>>,
    /// A place became free.
    freed: Notify,
}

impl Registry {
    pub(crate) fn get(&self, id: &SandboxId) -> Option<Arc<Live>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.get(id).cloned()
    }

    /// Adds a sandbox unless it is there; returns the one that is there now, and whether it is
    /// this one.
    pub(crate) fn insert(&self, live: Arc<Live>) -> (Arc<Live>, bool) {
        let mut all = self.live.write().unwrap_or_else(PoisonError::into_inner);
        match all.entry(live.id.clone()) {
            Entry::Occupied(there) => (Arc::clone(there.get()), false),
            Entry::Vacant(free) => (Arc::clone(free.insert(live)), true),
        }
    }

    /// Removes exactly this one.
    pub(crate) fn remove(&self, live: &Arc<Live>) {
        let mut all = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if all
            .get(&live.id)
            .is_some_and(|there| Arc::ptr_eq(there, live))
        {
            all.remove(&live.id);
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.values().cloned().collect()
    }

    /// Takes a place for a new sandbox; it is free again when the place is dropped.
    pub(crate) fn reserve(
        &self,
        workspace: &WorkspaceId,
        wanted: Used,
        caps: Caps,
        quota: Quota,
    ) -> Result<Place, Fault> {
        let mut counts = self.counts.lock();
        let used = counts.get(workspace).copied().unwrap_or_default();
        let present = Present {
            server: counts.values().map(|used| used.sandboxes).sum(),
            workspace: used.sandboxes,
        };
        admission::admit(present, caps)?;
        admission::within(used, wanted, quota)?;
        counts.insert(workspace.clone(), used.plus(wanted));
        Ok(Place {
            counts: Arc::clone(&self.counts),
            workspace: workspace.clone(),
            holds: wanted,
        })
    }

    /// Resolves when a place becomes free after this was called.
    pub(crate) fn freed(&self) -> Notified<'_> {
        self.counts.freed.notified()
    }
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Used>> {
        let counts = self.by_workspace.lock();
        counts.unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sandbox's place under the caps.
pub(crate) struct Place {
    counts: Arc<Counts>,
    workspace: WorkspaceId,
    holds: Used,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(used) = counts.get_mut(&self.workspace) {
            *used = used.minus(self.holds);
            if used.sandboxes == 0 {
                counts.remove(&self.workspace);
            }
        }
        drop(counts);
        self.counts.freed.notify_waiters();
    }
}
