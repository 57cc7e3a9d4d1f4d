//! Pausing, resuming and forking: what is asked and what is answered.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use woodfrog_types::sandbox::{OnTimeout, Sandbox as Record, SandboxState};
use woodfrog_types::sleep::{Sleep, SleepCause};
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Fault, Timestamp};

use super::error::ErrorBody;
use super::sandbox::{Sandbox, timeout};

/// Copies that one request may ask for.
pub const FORK_MAX: i64 = 100;
/// The timeout of what is resumed or forked when the request names none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// The two states that clients know. A sandbox that dozes by itself runs, as far as they can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    Paused {
        since: Timestamp,
        content: SnapshotContent,
    },
}

impl State {
    /// The state of a record.
    pub fn of(record: &Record) -> Self {
        match &record.state {
            SandboxState::Creating
            | SandboxState::Running { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Deleting { .. } => Self::Running,
            SandboxState::Paused { sleep, .. } => Self::asleep(*sleep, SnapshotContent::Memory),
            SandboxState::Hibernating { sleep, content, .. }
            | SandboxState::Hibernated { sleep, content, .. }
            | SandboxState::Archiving { sleep, content, .. }
            | SandboxState::Archived { sleep, content, .. } => Self::asleep(*sleep, *content),
        }
    }

    const fn asleep(sleep: Sleep, content: SnapshotContent) -> Self {
        match sleep.cause {
            SleepCause::Idle | SleepCause::Requested => Self::Running,
            SleepCause::Held | SleepCause::Timeout => Self::Paused {
                since: sleep.since,
                content,
            },
        }
    }

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused { .. } => "paused",
        }
    }
}

/// What `memory` means: all of it unless it is `false`.
pub(super) fn content(memory: Option<bool>) -> SnapshotContent {
    match memory {
        Some(true) | None => SnapshotContent::Memory,
        Some(false) => SnapshotContent::Filesystem,
    }
}

/// Body of the pause route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Pause {
    pub memory: Option<bool>,
    // `requireHealthyGuest` is not read: a guest that does not answer is never paused here.
}

impl Pause {
    /// What is kept.
    pub fn content(&self) -> SnapshotContent {
        content(self.memory)
    }
}

/// Body of the deprecated resume route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    pub timeout: Option<i64>,
    pub auto_pause: Option<bool>,
    pub memory: Option<bool>,
}

impl Resume {
    /// How long it lives from now.
    pub fn timeout(&self) -> Result<Duration, Fault> {
        self.timeout.map_or(Ok(DEFAULT_TIMEOUT), timeout)
    }

    /// What is brought back.
    pub fn content(&self) -> SnapshotContent {
        content(self.memory)
    }

    /// What happens at the new timeout, if the request says so.
    pub fn on_timeout(&self) -> Option<OnTimeout> {
        self.auto_pause.map(|pause| match pause {
            true => OnTimeout::Pause { memory: true },
            false => OnTimeout::Kill,
        })
    }
}

/// Body of the fork route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Fork {
    pub timeout: Option<i64>,
    pub count: Option<i64>,
}

impl Fork {
    /// How long each copy lives from now.
    pub fn timeout(&self) -> Result<Duration, Fault> {
        self.timeout.map_or(Ok(DEFAULT_TIMEOUT), timeout)
    }

    /// How many copies.
    pub fn count(&self) -> Result<u32, Fault> {
        let count = self.count.unwrap_or(1);
        match u32::try_from(count) {
            Ok(copies) if (1..=FORK_MAX).contains(&count) => Ok(copies),
            _ => Err(Fault::invalid(
                "count",
                format!("count must be between 1 and {FORK_MAX}"),
            )),
        }
    }
}

/// What became of one copy.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Forked {
    Sandbox(Sandbox),
    Error(ErrorBody),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_keeps_the_memory() {
        let pause: Pause = serde_json::from_str("{}").expect("json");
        assert_eq!(pause.content(), SnapshotContent::Memory);
        let pause: Pause = serde_json::from_str(r#"{"memory":false}"#).expect("json");
        assert_eq!(pause.content(), SnapshotContent::Filesystem);
    }

    #[test]
    fn counts_have_bounds() {
        let fork = |count| Fork {
            count,
            ..Fork::default()
        };
        assert_eq!(fork(None).count().expect("fine"), 1);
        assert_eq!(fork(Some(100)).count().expect("fine"), 100);
        for bad in [0, -1, 101, i64::MAX] {
            assert!(fork(Some(bad)).count().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_copy_is_a_sandbox_or_an_error() {
        let error = Forked::Error(ErrorBody {
            code: 503,
            message: "full".to_owned(),
            error_code: None,
        });
        let json = serde_json::to_value(error).expect("json");
        assert_eq!(
            json,
            serde_json::json!({"error": {"code": 503, "message": "full"}})
        );
    }
}
