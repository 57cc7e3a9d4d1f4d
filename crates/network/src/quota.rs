//! A share per sandbox of what all of them use together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts uses per slot.
pub(crate) struct Quota {
    most: usize,
    used: Mutex<HashMap<u32, usize>>,
}

/// One use; ends when dropped.
pub(crate) struct Share {
    quota: Arc<Quota>,
    slot: u32,
}

impl Quota {
    /// At most `most` uses at once per slot.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            used: Mutex::default(),
        })
    }

    /// One more use; `None` when the slot has all it may.
    pub(crate) fn take(self: &Arc<Self>, slot: u32) -> Option<Share> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let count = used.entry(slot).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share {
            quota: Arc::clone(self),
            slot,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self
            .quota
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let left = used
            .get(&self.slot)
            .map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            used.remove(&self.slot);
        } else {
            used.insert(self.slot, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slot_cannot_take_anothers_share() {
        let quota = Quota::new(2);
        let held = (quota.take(1), quota.take(1));
        assert!(quota.take(1).is_none() && quota.take(2).is_some());
        drop(held);
        assert!(quota.take(1).is_some() && quota.used.lock().unwrap().is_empty());
    }
}
