//! Who goes next. Waiting counts: whoever has waited long enough goes before anybody of a higher
//! priority who came later, so nothing starves.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use woodfrog_types::Timestamp;

/// Waiting this long is worth one step of priority.
pub const AGE_STEP: Duration = Duration::from_secs(10);
/// Priorities are kept within this of 0.
pub const PRIORITY_MAX: i32 = 100;

/// Its place in the order: smaller goes first. Time passes alike for all who wait, so the order
/// of two never changes.
type Key = (i64, u64);

/// Those who wait.
#[derive(Debug, Clone)]
pub struct Queue<T> {
    order: BTreeMap<Key, T>,
    keys: HashMap<T, Key>,
    /// Arrivals so far: whoever came first goes first among equals.
    arrivals: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            order: BTreeMap::new(),
            keys: HashMap::new(),
            arrivals: 0,
        }
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    /// Waits from `since` on. One who waits already stays where it is.
    pub fn push(&mut self, one: T, priority: i32, since: Timestamp) {
        if self.keys.contains_key(&one) {
            return;
        }
        let step = i64::try_from(AGE_STEP.as_millis()).unwrap_or(i64::MAX);
        let priority = i64::from(priority.clamp(-PRIORITY_MAX, PRIORITY_MAX));
        let key = (
            since.as_millis().saturating_sub(priority * step),
            self.arrivals,
        );
        self.arrivals += 1;
        self.order.insert(key, one.clone());
        self.keys.insert(one, key);
    }

    /// Takes the first for whom there is room.
    pub fn pop(&mut self, mut fits: impl FnMut(&T) -> bool) -> Option<T> {
        let (key, _) = self.order.iter().find(|(_, one)| fits(one))?;
        let key = *key;
        let one = self.order.remove(&key)?;
        self.keys.remove(&one);
        Some(one)
    }

    /// It does not wait any more. `false` if it did not.
    pub fn remove(&mut self, one: &T) -> bool {
        let key = self.keys.remove(one);
        key.is_some_and(|key| self.order.remove(&key).is_some())
    }

    /// How many go before it, and it: 1 is next.
    pub fn place(&self, one: &T) -> Option<usize> {
        let key = self.keys.get(one)?;
        Some(self.order.range(..=*key).count())
    }

    /// Those who wait, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.order.values()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn higher_goes_first_and_equals_in_order() {
        let mut queue = Queue::default();
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.push(name, priority, at(0));
        }
        assert_eq!(queue.place(&"c"), Some(4));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(|_| true)).collect();
        assert_eq!(order, ["b", "d", "a", "c"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn who_has_no_room_is_passed_over_and_keeps_its_place() {
        let mut queue = Queue::default();
        queue.push("a", 0, at(0));
        queue.push("b", 0, at(1));
        assert_eq!(queue.pop(|one| *one != "a"), Some("b"));
        assert_eq!(queue.place(&"a"), Some(1));
        assert_eq!(queue.pop(|_| false), None);
        assert!(queue.remove(&"a"));
        assert!(!queue.remove(&"a"));
        assert_eq!(queue.place(&"a"), None);
    }

    /// One of the least priority against a stream of the highest, which never ends.
    #[test]
    fn nothing_starves() {
        let mut queue = Queue::default();
        queue.push(-1, -PRIORITY_MAX, at(0));
        let mut passed = 0;
        for second in 0_i32.. {
            queue.push(second, PRIORITY_MAX, at(i64::from(second)));
            match queue.pop(|_| true) {
                Some(-1) => break,
                _ => passed += 1,
            }
        }
        let span = 2 * u64::from(PRIORITY_MAX.unsigned_abs()) * AGE_STEP.as_secs();
        assert_eq!(passed, span);
    }

    proptest! {
        /// Places are those in which they go, and nobody who came later with the same priority or
        /// less goes first.
        #[test]
        fn places_are_the_order(waiting in prop::collection::vec((-120..120, 0..2000_i64), 1..40)) {
            let mut queue = Queue::default();
            let mut arrivals = waiting.clone();
            arrivals.sort_by_key(|(_, since)| *since);
            for (number, (priority, since)) in arrivals.iter().enumerate() {
                queue.push(number, *priority, at(*since));
            }
            let places: Vec<_> = (0..arrivals.len()).map(|one| queue.place(&one)).collect();
            let order: Vec<_> = std::iter::from_fn(|| queue.pop(|_| true)).collect();
            prop_assert_eq!(order.len(), arrivals.len());
            for (place, one) in order.iter().enumerate() {
                prop_assert_eq!(places[*one], Some(place + 1));
                for later in &order[place + 1..] {
                    let (mine, theirs) = (arrivals[*one], arrivals[*later]);
                    let outranked = theirs.0 >= mine.0 && theirs.1 < mine.1;
                    prop_assert!(!outranked, "{theirs:?} waited longer than {mine:?}");
                }
            }
        }
    }
}
