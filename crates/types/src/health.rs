//! How it is found out whether something still answers.

use std::time::Duration;

/// How often it is asked, and what silence leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthPolicy {
    /// Between an answer, or the lack of one, and the next question.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Questions in a row without an answer after which it is started anew; at least 1.
    pub misses: u32,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            misses: 3,
        }
    }
}
