//! Sleep: the rungs of the ladder, and when a sandbox goes down them.

use std::time::Duration;

use crate::{Timestamp, WorkspaceId};

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
    /// How often a running sandbox is saved meanwhile, to come back from that after the machine
    /// went down; `None` is never.
    pub checkpoint_every: Option<Duration>,
}

impl SleepPolicy {
    /// A sandbox that never goes down by itself.
    pub const NEVER: Self = Self {
        pause_after: None,
        hibernate_after: None,
        archive_after: None,
        delete_after: None,
        fallback: Fallback::StayPaused,
        checkpoint_every: None,
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
            checkpoint_every: None,
        }
    }
}

/// A part of a [`SleepPolicy`]: what is `None` is not said, `Some(None)` is never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SleepChanges {
    pub pause_after: Option<Option<Duration>>,
    pub hibernate_after: Option<Option<Duration>>,
    pub archive_after: Option<Option<Duration>>,
    pub delete_after: Option<Option<Duration>>,
    pub fallback: Option<Fallback>,
    pub checkpoint_every: Option<Option<Duration>>,
}

impl SleepChanges {
    /// `base` where these do not say.
    pub fn over(self, base: SleepPolicy) -> SleepPolicy {
        SleepPolicy {
            pause_after: self.pause_after.unwrap_or(base.pause_after),
            hibernate_after: self.hibernate_after.unwrap_or(base.hibernate_after),
            archive_after: self.archive_after.unwrap_or(base.archive_after),
            delete_after: self.delete_after.unwrap_or(base.delete_after),
            fallback: self.fallback.unwrap_or(base.fallback),
            checkpoint_every: self.checkpoint_every.unwrap_or(base.checkpoint_every),
        }
    }
}

/// All of it is said.
impl From<SleepPolicy> for SleepChanges {
    fn from(policy: SleepPolicy) -> Self {
        Self {
            pause_after: Some(policy.pause_after),
            hibernate_after: Some(policy.hibernate_after),
            archive_after: Some(policy.archive_after),
            delete_after: Some(policy.delete_after),
            fallback: Some(policy.fallback),
            checkpoint_every: Some(policy.checkpoint_every),
        }
    }
}

/// A name that keeps a sandbox awake, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub name: String,
    /// `None`: until it is released.
    pub expires_at: Option<Timestamp>,
}

impl Hold {
    /// Whether it does not count any more.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// When a workspace's sandboxes go to sleep whose request does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SleepDefaults {
    pub workspace: WorkspaceId,
    /// What is not said here is as the server has it.
    pub sleep: SleepChanges,
    /// Rises with each change, from 1.
    pub generation: u64,
    pub updated_at: Timestamp,
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

    /// Whether whoever uses the sandbox finds it as if it ran: any access wakes it.
    pub const fn is_doze(self) -> bool {
        match self {
            Self::Idle | Self::Requested => true,
            Self::Held | Self::Timeout => false,
        }
    }
}

/// When and why a sandbox went to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sleep {
    pub since: Timestamp,
    pub cause: SleepCause,
}
