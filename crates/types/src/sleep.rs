//! Sleep: the rungs of the ladder, and when a sandbox goes down them.

use std::time::Duration;

use crate::Timestamp;

/// How long a sandbox stays on each rung before it goes to the next; `None` is for ever.
///
/// A sandbox goes down by itself only while nothing uses it: see `docs/design/sleep.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SleepPolicy {
    /// Running without activity, until it is paused.
    pub pause_after: Option<Duration>,
    /// Paused, until it is hibernated.
    pub hibernate_after: Option<Duration>,
    /// Hibernated, until its snapshot moves to the archive.
    pub archive_after: Option<Duration>,
    /// Asleep (counted from when it was hibernated), until it is deleted.
    pub delete_after: Option<Duration>,
    /// What becomes of a sandbox whose memory cannot be saved when it is to hibernate.
    pub fallback: Fallback,
}

impl SleepPolicy {
    /// A sandbox that never goes down by itself.
    pub const NEVER: Self = Self {
        pause_after: None,
        hibernate_after: None,
        archive_after: None,
        delete_after: None,
        fallback: Fallback::StayPaused,
    };
}

impl Default for SleepPolicy {
    fn default() -> Self {
        Self {
            pause_after: Some(Duration::from_secs(600)),
            hibernate_after: None,
            archive_after: None,
            delete_after: Some(Duration::from_secs(30 * 24 * 3600)),
            fallback: Fallback::StayPaused,
        }
    }
}

/// What happens when the memory of a sandbox that is to hibernate cannot be saved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fallback {
    /// It stays paused, or running if it was.
    #[default]
    StayPaused,
    /// Its files are kept, its processes end.
    Filesystem,
}

/// Why a sandbox sleeps. Decides who may wake it: what fell asleep by itself is woken by any
/// access; what somebody put to sleep through E2B, or E2B's timeout did, only as that face says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SleepCause {
    /// Nothing used it.
    Idle,
    /// Somebody asked, through the native API: any access wakes it.
    Requested,
    /// Somebody asked, through a face on which a sandbox stays asleep until it is resumed.
    Held,
    /// Its deadline passed, and it is to be kept.
    Timeout,
}

impl SleepCause {
    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Requested => "requested",
            Self::Held => "held",
            Self::Timeout => "timeout",
        }
    }
}

/// When and why a sandbox went to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sleep {
    pub since: Timestamp,
    pub cause: SleepCause,
}
