//! When something that does not answer is started anew: after so many questions without an answer,
//! and again after as many more, later each time. Pure: the caller asks, waits and acts.
//!
//! Time is how long the caller has been asking; it has no clock of its own.

use std::time::Duration;

pub use woodfrog_types::health::HealthPolicy;

/// The longest time between two restarts of what never answers.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30 * 60);
/// Restarts in a row that failed before it is given up.
pub const FAILURES_MAX: u32 = 3;

/// What a question without an answer leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ask again.
    Wait,
    /// Start it anew.
    Restart,
    /// Nothing that was tried helped: it is lost.
    GiveUp,
}

/// What is known of one that is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// Questions in a row without an answer.
    misses: u32,
    /// Restarts since it last stayed well.
    restarts: u32,
    /// Of these, those at the end that failed.
    failures: u32,
    /// The last restart, or the try.
    tried_at: Option<Duration>,
}

impl Health {
    /// Questions in a row without an answer.
    pub const fn misses(&self) -> u32 {
        self.misses
    }

    /// Restarts since it last stayed well.
    pub const fn restarts(&self) -> u32 {
        self.restarts
    }

    /// It answered.
    pub fn answered(&mut self, policy: &HealthPolicy, now: Duration) {
        self.misses = 0;
        self.failures = 0;
        // Well for as long as the next restart would have had to wait: what was is forgotten.
        if self.may_restart_at(policy) <= now {
            *self = Self::default();
        }
    }

    /// It could not be asked: it stands still on purpose.
    pub fn not_asked(&mut self) {
        self.misses = 0;
    }

    /// It did not answer.
    pub fn missed(&mut self, policy: &HealthPolicy, now: Duration) -> Verdict {
        self.misses = self.misses.saturating_add(1);
        if self.misses < policy.misses.max(1) || now < self.may_restart_at(policy) {
            return Verdict::Wait;
        }
        if self.failures >= FAILURES_MAX {
            return Verdict::GiveUp;
        }
        Verdict::Restart
    }

    /// It was started anew.
    pub fn restarted(&mut self, now: Duration) {
        self.misses = 0;
        self.restarts = self.restarts.saturating_add(1);
        self.failures = 0;
        self.tried_at = Some(now);
    }

    /// It could not be started anew, and is as it was.
    pub fn restart_failed(&mut self, now: Duration) {
        let failures = self.failures.saturating_add(1);
        self.restarted(now);
        self.failures = failures;
    }

    /// The first restart comes at once, each later one twice as long after the one before.
    fn may_restart_at(&self, policy: &HealthPolicy) -> Duration {
        let Some(tried_at) = self.tried_at else {
            return Duration::ZERO;
        };
        let round = (policy.interval + policy.timeout).saturating_mul(policy.misses.max(1));
        let factor = 1_u32.checked_shl(self.restarts.saturating_sub(1));
        let pause = round.saturating_mul(factor.unwrap_or(u32::MAX));
        tried_at.saturating_add(pause.min(BACKOFF_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: HealthPolicy = HealthPolicy {
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        misses: 3,
    };

    /// Asks at each interval and gets no answer, until something is to be done: what, and when.
    fn silence(health: &mut Health, clock: &mut u64) -> (Verdict, u64) {
        for _ in 0..10_000 {
            *clock += 3;
            match health.missed(&POLICY, Duration::from_secs(*clock)) {
                Verdict::Wait => {}
                verdict => return (verdict, *clock),
            }
        }
        panic!("silence leads to nothing")
    }

    #[test]
    fn three_misses_in_a_row_and_three_more() {
        let mut health = Health::default();
        let mut clock = 0;
        assert_eq!(silence(&mut health, &mut clock), (Verdict::Restart, 9));
        health.restarted(Duration::from_secs(clock));
        // Three more, and the first pause is just as long.
        assert_eq!(silence(&mut health, &mut clock), (Verdict::Restart, 18));
        assert_eq!(health.misses(), 3);
    }

    #[test]
    fn an_answer_in_between_starts_the_count_again() {
        let mut health = Health::default();
        for second in 0..100 {
            let now = Duration::from_secs(second);
            assert_eq!(health.missed(&POLICY, now), Verdict::Wait);
            assert_eq!(health.missed(&POLICY, now), Verdict::Wait);
            match second % 2 {
                0 => health.answered(&POLICY, now),
                _ => health.not_asked(),
            }
        }
        assert_eq!(health.restarts(), 0);
    }

    #[test]
    fn restarts_that_do_not_help_come_later_each_time() {
        let mut health = Health::default();
        let mut clock = 0;
        let mut gaps = Vec::new();
        let mut before = 0;
        for _ in 0..14 {
            let (verdict, at) = silence(&mut health, &mut clock);
            assert_eq!(verdict, Verdict::Restart);
            health.restarted(Duration::from_secs(at));
            gaps.push(at - before);
            before = at;
        }
        assert_eq!(gaps[..5], [9, 9, 18, 36, 72]);
        assert!(gaps.is_sorted(), "{gaps:?}");
        assert_eq!(gaps.last(), Some(&BACKOFF_MAX.as_secs()));
    }

    #[test]
    fn what_stays_well_long_enough_is_as_new() {
        let mut health = Health::default();
        let mut clock = 0;
        for _ in 0..3 {
            silence(&mut health, &mut clock);
            health.restarted(Duration::from_secs(clock));
        }
        health.answered(&POLICY, Duration::from_secs(clock + 1));
        assert_eq!(health.restarts(), 3, "well, but not for long");
        health.answered(&POLICY, Duration::from_secs(clock + 36));
        assert_eq!(health, Health::default());
    }

    #[test]
    fn what_cannot_be_started_anew_is_given_up_in_the_end() {
        let mut health = Health::default();
        let mut clock = 0;
        for _ in 0..FAILURES_MAX {
            let (verdict, at) = silence(&mut health, &mut clock);
            assert_eq!(verdict, Verdict::Restart);
            health.restart_failed(Duration::from_secs(at));
        }
        assert_eq!(silence(&mut health, &mut clock).0, Verdict::GiveUp);
        // One answer, and it is not.
        health.answered(&POLICY, Duration::from_secs(clock));
        assert_eq!(silence(&mut health, &mut clock).0, Verdict::Restart);
    }
}
