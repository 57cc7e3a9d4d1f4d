//! Slots: small numbers that sandboxes' addresses and host ids are made from.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Mutex;

use woodfrog_types::SandboxId;

/// A freed number rests until this many others are free: the link of its last sandbox takes the
/// kernel some 20 ms to remove, and the next sandbox would wait for that.
const RESTING: usize = 32;

/// Gives out each number at most once at a time.
#[derive(Debug)]
pub struct Slots {
    state: Mutex<State>,
    max: u32,
}

#[derive(Debug)]
struct State {
    taken: BTreeSet<u32>,
    slots: HashMap<SandboxId, u32>,
    /// Given back, the longest free first. All are below `fresh`.
    freed: VecDeque<u32>,
    /// From here on no number was given yet, but those taken at the start.
    fresh: u32,
}

impl Slots {
    /// Numbers from 1 to `max`, those of running sandboxes taken.
    pub fn new(max: u32, taken: impl IntoIterator<Item = (SandboxId, u32)>) -> Self {
        let slots: HashMap<SandboxId, u32> = taken.into_iter().collect();
        Self {
            state: Mutex::new(State {
                taken: slots.values().copied().collect(),
                slots,
                freed: VecDeque::new(),
                fresh: 1,
            }),
            max,
        }
    }

    /// The number that has been free for the longest time, or a new one; `None` when there is
    /// none.
    pub fn take(&self, id: &SandboxId) -> Option<u32> {
        let mut state = self.lock();
        let fresh = match state.freed.len() {
            0..=RESTING => state.next_fresh(self.max),
            _ => None,
        };
        let slot = fresh.or_else(|| state.freed.pop_front())?;
        state.taken.insert(slot);
        state.slots.insert(id.clone(), slot);
        Some(slot)
    }

    /// This number if it is free, else another one.
    pub fn take_again(&self, id: &SandboxId, slot: u32) -> Option<u32> {
        {
            let mut state = self.lock();
            if slot < state.fresh
                && let Some(at) = state.freed.iter().position(|freed| *freed == slot)
            {
                state.freed.remove(at);
                state.taken.insert(slot);
                state.slots.insert(id.clone(), slot);
                return Some(slot);
            }
        }
        self.take(id)
    }

    /// The number of a sandbox.
    pub fn of(&self, id: &SandboxId) -> Option<u32> {
        self.lock().slots.get(id).copied()
    }

    /// Frees the number of a sandbox; none is fine.
    pub fn give(&self, id: &SandboxId) {
        let mut state = self.lock();
        let Some(slot) = state.slots.remove(id) else {
            return;
        };
        state.taken.remove(&slot);
        // One that was taken at the start may still be to come up as a fresh one.
        if slot < state.fresh {
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

    fn ids(count: usize) -> Vec<SandboxId> {
        (0..count).map(|_| SandboxId::generate()).collect()
    }

    #[test]
    fn each_number_is_given_once() {
        let ids = ids(6);
        let slots = Slots::new(4, [(ids[0].clone(), 2)]);
        let given: Vec<Option<u32>> = ids[1..4].iter().map(|id| slots.take(id)).collect();
        assert_eq!(given, [Some(1), Some(3), Some(4)]);
        assert_eq!(slots.take(&ids[4]), None);
        assert_eq!(slots.of(&ids[4]), None);
        slots.give(&ids[2]);
        slots.give(&ids[2]);
        slots.give(&ids[0]);
        assert_eq!(slots.take(&ids[4]), Some(3));
        assert_eq!(slots.of(&ids[4]), Some(3));
        assert_eq!(slots.take(&ids[5]), Some(2));
        assert_eq!(slots.take(&ids[0]), None);
    }

    #[test]
    fn a_number_taken_at_the_start_comes_back_once() {
        let ids = ids(5);
        let slots = Slots::new(3, [(ids[0].clone(), 2)]);
        slots.give(&ids[0]);
        let given: Vec<Option<u32>> = ids[1..].iter().map(|id| slots.take(id)).collect();
        assert_eq!(given, [Some(1), Some(2), Some(3), None]);
    }

    #[test]
    fn a_freed_number_rests() {
        let slots = Slots::new(1000, []);
        let rounds = RESTING as u32 * 3;
        let given: Vec<u32> = ids(rounds as usize)
            .iter()
            .map(|id| {
                let slot = slots.take(id).unwrap();
                slots.give(id);
                slot
            })
            .collect();
        let period = RESTING as u32 + 1;
        let expected: Vec<u32> = (0..rounds).map(|round| round % period + 1).collect();
        assert_eq!(given, expected);
    }
}
