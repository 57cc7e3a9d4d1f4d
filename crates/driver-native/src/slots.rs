//! Slots: small numbers that sandboxes' addresses and host ids are made from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use woodfrog_types::SandboxId;

/// Gives out each number at most once at a time.
#[derive(Debug)]
pub(crate) struct Slots {
    taken: Mutex<Taken>,
    max: u32,
}

#[derive(Debug, Default)]
struct Taken {
    holders: BTreeMap<u32, SandboxId>,
    slots: HashMap<SandboxId, u32>,
}

impl Slots {
    /// Numbers from 1 to `max`, those of running sandboxes taken.
    pub(crate) fn new(max: u32, taken: impl IntoIterator<Item = (SandboxId, u32)>) -> Self {
        let slots: HashMap<SandboxId, u32> = taken.into_iter().collect();
        let holders = slots.iter().map(|(id, slot)| (*slot, id.clone())).collect();
        Self {
            taken: Mutex::new(Taken { holders, slots }),
            max,
        }
    }

    /// The lowest free number; `None` when there is none.
    pub(crate) fn take(&self, id: &SandboxId) -> Option<u32> {
        let mut taken = self.lock();
        let mut free = 1;
        for slot in taken.holders.keys() {
            if *slot > free {
                break;
            }
            free = slot + 1;
        }
        if free > self.max {
            return None;
        }
        taken.holders.insert(free, id.clone());
        taken.slots.insert(id.clone(), free);
        Some(free)
    }

    /// The number of a sandbox.
    pub(crate) fn of(&self, id: &SandboxId) -> Option<u32> {
        self.lock().slots.get(id).copied()
    }

    /// Frees the number of a sandbox; none is fine.
    pub(crate) fn give(&self, id: &SandboxId) {
        let mut taken = self.lock();
        if let Some(slot) = taken.slots.remove(id) {
            taken.holders.remove(&slot);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_given() {
        let ids: Vec<SandboxId> = (0..5).map(|_| SandboxId::generate()).collect();
        let slots = Slots::new(4, [(ids[0].clone(), 2)]);
        let given: Vec<Option<u32>> = ids[1..4].iter().map(|id| slots.take(id)).collect();
        assert_eq!(given, [Some(1), Some(3), Some(4)]);
        assert_eq!(slots.take(&ids[4]), None);
        assert_eq!(slots.of(&ids[4]), None);
        slots.give(&ids[2]);
        slots.give(&ids[2]);
        assert_eq!(slots.take(&ids[4]), Some(3));
        assert_eq!(slots.of(&ids[4]), Some(3));
    }
}
