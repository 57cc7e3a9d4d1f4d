//! The part of the lifecycle that is about sleep. `None`: the state does not allow it.

use woodfrog_types::event::Level;
use woodfrog_types::sandbox::{EndReason, InstanceState, OnTimeout, Sandbox, SandboxState};
use woodfrog_types::sleep::{Sleep, SleepCause, SleepPolicy};
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{SnapshotId, Timestamp};

use super::{Effect, LogEntry, Next, Step, changed, deadline_passed as end, deleting, stored};
use super::{Rearm, sleep, unchanged};

/// The record with a new state, its deadline and the next rung as that state has them.
fn fallen(sandbox: &Sandbox, state: SandboxState, cause: SleepCause) -> Next {
    changed(sandbox, |next| {
        next.state = state;
        if !sleep::keeps_deadline(cause) {
            next.deadline = None;
        }
        next.sleep_due = sleep::next_rung(next, None).map(|(_, at)| at);
    })
}

pub(super) fn pause(sandbox: &Sandbox, cause: SleepCause, now: Timestamp) -> Option<Step> {
    match &sandbox.state {
        SandboxState::Running { instance } => {
            let log = LogEntry::new(Level::Info, "sandbox.paused", "its processes stand still")
                .with("cause", cause.as_str());
            let state = SandboxState::Paused {
                instance: instance.clone(),
                sleep: Sleep { since: now, cause },
            };
            let effects = [Effect::Freeze, Effect::RearmDeadline];
            Some(stored(fallen(sandbox, state, cause), &effects, vec![log]))
        }
        SandboxState::Paused { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Archived { .. } => Some(unchanged()),
        SandboxState::Creating
        | SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

pub(super) fn thawed(sandbox: &Sandbox, rearm: Rearm, now: Timestamp) -> Option<Step> {
    match &sandbox.state {
        SandboxState::Paused { instance, sleep } => {
            let log = LogEntry::new(Level::Info, "sandbox.woken", "its processes go on")
                .with("from", "paused")
                .with("slept_ms", now.since(sleep.since).as_millis());
            let instance = instance.clone();
            Some(awake(sandbox, instance, *sleep, rearm, now, log))
        }
        SandboxState::Running { .. } => Some(unchanged()),
        SandboxState::Creating
        | SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

fn awake(
    sandbox: &Sandbox,
    instance: InstanceState,
    slept: Sleep,
    rearm: Rearm,
    now: Timestamp,
    log: LogEntry,
) -> Step {
    let next = changed(sandbox, |next| {
        next.state = SandboxState::Running { instance };
        next.deadline = sleep::rearmed(sandbox, slept, rearm, now);
        next.sleep_due = None;
    });
    stored(next, &[Effect::Publish, Effect::RearmDeadline], vec![log])
}

pub(super) fn hibernate(
    sandbox: &Sandbox,
    snapshot: SnapshotId,
    content: SnapshotContent,
    cause: SleepCause,
    now: Timestamp,
) -> Option<Step> {
    match &sandbox.state {
        SandboxState::Running { instance } | SandboxState::Paused { instance, .. } => {
            let instance = instance.clone();
            let next = changed(sandbox, |next| {
                next.state = SandboxState::Hibernating {
                    instance,
                    snapshot,
                    content,
                    sleep: Sleep { since: now, cause },
                };
                next.sleep_due = None;
            });
            Some(stored(next, &[], Vec::new()))
        }
        SandboxState::Creating
        | SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

pub(super) fn hibernated(sandbox: &Sandbox, now: Timestamp) -> Option<Step> {
    match &sandbox.state {
        SandboxState::Hibernating {
            snapshot,
            content,
            sleep,
            ..
        } => {
            let log = LogEntry::new(Level::Info, "sandbox.hibernated", "it is safe on disk")
                .with("cause", sleep.cause.as_str())
                .with("content", content.as_str())
                .with("snapshot", snapshot);
            let cause = sleep.cause;
            let state = SandboxState::Hibernated {
                snapshot: snapshot.clone(),
                content: *content,
                sleep: Sleep { since: now, cause },
            };
            let mut next = fallen(sandbox, state, cause);
            if let Next::Store(next) = &mut next {
                next.last_snapshot = Some(snapshot.clone());
            }
            Some(stored(next, &[Effect::RearmDeadline], vec![log]))
        }
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

pub(super) fn hibernate_failed(
    sandbox: &Sandbox,
    paused: Option<Sleep>,
    reason: &str,
    now: Timestamp,
) -> Option<Step> {
    match &sandbox.state {
        SandboxState::Hibernating {
            instance, content, ..
        } => {
            let log = LogEntry::new(
                Level::Warn,
                "sandbox.checkpoint_failed",
                "it could not be saved and goes on as before",
            )
            .with("reason", reason)
            .with("content", content.as_str());
            let instance = instance.clone();
            let next = changed(sandbox, |next| match paused {
                None => next.state = SandboxState::Running { instance },
                Some(sleep) => {
                    next.state = SandboxState::Paused { instance, sleep };
                    // Not at once again.
                    let pause = sandbox.sleep.hibernate_after;
                    next.sleep_due = pause.map(|after| now.plus(after.max(sleep::REARMED_MIN)));
                }
            });
            Some(stored(next, &[Effect::RearmDeadline], vec![log]))
        }
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

/// It goes on, and has something to come back from.
pub(super) fn saved(sandbox: &Sandbox, snapshot: SnapshotId) -> Option<Step> {
    match &sandbox.state {
        SandboxState::Running { .. } => {
            let log = LogEntry::new(
                Level::Info,
                "sandbox.checkpointed",
                "it was saved while it runs, and goes on",
            )
            .with("snapshot", &snapshot)
            .with("purpose", "periodic");
            let next = changed(sandbox, |next| next.last_snapshot = Some(snapshot));
            Some(stored(next, &[], vec![log]))
        }
        SandboxState::Creating
        | SandboxState::Paused { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

pub(super) fn fell_back(
    sandbox: &Sandbox,
    snapshot: SnapshotId,
    content: SnapshotContent,
    taken_at: Timestamp,
    now: Timestamp,
) -> Option<Step> {
    let (cause, how) = match &sandbox.state {
        SandboxState::Hibernating { sleep, .. } => {
            (sleep.cause, "it was lost while it was being saved")
        }
        SandboxState::Running { .. } => (SleepCause::Idle, "it was lost while it ran"),
        SandboxState::Paused { sleep, .. } => (sleep.cause, "it was lost while it was paused"),
        SandboxState::Creating
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => return None,
    };
    let message = format!("{how}; what it did since its last snapshot is lost");
    let log = LogEntry::new(Level::Error, "sandbox.rolled_back", message)
        .with("snapshot", &snapshot)
        .with("taken_at", taken_at)
        .with("age_ms", now.since(taken_at).as_millis());
    let state = SandboxState::Hibernated {
        snapshot,
        content,
        sleep: Sleep { since: now, cause },
    };
    Some(stored(
        fallen(sandbox, state, cause),
        &[Effect::RearmDeadline],
        vec![log],
    ))
}

pub(super) fn wake(sandbox: &Sandbox) -> Option<Step> {
    match &sandbox.state {
        SandboxState::Hibernated {
            snapshot,
            content,
            sleep,
        } => {
            let state = SandboxState::Waking {
                snapshot: snapshot.clone(),
                content: *content,
                sleep: *sleep,
            };
            let next = changed(sandbox, |next| next.state = state);
            Some(stored(next, &[], Vec::new()))
        }
        // An archived one is brought back from the archive first.
        SandboxState::Archived { .. }
        | SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

pub(super) fn woken(
    sandbox: &Sandbox,
    instance: InstanceState,
    content: SnapshotContent,
    rearm: Rearm,
    now: Timestamp,
) -> Option<Step> {
    match &sandbox.state {
        SandboxState::Waking {
            snapshot, sleep, ..
        } => {
            let message = match content {
                SnapshotContent::Memory => "it goes on where it was",
                SnapshotContent::Filesystem => "it started anew with its files",
            };
            let log = LogEntry::new(Level::Info, "sandbox.woken", message)
                .with("from", "hibernated")
                .with("content", content.as_str())
                .with("snapshot", snapshot)
                .with("slept_ms", now.since(sleep.since).as_millis());
            Some(awake(sandbox, instance, *sleep, rearm, now, log))
        }
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

pub(super) fn wake_failed(sandbox: &Sandbox, reason: &str) -> Option<Step> {
    match &sandbox.state {
        SandboxState::Waking {
            snapshot,
            content,
            sleep,
        } => {
            let log = LogEntry::new(
                Level::Error,
                "sandbox.wake_failed",
                "it could not be brought back; its snapshot is untouched",
            )
            .with("reason", reason)
            .with("snapshot", snapshot);
            let state = SandboxState::Hibernated {
                snapshot: snapshot.clone(),
                content: *content,
                sleep: *sleep,
            };
            let next = changed(sandbox, |next| next.state = state);
            Some(stored(next, &[Effect::RearmDeadline], vec![log]))
        }
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

pub(super) fn archive(sandbox: &Sandbox) -> Option<Step> {
    match &sandbox.state {
        SandboxState::Hibernated {
            snapshot,
            content,
            sleep,
        } => {
            let state = SandboxState::Archiving {
                snapshot: snapshot.clone(),
                content: *content,
                sleep: *sleep,
            };
            let next = changed(sandbox, |next| next.state = state);
            Some(stored(next, &[], Vec::new()))
        }
        SandboxState::Archived { .. } => Some(unchanged()),
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

pub(super) fn archived(sandbox: &Sandbox) -> Option<Step> {
    match &sandbox.state {
        SandboxState::Archiving {
            snapshot,
            content,
            sleep,
        } => {
            let log = LogEntry::new(
                Level::Info,
                "sandbox.archived",
                "its snapshot is in the archive",
            )
            .with("snapshot", snapshot);
            let state = SandboxState::Archived {
                snapshot: snapshot.clone(),
                content: *content,
                sleep: *sleep,
            };
            let next = changed(sandbox, |next| {
                next.state = state;
                next.sleep_due = sleep::due_archived(sandbox, next);
            });
            Some(stored(next, &[Effect::RearmDeadline], vec![log]))
        }
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

/// It sleeps on this machine as before, and goes to the archive at another time.
pub(super) fn archive_failed(sandbox: &Sandbox, reason: &str, now: Timestamp) -> Option<Step> {
    match &sandbox.state {
        SandboxState::Archiving {
            snapshot,
            content,
            sleep,
        } => {
            let log = LogEntry::new(
                Level::Warn,
                "sandbox.archive_failed",
                "its snapshot could not be moved to the archive and is where it was",
            )
            .with("reason", reason)
            .with("snapshot", snapshot);
            let state = SandboxState::Hibernated {
                snapshot: snapshot.clone(),
                content: *content,
                sleep: *sleep,
            };
            let next = changed(sandbox, |next| {
                next.state = state;
                next.sleep_due = sleep::due_again(next, sandbox.sleep_due, now);
            });
            Some(stored(next, &[Effect::RearmDeadline], vec![log]))
        }
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

pub(super) fn unarchived(sandbox: &Sandbox, now: Timestamp) -> Option<Step> {
    match &sandbox.state {
        SandboxState::Archived {
            snapshot,
            content,
            sleep,
        } => {
            let log = LogEntry::new(
                Level::Info,
                "sandbox.unarchived",
                "its snapshot was brought back from the archive",
            )
            .with("snapshot", snapshot);
            let state = SandboxState::Hibernated {
                snapshot: snapshot.clone(),
                content: *content,
                sleep: *sleep,
            };
            let next = changed(sandbox, |next| {
                next.state = state;
                next.sleep_due = sleep::due_again(next, sandbox.sleep_due, now);
            });
            Some(stored(next, &[Effect::RearmDeadline], vec![log]))
        }
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

pub(super) fn set_policy(sandbox: &Sandbox, policy: SleepPolicy) -> Step {
    if policy == sandbox.sleep {
        return unchanged();
    }
    let next = changed(sandbox, |next| {
        next.sleep = policy;
        next.sleep_due = sleep::next_rung(next, None).map(|(_, at)| at);
    });
    let log = LogEntry::new(
        Level::Info,
        "sandbox.sleep_changed",
        "it goes to sleep by itself at other times",
    );
    stored(next, &[Effect::RearmDeadline], vec![log])
}

/// What the deadline leads to where the sandbox is to be kept.
pub(super) fn deadline_passed(sandbox: &Sandbox, memory: bool) -> Step {
    let cause = SleepCause::Timeout;
    let content = match memory {
        true => SnapshotContent::Memory,
        false => SnapshotContent::Filesystem,
    };
    match &sandbox.state {
        SandboxState::Running { .. } | SandboxState::Paused { .. } => stored(
            Next::Unchanged,
            &[Effect::Hibernate { content, cause }],
            Vec::new(),
        ),
        // It dozed already; now it is not woken by just anything any more.
        SandboxState::Hibernated { .. } | SandboxState::Archived { .. } => {
            recause(sandbox, cause).unwrap_or_else(unchanged)
        }
        SandboxState::Creating
        | SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => unchanged(),
    }
}

/// Another reason for the same sleep: decides who wakes it, and whether its deadline counts.
pub(super) fn recause(sandbox: &Sandbox, cause: SleepCause) -> Option<Step> {
    let state = match sandbox.state.clone() {
        SandboxState::Paused { instance, sleep } => SandboxState::Paused {
            instance,
            sleep: Sleep { cause, ..sleep },
        },
        SandboxState::Hibernated {
            snapshot,
            content,
            sleep,
        } => SandboxState::Hibernated {
            snapshot,
            content,
            sleep: Sleep { cause, ..sleep },
        },
        SandboxState::Archived {
            snapshot,
            content,
            sleep,
        } => SandboxState::Archived {
            snapshot,
            content,
            sleep: Sleep { cause, ..sleep },
        },
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => return None,
    };
    let next = changed(sandbox, |next| {
        next.state = state;
        if !sleep::keeps_deadline(cause) {
            next.deadline = None;
        }
    });
    let log = LogEntry::new(
        Level::Info,
        "sandbox.kept_asleep",
        "it slept already, and sleeps on for another reason",
    )
    .with("cause", cause.as_str());
    Some(stored(next, &[Effect::RearmDeadline], vec![log]))
}

/// The clock looks at a sandbox that runs or sleeps.
pub(super) fn due(sandbox: &Sandbox, now: Timestamp) -> Step {
    if sandbox.deadline.is_some_and(|deadline| deadline <= now) {
        return end(sandbox, now);
    }
    let Some(due) = sandbox.sleep_due.filter(|due| *due <= now) else {
        return unchanged();
    };
    match &sandbox.state {
        SandboxState::Paused { sleep, .. } => {
            let effect = Effect::Hibernate {
                content: content_of(sandbox.on_timeout, sleep.cause),
                cause: sleep.cause,
            };
            stored(Next::Unchanged, &[effect], Vec::new())
        }
        SandboxState::Hibernated { sleep, .. } => {
            match sleep::is_archive_due(&sandbox.sleep, *sleep, due) {
                true => stored(Next::Unchanged, &[Effect::Archive], Vec::new()),
                false => warn_or_delete(sandbox, *sleep, due, now),
            }
        }
        SandboxState::Archived { sleep, .. } => warn_or_delete(sandbox, *sleep, due, now),
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => unchanged(),
    }
}

/// What is kept of a sandbox that stood still: its memory, unless its timeout said otherwise.
const fn content_of(on_timeout: OnTimeout, cause: SleepCause) -> SnapshotContent {
    match (cause, on_timeout) {
        (SleepCause::Timeout, OnTimeout::Pause { memory: false }) => SnapshotContent::Filesystem,
        (SleepCause::Timeout, OnTimeout::Kill | OnTimeout::Pause { memory: true })
        | (SleepCause::Idle | SleepCause::Requested | SleepCause::Held, _) => {
            SnapshotContent::Memory
        }
    }
}

/// It is never deleted without a warning: after a long stop of the server the warning comes
/// first, and its deletion as much later.
fn warn_or_delete(sandbox: &Sandbox, slept: Sleep, due: Timestamp, now: Timestamp) -> Step {
    let Some(after) = sandbox.sleep.delete_after else {
        return unchanged();
    };
    let delete_at = slept.since.plus(after);
    if due >= delete_at {
        return deleting(sandbox, EndReason::Expired, now);
    }
    let lead = after - sleep::warned_after(after);
    let delete_at = delete_at.max(now.plus(lead));
    let log = LogEntry::new(
        Level::Warn,
        "sandbox.expiring",
        format!("it sleeps unused and is deleted at {delete_at}"),
    )
    .with("delete_at", delete_at);
    let next = changed(sandbox, |next| next.sleep_due = Some(delete_at));
    stored(next, &[Effect::RearmDeadline], vec![log])
}
