//! When layers were used last, so that none is removed that somebody has just been given.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::digest::Digest;

/// Moments are numbers that rise when somebody asks for a new one. Under one lock a layer is found
/// and its use noted, or its last use looked at and the layer taken away.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    moment: u64,
    last: HashMap<Digest, u64>,
}

impl Uses {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn moment(&self) -> u64 {
        self.lock().moment
    }

    pub(super) fn next_moment(&self) -> u64 {
        let mut state = self.lock();
        state.moment += 1;
        state.moment
    }

    /// Notes a use if `there` says that the layer is there; passes on what it says.
    pub(super) fn note(&self, digest: &Digest, there: impl FnOnce() -> bool) -> bool {
        let mut state = self.lock();
        let there = there();
        if there {
            let moment = state.moment;
            state.last.insert(digest.clone(), moment);
        }
        there
    }

    /// Takes a layer away unless it was used at `since` or later.
    pub(super) fn unless_used<T>(
        &self,
        digest: &Digest,
        since: u64,
        away: impl FnOnce() -> T,
    ) -> Option<T> {
        let mut state = self.lock();
        if state.last.get(digest).is_some_and(|last| *last >= since) {
            return None;
        }
        state.last.remove(digest);
        Some(away())
    }
}
