//! How long sessions and their logs are kept.

use std::time::Duration;

/// How long sessions and their logs are kept; `None` is for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// A session that has ended, after its end. It goes with its log.
    pub ended: Option<Duration>,
    /// An entry of a log, after it was written.
    pub age: Option<Duration>,
    /// Entries of one log: the last ones.
    pub entries: Option<u64>,
}

impl Retention {
    /// Everything, for ever.
    pub const FOREVER: Self = Self {
        ended: None,
        age: None,
        entries: None,
    };
}
