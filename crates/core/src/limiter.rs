//! How often something may be done: at most so many times in any window, and some more at once
//! where a burst is allowed.
//!
//! A window is looked at in slots. What a slot holds counts until all of it is outside of the window,
//! so never more than the limit and the burst get through in any window, wherever it begins.

use std::time::Duration;

use woodfrog_types::Timestamp;

/// Parts of a window that are counted together.
const SLOTS: usize = 60;
/// A burst that was used up is whole again after so many windows.
const BURST_WINDOWS: u64 = 10;
/// One of the burst, in the parts in which it comes back.
const WHOLE: u64 = 1000;
/// The window of the rate of runs and of requests.
pub const MINUTE: Duration = Duration::from_secs(60);

/// A rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Times in any window.
    pub limit: u32,
    /// Times on top of that; they come back evenly over ten windows.
    pub burst: u32,
    /// At least 60 ms.
    pub window: Duration,
}

impl Rate {
    /// So many in any minute, and a burst.
    pub const fn per_minute(limit: u32, burst: u32) -> Self {
        Self {
            limit,
            burst,
            window: MINUTE,
        }
    }

    fn slot_millis(self) -> i64 {
        let window = i64::try_from(self.window.as_millis()).unwrap_or(i64::MAX);
        (window / SLOTS as i64).max(1)
    }
}

/// What is said to who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub admitted: bool,
    /// What there is in a window.
    pub limit: u32,
    /// What is left of it now, the burst included.
    pub remaining: u32,
    /// When something that is used now comes back.
    pub reset: Duration,
}

/// What was done lately under one rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// What was admitted in each slot, the current one at `head`.
    slots: [u32; SLOTS + 1],
    head: usize,
    /// The number of the current slot since the epoch.
    slot: i64,
    /// How much of the burst is used, in thousandths.
    borrowed: u64,
    /// The latest time that was seen: a clock that steps back stands still here.
    now: i64,
    /// Until when what came back of the burst was given back.
    refilled: i64,
}

impl Window {
    /// Nothing was done yet.
    pub const fn new() -> Self {
        Self {
            slots: [0; SLOTS + 1],
            head: 0,
            slot: i64::MIN,
            borrowed: 0,
            now: i64::MIN,
            refilled: i64::MIN,
        }
    }

    /// Whether one more would be admitted now.
    pub fn admits(&mut self, rate: Rate, now: Timestamp) -> bool {
        self.advance(rate, now);
        let used = self.used();
        used < rate.limit || (used < self.most(rate) && self.burst_left(rate) > 0)
    }

    /// Asks for one, and counts it if it is admitted.
    pub fn take(&mut self, rate: Rate, now: Timestamp) -> Verdict {
        let admitted = self.admits(rate, now);
        if admitted {
            if self.used() >= rate.limit {
                self.borrowed += WHOLE;
            }
            self.slots[self.head] = self.slots[self.head].saturating_add(1);
        }
        let used = self.used();
        let burst = self
            .burst_left(rate)
            .min(self.most(rate) - used.min(self.most(rate)));
        Verdict {
            admitted,
            limit: rate.limit,
            remaining: rate.limit.saturating_sub(used).saturating_add(burst),
            reset: self.until_free(rate),
        }
    }

    /// Whether nothing of it matters any more.
    pub fn is_idle(&self, rate: Rate, now: Timestamp) -> bool {
        let mut copy = self.clone();
        copy.advance(rate, now);
        copy.used() == 0 && copy.borrowed == 0
    }

    fn most(&self, rate: Rate) -> u32 {
        rate.limit.saturating_add(rate.burst)
    }

    fn used(&self) -> u32 {
        self.slots
            .iter()
            .fold(0_u32, |sum, slot| sum.saturating_add(*slot))
    }

    fn burst_left(&self, rate: Rate) -> u32 {
        let used = u32::try_from(self.borrowed.div_ceil(WHOLE)).unwrap_or(u32::MAX);
        rate.burst.saturating_sub(used)
    }

    /// Moves to `now`: forgets what left the window and gives back some of the burst.
    fn advance(&mut self, rate: Rate, now: Timestamp) {
        let width = rate.slot_millis();
        let now = now.as_millis().max(self.now);
        let slot = now.div_euclid(width);
        if self.now == i64::MIN {
            (self.slot, self.now, self.refilled) = (slot, now, now);
            return;
        }
        let steps = usize::try_from(slot.saturating_sub(self.slot)).unwrap_or(0);
        for _ in 0..steps.min(SLOTS + 1) {
            self.head = (self.head + 1) % (SLOTS + 1);
            self.slots[self.head] = 0;
        }
        self.slot = self.slot.max(slot);
        self.now = now;
        self.give_back(rate, width);
    }

    /// Gives back what of the burst has come back since it was looked at last. A time that is too
    /// short to give anything back counts with the next one.
    fn give_back(&mut self, rate: Rate, width: i64) {
        let passed = u64::try_from(self.now.saturating_sub(self.refilled)).unwrap_or(0);
        let whole = u64::try_from(width.saturating_mul(SLOTS as i64)).unwrap_or(u64::MAX);
        let whole = whole.saturating_mul(BURST_WINDOWS);
        let back = passed.saturating_mul(u64::from(rate.burst) * WHOLE) / whole;
        if back > 0 || self.borrowed == 0 || rate.burst == 0 {
            self.borrowed = self.borrowed.saturating_sub(back);
            self.refilled = self.now;
        }
    }

    /// How long until enough left the window for one more under the limit.
    fn until_free(&self, rate: Rate) -> Duration {
        let width = rate.slot_millis();
        let mut wanted = self.used().saturating_sub(rate.limit).saturating_add(1);
        for age in (0..=SLOTS).rev() {
            let held = self.slots[(self.head + SLOTS + 1 - age) % (SLOTS + 1)];
            wanted = wanted.saturating_sub(held);
            if wanted == 0 {
                let age = i64::try_from(age).unwrap_or(0);
                let free = (self.slot - age + SLOTS as i64 + 1).saturating_mul(width);
                let wait = free.saturating_sub(self.now);
                return Duration::from_millis(u64::try_from(wait).unwrap_or(0));
            }
        }
        Duration::ZERO
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

/// What a count from a store says: `used` times in the window that ends now, the oldest of them at
/// `oldest`. The burst is on top of the limit, since a store does not remember who borrowed.
pub fn counted(rate: Rate, used: u64, oldest: Option<Timestamp>, now: Timestamp) -> Verdict {
    let most = u64::from(rate.limit) + u64::from(rate.burst);
    let reset = oldest.map_or(Duration::ZERO, |oldest| {
        rate.window.saturating_sub(now.since(oldest))
    });
    Verdict {
        admitted: used < most,
        limit: rate.limit,
        remaining: u32::try_from(most.saturating_sub(used.saturating_add(1))).unwrap_or(u32::MAX),
        reset,
    }
}

/// What is said to somebody who starts runs too fast.
pub fn too_many_runs(limit: u32) -> String {
    format!("Rate limit exceeded: maximum {limit} sandbox runs per minute")
}

#[cfg(test)]
mod tests;
