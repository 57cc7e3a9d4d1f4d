//! One lock per sandbox: its making and its removal never overlap.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;
use woodfrog_types::SandboxId;

/// Locks that somebody holds or waits for.
#[derive(Debug, Default)]
pub struct Locks {
    all: Mutex<HashMap<SandboxId, Arc<tokio::sync::Mutex<()>>>>,
}

/// A sandbox that nobody else makes or removes meanwhile.
pub struct Held {
    locks: Arc<Locks>,
    id: SandboxId,
    _guard: OwnedMutexGuard<()>,
}

impl Locks {
    /// Waits until it is this caller's turn.
    pub async fn lock(self: &Arc<Self>, id: &SandboxId) -> Held {
        let lock = Arc::clone(self.all().entry(id.clone()).or_default());
        Held {
            locks: Arc::clone(self),
            id: id.clone(),
            _guard: lock.lock_owned().await,
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<tokio::sync::Mutex<()>>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.locks.all();
        // One reference is the map's, one the guard's: nobody waits, and nobody can begin to.
        if all
            .get(&self.id)
            .is_some_and(|lock| Arc::strong_count(lock) <= 2)
        {
            all.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_kept() {
        let locks = Arc::new(Locks::default());
        let (one, other) = (SandboxId::generate(), SandboxId::generate());
        let first = locks.lock(&one).await;
        drop(locks.lock(&other).await);
        let waiting = tokio::spawn({
            let (locks, one) = (Arc::clone(&locks), one.clone());
            async move { drop(locks.lock(&one).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert!(waiting.await.is_ok());
        assert!(locks.all().is_empty());
    }
}
