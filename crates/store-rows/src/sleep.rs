//! The stored form of a sandbox's state and of its sleep.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use woodfrog_store::Result;
use woodfrog_types::run::RUN_HOLD;
use woodfrog_types::sandbox::{EndReason, InstanceState, SandboxState};
use woodfrog_types::sleep::{
    Fallback, Hold, Sleep, SleepCause, SleepChanges, SleepDefaults, SleepPolicy,
};
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{SandboxId, SnapshotId, Timestamp};

use crate::{
    Columns, corrupt, count_column, duration_to_millis, get, id_column, json_column, parse,
    time_column, time_column_opt, to_json,
};

const WHAT: &str = "sandbox";
const DEFAULTS: &str = "sleep defaults";
const HOLD: &str = "hold";

/// The state with its data. Its name is also a column, and both must agree.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub(crate) enum StoredState {
    Creating,
    Running {
        instance: String,
    },
    Paused {
        instance: String,
        sleep: StoredSleep,
    },
    Hibernating {
        instance: String,
        saved: Saved,
    },
    Hibernated {
        saved: Saved,
    },
    Waking {
        saved: Saved,
    },
    Archiving {
        saved: Saved,
    },
    Archived {
        saved: Saved,
    },
    Deleting {
        reason: StoredEnd,
    },
}

/// The snapshot that a sandbox is, or will be, in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    snapshot: String,
    content: StoredContent,
    sleep: StoredSleep,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct StoredSleep {
    since: i64,
    cause: StoredCause,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct StoredPolicy {
    pause_after_ms: Option<u64>,
    hibernate_after_ms: Option<u64>,
    archive_after_ms: Option<u64>,
    delete_after_ms: Option<u64>,
    fallback: StoredFallback,
    #[serde(default)]
    checkpoint_every_ms: Option<u64>,
}

/// Private twins of small enums: a variant that is renamed outside keeps its stored name.
macro_rules! twins {
    ($($stored:ident of $domain:ident { $($variant:ident),* })*) => {$(
        #[derive(Debug, Clone, Copy, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $stored { $($variant),* }

        impl From<$domain> for $stored {
            fn from(value: $domain) -> Self {
                match value { $($domain::$variant => Self::$variant),* }
            }
        }

        impl From<$stored> for $domain {
            fn from(stored: $stored) -> Self {
                match stored { $($stored::$variant => Self::$variant),* }
            }
        }
    )*};
}

twins! {
    StoredEnd of EndReason { Requested, Expired, Exited, Lost }
    StoredCause of SleepCause { Idle, Requested, Held, Timeout }
    StoredFallback of Fallback { StayPaused, Filesystem }
    StoredContent of SnapshotContent { Memory, Filesystem }
}

impl From<SleepPolicy> for StoredPolicy {
    fn from(policy: SleepPolicy) -> Self {
        let SleepPolicy {
            pause_after,
            hibernate_after,
            archive_after,
            delete_after,
            fallback,
            checkpoint_every,
        } = policy;
        Self {
            pause_after_ms: pause_after.map(duration_to_millis),
            hibernate_after_ms: hibernate_after.map(duration_to_millis),
            archive_after_ms: archive_after.map(duration_to_millis),
            delete_after_ms: delete_after.map(duration_to_millis),
            fallback: fallback.into(),
            checkpoint_every_ms: checkpoint_every.map(duration_to_millis),
        }
    }
}

impl From<StoredPolicy> for SleepPolicy {
    fn from(stored: StoredPolicy) -> Self {
        Self {
            pause_after: stored.pause_after_ms.map(Duration::from_millis),
            hibernate_after: stored.hibernate_after_ms.map(Duration::from_millis),
            archive_after: stored.archive_after_ms.map(Duration::from_millis),
            delete_after: stored.delete_after_ms.map(Duration::from_millis),
            fallback: stored.fallback.into(),
            checkpoint_every: stored.checkpoint_every_ms.map(Duration::from_millis),
        }
    }
}

/// A field that is absent is not said; `null` is never.
#[derive(Debug, Serialize, Deserialize)]
struct StoredChanges {
    v: u32,
    #[serde(
        default,
        deserialize_with = "said",
        skip_serializing_if = "Option::is_none"
    )]
    pause_after_ms: Option<Option<u64>>,
    #[serde(
        default,
        deserialize_with = "said",
        skip_serializing_if = "Option::is_none"
    )]
    hibernate_after_ms: Option<Option<u64>>,
    #[serde(
        default,
        deserialize_with = "said",
        skip_serializing_if = "Option::is_none"
    )]
    archive_after_ms: Option<Option<u64>>,
    #[serde(
        default,
        deserialize_with = "said",
        skip_serializing_if = "Option::is_none"
    )]
    delete_after_ms: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fallback: Option<StoredFallback>,
    #[serde(
        default,
        deserialize_with = "said",
        skip_serializing_if = "Option::is_none"
    )]
    checkpoint_every_ms: Option<Option<u64>>,
}

fn said<'de, D: Deserializer<'de>>(
    source: D,
) -> std::result::Result<Option<Option<u64>>, D::Error> {
    Option::<u64>::deserialize(source).map(Some)
}

/// JSON of what a workspace says about sleep.
pub fn sleep_defaults_to_json(changes: &SleepChanges) -> Result<String> {
    let millis = |rung: Option<Option<Duration>>| rung.map(|after| after.map(duration_to_millis));
    let stored = StoredChanges {
        v: 1,
        pause_after_ms: millis(changes.pause_after),
        hibernate_after_ms: millis(changes.hibernate_after),
        archive_after_ms: millis(changes.archive_after),
        delete_after_ms: millis(changes.delete_after),
        fallback: changes.fallback.map(Into::into),
        checkpoint_every_ms: millis(changes.checkpoint_every),
    };
    to_json(DEFAULTS, &stored)
}

pub fn sleep_defaults_from_row(row: &dyn Columns) -> Result<SleepDefaults> {
    let stored: StoredChanges = json_column(row, DEFAULTS, "sleep")?;
    if stored.v != 1 {
        return Err(corrupt(DEFAULTS, format!("unknown form {}", stored.v)));
    }
    let rung = |millis: Option<Option<u64>>| millis.map(|after| after.map(Duration::from_millis));
    Ok(SleepDefaults {
        workspace: id_column(row, DEFAULTS, "workspace")?,
        sleep: SleepChanges {
            pause_after: rung(stored.pause_after_ms),
            hibernate_after: rung(stored.hibernate_after_ms),
            archive_after: rung(stored.archive_after_ms),
            delete_after: rung(stored.delete_after_ms),
            fallback: stored.fallback.map(Into::into),
            checkpoint_every: rung(stored.checkpoint_every_ms),
        },
        generation: count_column(row, DEFAULTS, "generation")?,
        updated_at: time_column(row, DEFAULTS, "updated_at")?,
    })
}

pub fn hold_from_row(row: &dyn Columns) -> Result<Hold> {
    Ok(Hold {
        name: get(row, HOLD, "name")?,
        expires_at: time_column_opt(row, HOLD, "expires_at")?,
    })
}

/// The sandbox, and the run that holds it.
pub fn run_hold_from_row(row: &dyn Columns) -> Result<(SandboxId, String)> {
    let name: String = get(row, HOLD, "name")?;
    let run = name.strip_prefix(RUN_HOLD).unwrap_or(&name).to_owned();
    Ok((id_column(row, HOLD, "sandbox")?, run))
}

pub(crate) fn state_to_stored(state: &SandboxState) -> StoredState {
    let saved = |snapshot: &SnapshotId, content: SnapshotContent, sleep: Sleep| Saved {
        snapshot: snapshot.to_string(),
        content: content.into(),
        sleep: sleep_to_stored(sleep),
    };
    match state {
        SandboxState::Creating => StoredState::Creating,
        SandboxState::Running { instance } => StoredState::Running {
            instance: instance.0.clone(),
        },
        SandboxState::Paused { instance, sleep } => StoredState::Paused {
            instance: instance.0.clone(),
            sleep: sleep_to_stored(*sleep),
        },
        SandboxState::Hibernating {
            instance,
            snapshot,
            content,
            sleep,
        } => StoredState::Hibernating {
            instance: instance.0.clone(),
            saved: saved(snapshot, *content, *sleep),
        },
        SandboxState::Hibernated {
            snapshot,
            content,
            sleep,
        } => StoredState::Hibernated {
            saved: saved(snapshot, *content, *sleep),
        },
        SandboxState::Waking {
            snapshot,
            content,
            sleep,
        } => StoredState::Waking {
            saved: saved(snapshot, *content, *sleep),
        },
        SandboxState::Archiving {
            snapshot,
            content,
            sleep,
        } => StoredState::Archiving {
            saved: saved(snapshot, *content, *sleep),
        },
        SandboxState::Archived {
            snapshot,
            content,
            sleep,
        } => StoredState::Archived {
            saved: saved(snapshot, *content, *sleep),
        },
        SandboxState::Deleting { reason } => StoredState::Deleting {
            reason: (*reason).into(),
        },
    }
}

pub(crate) fn state_from_stored(stored: StoredState) -> Result<SandboxState> {
    Ok(match stored {
        StoredState::Creating => SandboxState::Creating,
        StoredState::Running { instance } => SandboxState::Running {
            instance: InstanceState(instance),
        },
        StoredState::Paused { instance, sleep } => SandboxState::Paused {
            instance: InstanceState(instance),
            sleep: sleep_from_stored(sleep),
        },
        StoredState::Hibernating { instance, saved } => {
            let (snapshot, content, sleep) = saved.read()?;
            SandboxState::Hibernating {
                instance: InstanceState(instance),
                snapshot,
                content,
                sleep,
            }
        }
        StoredState::Hibernated { saved } => {
            let (snapshot, content, sleep) = saved.read()?;
            SandboxState::Hibernated {
                snapshot,
                content,
                sleep,
            }
        }
        StoredState::Waking { saved } => {
            let (snapshot, content, sleep) = saved.read()?;
            SandboxState::Waking {
                snapshot,
                content,
                sleep,
            }
        }
        StoredState::Archiving { saved } => {
            let (snapshot, content, sleep) = saved.read()?;
            SandboxState::Archiving {
                snapshot,
                content,
                sleep,
            }
        }
        StoredState::Archived { saved } => {
            let (snapshot, content, sleep) = saved.read()?;
            SandboxState::Archived {
                snapshot,
                content,
                sleep,
            }
        }
        StoredState::Deleting { reason } => SandboxState::Deleting {
            reason: reason.into(),
        },
    })
}

impl Saved {
    fn read(self) -> Result<(SnapshotId, SnapshotContent, Sleep)> {
        Ok((
            parse(WHAT, &self.snapshot)?,
            self.content.into(),
            sleep_from_stored(self.sleep),
        ))
    }
}

fn sleep_to_stored(sleep: Sleep) -> StoredSleep {
    StoredSleep {
        since: sleep.since.as_millis(),
        cause: sleep.cause.into(),
    }
}

fn sleep_from_stored(stored: StoredSleep) -> Sleep {
    Sleep {
        since: Timestamp::from_millis(stored.since),
        cause: stored.cause.into(),
    }
}
