//! Slots: small numbers that sandboxes' addresses and host ids are made from.

use std::collections::BTreeSet;
use std::sync::Mutex;

/// Gives out each number at most once at a time.
#[derive(Debug)]
pub(crate) struct Slots {
    taken: Mutex<BTreeSet<u32>>,
    max: u32,
}

impl Slots {
    /// Numbers from 1 to `max`, those of running sandboxes taken.
    pub(crate) fn new(max: u32, taken: impl IntoIterator<Item = u32>) -> Self {
        Self {
            taken: Mutex::new(taken.into_iter().collect()),
            max,
        }
    }

    /// The lowest free number.
    pub(crate) fn take(&self) -> Option<u32> {
        let mut taken = self.lock();
        let mut free = 1;
        for slot in taken.iter() {
            if *slot > free {
                break;
            }
            free = slot + 1;
        }
        (free <= self.max && taken.insert(free)).then_some(free)
    }

    /// Frees a number.
    pub(crate) fn give(&self, slot: u32) {
        self.lock().remove(&slot);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
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
        let slots = Slots::new(4, [2]);
        assert_eq!(
            [slots.take(), slots.take(), slots.take()],
            [Some(1), Some(3), Some(4)]
        );
        assert_eq!(slots.take(), None);
        slots.give(3);
        assert_eq!(slots.take(), Some(3));
    }
}
