//! Transitions between the rungs of sleep, for whoever measures them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A change of rung, or a snapshot beside one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transition {
    Pause,
    Thaw,
    Hibernate,
    /// From disk to memory.
    Restore,
    Archive,
    Unarchive,
    /// A snapshot of a sandbox that goes on.
    Checkpoint,
}

impl Transition {
    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Thaw => "thaw",
            Self::Hibernate => "hibernate",
            Self::Restore => "restore",
            Self::Archive => "archive",
            Self::Unarchive => "unarchive",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// Whoever measures transitions.
pub trait Observer: Send + Sync + 'static {
    /// One ended, well or not.
    fn transition(&self, which: Transition, took: Duration, ended: Ended);
}

/// How a transition ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    Done,
    Failed,
}

impl Ended {
    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// Who is told; nobody at first.
#[derive(Default)]
pub(crate) struct Observed(OnceLock<Arc<dyn Observer>>);

impl Observed {
    /// The first observer stays.
    pub(crate) fn set(&self, observer: Arc<dyn Observer>) {
        if self.0.set(observer).is_err() {
            tracing::debug!("transitions are observed already");
        }
    }

    /// Tells of a transition that began at this moment and ended now.
    pub(crate) fn tell<T, E>(
        &self,
        which: Transition,
        begun: std::time::Instant,
        result: &Result<T, E>,
    ) {
        let ended = match result {
            Ok(_) => Ended::Done,
            Err(_) => Ended::Failed,
        };
        if let Some(observer) = self.0.get() {
            observer.transition(which, begun.elapsed(), ended);
        }
    }
}
