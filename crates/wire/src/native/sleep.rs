//! Sleep: policies, what somebody asks for, and why a sandbox is awake or asleep.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use woodfrog_types::sandbox::{OnTimeout as DomainOnTimeout, Sandbox as Record, SandboxState};
use woodfrog_types::sleep::{
    Fallback as DomainFallback, Sleep as DomainSleep, SleepChanges as DomainChanges,
    SleepPolicy as DomainPolicy,
};
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Fault, SnapshotId, Timestamp};

use super::problem::Problem;
use super::sandbox::Sandbox;
use crate::e2b::sandbox::timeout_or_now;

/// The least time between two checkpoints of a running sandbox.
const CHECKPOINT_SECONDS_MIN: u64 = 10;
/// Copies that one request may ask for.
pub const FORK_MAX: u32 = 100;
/// The longest time on one rung: ten years.
const RUNG_SECONDS_MAX: u64 = 10 * 365 * 24 * 3600;
/// The longest time that a hold may be asked for.
const HOLD_SECONDS_MAX: u64 = 30 * 24 * 3600;

/// What becomes of a sandbox whose memory cannot be saved when it is to hibernate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// It stays paused, or running if it was.
    #[default]
    StayPaused,
    /// Its files are kept, its processes end.
    Filesystem,
}

impl From<DomainFallback> for Fallback {
    fn from(fallback: DomainFallback) -> Self {
        match fallback {
            DomainFallback::StayPaused => Self::StayPaused,
            DomainFallback::Filesystem => Self::Filesystem,
        }
    }
}

impl From<Fallback> for DomainFallback {
    fn from(fallback: Fallback) -> Self {
        match fallback {
            Fallback::StayPaused => Self::StayPaused,
            Fallback::Filesystem => Self::Filesystem,
        }
    }
}

/// When a sandbox goes down the rungs of sleep by itself: seconds on each rung, `null` for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SleepPolicy {
    /// Running without activity, until it is paused.
    pub pause_after_seconds: Option<u64>,
    /// Paused, until it is hibernated.
    pub hibernate_after_seconds: Option<u64>,
    /// Hibernated, until its snapshot moves to the archive.
    pub archive_after_seconds: Option<u64>,
    /// Hibernated, until it is deleted.
    pub delete_after_seconds: Option<u64>,
    pub fallback: Fallback,
    /// How often it is saved while it runs, to come back from that after the machine went down.
    #[serde(default)]
    pub checkpoint_every_seconds: Option<u64>,
}

impl From<DomainPolicy> for SleepPolicy {
    fn from(policy: DomainPolicy) -> Self {
        let seconds = |after: Option<Duration>| after.map(|after| after.as_secs());
        Self {
            pause_after_seconds: seconds(policy.pause_after),
            hibernate_after_seconds: seconds(policy.hibernate_after),
            archive_after_seconds: seconds(policy.archive_after),
            delete_after_seconds: seconds(policy.delete_after),
            fallback: policy.fallback.into(),
            checkpoint_every_seconds: seconds(policy.checkpoint_every),
        }
    }
}

/// Changes of a sleep policy: what is absent stays as it is (in a request that makes a sandbox: is
/// its workspace's default, else the server's), `null` is never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SetSleepPolicy {
    /// Running without activity, until it is paused.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub pause_after_seconds: Option<Option<u64>>,
    /// Paused, until it is hibernated.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub hibernate_after_seconds: Option<Option<u64>>,
    /// Hibernated, until its snapshot moves to the archive.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub archive_after_seconds: Option<Option<u64>>,
    /// Hibernated, until it is deleted.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub delete_after_seconds: Option<Option<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// How often it is saved while it runs, to come back from that after the machine went down.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub checkpoint_every_seconds: Option<Option<u64>>,
}

/// A field that is there, `null` or not.
fn given<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::<u64>::deserialize(source).map(Some)
}

impl SetSleepPolicy {
    /// What is said, with its times in range.
    pub fn changes(self) -> Result<DomainChanges, Fault> {
        Ok(DomainChanges {
            pause_after: rung("pause", self.pause_after_seconds)?,
            hibernate_after: rung("hibernate", self.hibernate_after_seconds)?,
            archive_after: rung("archive", self.archive_after_seconds)?,
            delete_after: rung("delete", self.delete_after_seconds)?,
            fallback: self.fallback.map(Into::into),
            checkpoint_every: checkpoint_every(self.checkpoint_every_seconds)?,
        })
    }

    /// These changes over `base`.
    pub fn over(self, base: DomainPolicy) -> Result<DomainPolicy, Fault> {
        Ok(self.changes()?.over(base))
    }
}

impl From<DomainChanges> for SetSleepPolicy {
    fn from(said: DomainChanges) -> Self {
        let seconds = |rung: Option<Option<Duration>>| rung.map(|after| after.map(|a| a.as_secs()));
        Self {
            pause_after_seconds: seconds(said.pause_after),
            hibernate_after_seconds: seconds(said.hibernate_after),
            archive_after_seconds: seconds(said.archive_after),
            delete_after_seconds: seconds(said.delete_after),
            fallback: said.fallback.map(Into::into),
            checkpoint_every_seconds: seconds(said.checkpoint_every),
        }
    }
}

fn checkpoint_every(said: Option<Option<u64>>) -> Result<Option<Option<Duration>>, Fault> {
    match said {
        None => Ok(None),
        Some(None) => Ok(Some(None)),
        Some(Some(seconds)) if (CHECKPOINT_SECONDS_MIN..=RUNG_SECONDS_MAX).contains(&seconds) => {
            Ok(Some(Some(Duration::from_secs(seconds))))
        }
        Some(Some(_)) => Err(Fault::invalid(
            "sleep.checkpoint_every_seconds",
            format!("must be {CHECKPOINT_SECONDS_MIN} to {RUNG_SECONDS_MAX}"),
        )),
    }
}

fn rung(name: &str, said: Option<Option<u64>>) -> Result<Option<Option<Duration>>, Fault> {
    match said {
        None => Ok(None),
        Some(None) => Ok(Some(None)),
        Some(Some(seconds)) if (1..=RUNG_SECONDS_MAX).contains(&seconds) => {
            Ok(Some(Some(Duration::from_secs(seconds))))
        }
        Some(Some(_)) => Err(Fault::invalid(
            format!("sleep.{name}_after_seconds"),
            format!("must be 1 to {RUNG_SECONDS_MAX}, or null for never"),
        )),
    }
}

/// What happens when the deadline passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// It is deleted.
    #[default]
    Delete,
    /// It is hibernated, and stays so until it is resumed (by any access with `auto_resume`).
    Hibernate,
    /// Its files are kept, its processes end; it stays asleep until it is resumed.
    HibernateFiles,
}

impl From<DomainOnTimeout> for OnTimeout {
    fn from(on_timeout: DomainOnTimeout) -> Self {
        match on_timeout {
            DomainOnTimeout::Kill => Self::Delete,
            DomainOnTimeout::Pause { memory: true } => Self::Hibernate,
            DomainOnTimeout::Pause { memory: false } => Self::HibernateFiles,
        }
    }
}

impl From<OnTimeout> for DomainOnTimeout {
    fn from(on_timeout: OnTimeout) -> Self {
        match on_timeout {
            OnTimeout::Delete => Self::Kill,
            OnTimeout::Hibernate => Self::Pause { memory: true },
            OnTimeout::HibernateFiles => Self::Pause { memory: false },
        }
    }
}

/// What is saved or brought back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Files, and every process with its memory.
    #[default]
    Memory,
    /// Files alone: what is made from it boots anew.
    Filesystem,
}

impl From<SnapshotContent> for Content {
    fn from(content: SnapshotContent) -> Self {
        match content {
            SnapshotContent::Memory => Self::Memory,
            SnapshotContent::Filesystem => Self::Filesystem,
        }
    }
}

impl From<Content> for SnapshotContent {
    fn from(content: Content) -> Self {
        match content {
            Content::Memory => Self::Memory,
            Content::Filesystem => Self::Filesystem,
        }
    }
}

/// How a sandbox sleeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sleep {
    pub since: i64,
    /// `idle`, `requested`, `held` (through E2B: only `connect` and `resume` wake it) or `timeout`
    /// (as `held`).
    pub cause: String,
    /// What of it is brought back.
    pub content: Content,
    /// The snapshot that it is in; null while it is only paused.
    pub snapshot_id: Option<String>,
}

impl Sleep {
    /// How the sandbox of a record sleeps; `None` while it is awake.
    pub fn of(record: &Record) -> Option<Self> {
        let on_disk = |sleep: DomainSleep, content: SnapshotContent, id: &SnapshotId| {
            Some(Self {
                since: sleep.since.as_millis(),
                cause: sleep.cause.as_str().to_owned(),
                content: content.into(),
                snapshot_id: Some(id.to_string()),
            })
        };
        match &record.state {
            SandboxState::Creating
            | SandboxState::Running { .. }
            | SandboxState::Deleting { .. } => None,
            SandboxState::Paused { sleep, .. } => Some(Self {
                since: sleep.since.as_millis(),
                cause: sleep.cause.as_str().to_owned(),
                content: Content::Memory,
                snapshot_id: None,
            }),
            SandboxState::Hibernating {
                sleep,
                content,
                snapshot,
                ..
            }
            | SandboxState::Hibernated {
                sleep,
                content,
                snapshot,
            }
            | SandboxState::Waking {
                sleep,
                content,
                snapshot,
            }
            | SandboxState::Archiving {
                sleep,
                content,
                snapshot,
            }
            | SandboxState::Archived {
                sleep,
                content,
                snapshot,
            } => on_disk(*sleep, *content, snapshot),
        }
    }
}

/// The next rung of the ladder, if nothing happens until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NextRung {
    /// `paused`, `hibernated`, `archived` or `deleted`.
    pub state: String,
    pub at: i64,
}

impl NextRung {
    /// What becomes of a sandbox that sleeps, and when. `None` for those that are awake: their
    /// idleness is known to `wakefulness`.
    pub fn of(record: &Record) -> Option<Self> {
        let policy = &record.sleep;
        let (since, rungs) = match &record.state {
            SandboxState::Paused { sleep, .. } => {
                (sleep.since, vec![("hibernated", policy.hibernate_after)])
            }
            SandboxState::Hibernated { sleep, .. } => (
                sleep.since,
                vec![
                    ("archived", policy.archive_after),
                    ("deleted", policy.delete_after),
                ],
            ),
            SandboxState::Archived { sleep, .. } => {
                (sleep.since, vec![("deleted", policy.delete_after)])
            }
            SandboxState::Creating
            | SandboxState::Running { .. }
            | SandboxState::Hibernating { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Deleting { .. } => return None,
        };
        let planned = rungs
            .into_iter()
            .filter_map(|(state, after)| Some((state, after?)));
        let (state, after) = planned.min_by_key(|(_, after)| *after)?;
        Some(Self {
            state: state.to_owned(),
            at: since.plus(after).as_millis(),
        })
    }
}

/// How a sandbox is put to sleep on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hibernate {
    pub content: Content,
}

/// How a sandbox is brought back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resume {
    /// `filesystem`: it boots anew with its files, though its memory may be there.
    pub content: Content,
    /// A new deadline, in seconds from now.
    pub timeout_seconds: Option<i64>,
}

impl Resume {
    /// The new deadline from now.
    pub fn timeout(&self) -> Result<Option<Duration>, Fault> {
        seconds(self.timeout_seconds)
    }
}

/// A sandbox that runs again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Resumed {
    /// It was asleep before.
    pub woke: bool,
    pub sandbox: Sandbox,
}

/// A snapshot to be taken of a sandbox that goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// Unique in the workspace.
    pub name: Option<String>,
    pub content: Content,
    pub labels: BTreeMap<String, String>,
}

/// Copies of a sandbox, each with its memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fork {
    /// 1 to 100; 1 if absent.
    pub count: Option<u32>,
    /// Seconds until each copy is removed; it lives until it is deleted if absent.
    pub timeout_seconds: Option<i64>,
}

impl Fork {
    /// How many copies.
    pub fn count(&self) -> Result<u32, Fault> {
        let count = self.count.unwrap_or(1);
        if (1..=FORK_MAX).contains(&count) {
            return Ok(count);
        }
        let message = format!("count must be between 1 and {FORK_MAX}");
        Err(Fault::invalid("count", message))
    }

    /// How long each copy lives.
    pub fn timeout(&self) -> Result<Option<Duration>, Fault> {
        seconds(self.timeout_seconds)
    }
}

fn seconds(given: Option<i64>) -> Result<Option<Duration>, Fault> {
    let check = |seconds: i64| match timeout_or_now(seconds) {
        Ok(time) if time.is_zero() => Err(Fault::invalid(
            "timeout_seconds",
            "timeout_seconds must be greater than 0",
        )),
        Ok(time) => Ok(time),
        Err(fault) => Err(Fault::invalid("timeout_seconds", fault.message)),
    };
    given.map(check).transpose()
}

/// What became of each copy, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Forks {
    pub items: Vec<Forked>,
}

/// What became of one copy: one of the two is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Forked {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sandbox: Option<Sandbox>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<Problem>,
}

/// A sandbox whose use was announced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Activity {
    pub last_activity: i64,
    pub sandbox: Sandbox,
}

/// How long a hold is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewHold {
    /// Until it is released if absent.
    pub ttl_seconds: Option<u64>,
}

impl NewHold {
    /// The checked time.
    pub fn ttl(&self) -> Result<Option<Duration>, Fault> {
        let check = |seconds: u64| {
            if (1..=HOLD_SECONDS_MAX).contains(&seconds) {
                return Ok(Duration::from_secs(seconds));
            }
            let message = format!("ttl_seconds must be 1 to {HOLD_SECONDS_MAX}");
            Err(Fault::invalid("ttl_seconds", message))
        };
        self.ttl_seconds.map(check).transpose()
    }
}

/// A reason for a sandbox to stay awake that somebody gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hold {
    pub name: String,
    /// Null: until it is released.
    pub expires_at: Option<i64>,
}

impl Hold {
    /// The reply for a hold.
    pub fn new(name: String, expires_at: Option<Timestamp>) -> Self {
        Self {
            name,
            expires_at: expires_at.map(Timestamp::as_millis),
        }
    }
}

/// The holds of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holds {
    pub items: Vec<Hold>,
}

/// Why a sandbox is awake or asleep, and what comes next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Wakefulness {
    pub state: String,
    /// Sentences for people.
    pub reasons: Vec<String>,
    pub last_activity: i64,
    pub holds: Vec<Hold>,
    /// Null: it stays as it is.
    pub next: Option<NextRung>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_keeps_and_null_is_never() {
        let set: SetSleepPolicy =
            serde_json::from_str(r#"{"pause_after_seconds":60,"delete_after_seconds":null}"#)
                .expect("json");
        let base = DomainPolicy::default();
        let policy = set.over(base).expect("valid");
        assert_eq!(policy.pause_after, Some(Duration::from_secs(60)));
        assert_eq!(policy.delete_after, None);
        assert_eq!(policy.hibernate_after, base.hibernate_after);
        let text = serde_json::to_string(&set).expect("json");
        assert_eq!(
            text,
            r#"{"pause_after_seconds":60,"delete_after_seconds":null}"#
        );
    }

    #[test]
    fn a_time_out_of_range_names_its_field() {
        for seconds in [0, RUNG_SECONDS_MAX + 1] {
            let set = SetSleepPolicy {
                archive_after_seconds: Some(Some(seconds)),
                ..SetSleepPolicy::default()
            };
            let fault = set.over(DomainPolicy::default()).expect_err("out of range");
            assert_eq!(fault.field.as_deref(), Some("sleep.archive_after_seconds"));
            let set = SetSleepPolicy {
                checkpoint_every_seconds: Some(Some(seconds)),
                ..SetSleepPolicy::default()
            };
            let fault = set.over(DomainPolicy::default()).expect_err("out of range");
            let field = "sleep.checkpoint_every_seconds";
            assert_eq!(fault.field.as_deref(), Some(field));
        }
    }
}
