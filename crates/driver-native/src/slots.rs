//! Slots: small numbers that sandboxes' addresses and host ids are made from.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;

/// A freed number rests until this many others are free: the link of its last sandbox takes the
/// kernel some 20 ms to remove, and the next sandbox would wait for that.
const RESTING: usize = 32;

/// Gives out each number at most once at a time.
#[derive(Debug)]
pub(crate) struct Slots {
    state: Mutex<State>,
    max: u32,
}

#[derive(Debug)]
struct State {
    taken: BTreeSet<u32>,
    /// Given back, the longest free first.
    freed: VecDeque<u32>,
    /// From here on no number was given yet, but those taken at the start.
    fresh: u32,
}

impl Slots {
    /// Numbers from 1 to `max`, those of running sandboxes taken.
    pub(crate) fn new(max: u32, taken: impl IntoIterator<Item = u32>) -> Self {
        Self {
            state: Mutex::new(State {
                taken: taken.into_iter().collect(),
                freed: VecDeque::new(),
                fresh: 1,
            }),
            max,
        }
    }

    /// A free number: the one that has been free for the longest time, or a new one.
    pub(crate) fn take(&self) -> Option<u32> {
        let mut state = self.lock();
        let slot = match state.freed.len() {
            0..=RESTING => state
                .next_fresh(self.max)
                .or_else(|| state.freed.pop_front()),
            _ => state.freed.pop_front(),
        }?;
        state.taken.insert(slot);
        Some(slot)
    }

    /// Frees a number.
    pub(crate) fn give(&self, slot: u32) {
        let mut state = self.lock();
        // One that was taken at the start comes up again as a fresh one, if that is still to be.
        if state.taken.remove(&slot) && slot < state.fresh {
            state.freed.push_back(slot);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn next_fresh(&mut self, max: u32) -> Option<u32> {
        while self.fresh <= max {
            let slot = self.fresh;
            self.fresh += 1;
            if !self.taken.contains(&slot) {
                return Some(slot);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_given_once() {
        let slots = Slots::new(4, [2]);
        assert_eq!(
            [slots.take(), slots.take(), slots.take()],
            [Some(1), Some(3), Some(4)]
        );
        assert_eq!(slots.take(), None);
        slots.give(3);
        slots.give(2);
        assert_eq!(
            [slots.take(), slots.take(), slots.take()],
            [Some(3), Some(2), None]
        );
    }

    #[test]
    fn a_number_taken_at_the_start_comes_back_once() {
        let slots = Slots::new(3, [2]);
        slots.give(2);
        assert_eq!(
            [slots.take(), slots.take(), slots.take(), slots.take()],
            [Some(1), Some(2), Some(3), None]
        );
    }

    #[test]
    fn a_freed_number_rests() {
        let slots = Slots::new(1000, []);
        for round in 1..200 {
            let slot = slots.take().unwrap();
            assert!(round > RESTING as u32 + 1 || slot == round);
            slots.give(slot);
        }
        // All of them were used in turn.
        assert_eq!(slots.lock().freed.len(), RESTING + 1);
    }
}
