//! What the host keeps for a sandbox's daemon between requests: watchers that are polled, and
//! how many file transfers run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use woodfrog_types::SandboxId;

use super::watch::Watchers;

/// File transfers of one sandbox at once; more wait. A transfer blocks a thread while the
/// sandbox's file is slow, so one sandbox must not take them all.
const TRANSFERS_MAX: usize = 32;

/// One sandbox's share. Lives as long as something of it is in use.
pub(crate) struct Local {
    pub(crate) watchers: Watchers,
    transfers: Arc<Semaphore>,
}

/// The right to run one file transfer.
pub(crate) struct Transfer {
    _slot: OwnedSemaphorePermit,
    _local: Arc<Local>,
}

impl Local {
    /// Waits for a free slot for a file transfer.
    pub(crate) async fn transfer(self: Arc<Self>) -> Transfer {
        let slot = Arc::clone(&self.transfers).acquire_owned().await;
        Transfer {
            _slot: slot.expect("the semaphore is never closed"),
            _local: self,
        }
    }
}

/// All sandboxes' shares. A cheap clone.
#[derive(Clone, Default)]
pub(crate) struct Locals {
    map: Arc<Mutex<HashMap<SandboxId, Weak<Local>>>>,
}

impl Locals {
    /// The share of a sandbox, made if there is none.
    pub(crate) fn of(&self, id: &SandboxId) -> Arc<Local> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(local) = map.get(id).and_then(Weak::upgrade) {
            return local;
        }
        map.retain(|_, local| local.strong_count() > 0);
        let local = Arc::new(Local {
            watchers: Watchers::default(),
            transfers: Arc::new(Semaphore::new(TRANSFERS_MAX)),
        });
        map.insert(id.clone(), Arc::downgrade(&local));
        local
    }
}
