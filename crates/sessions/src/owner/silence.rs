//! How long an agent has said nothing though it was asked.

use std::time::{Duration, Instant};

use woodfrog_core::health::{Health, HealthPolicy, Verdict};

/// Requests in a row that nobody answers until their time is over.
#[derive(Debug)]
pub(super) struct Silence {
    policy: HealthPolicy,
    health: Health,
    since: Instant,
}

impl Silence {
    /// `timeout`: how long a request is waited for.
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            policy: HealthPolicy {
                interval: Duration::ZERO,
                timeout,
                ..HealthPolicy::default()
            },
            health: Health::default(),
            since: Instant::now(),
        }
    }

    /// It said something.
    pub(super) fn broken(&mut self) {
        self.health.answered(&self.policy, self.since.elapsed());
    }

    /// One more request was not answered. Says whether that is enough: then the count begins anew.
    pub(super) fn is_too_long(&mut self) -> bool {
        let now = self.since.elapsed();
        match self.health.missed(&self.policy, now) {
            Verdict::Wait => false,
            Verdict::Restart | Verdict::GiveUp => {
                self.health.restarted(now);
                true
            }
        }
    }
}
