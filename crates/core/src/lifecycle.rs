//! The life of a sandbox: `creating → running ⇄ asleep → deleting → gone`.
//!
//! [`step`] is the only place that changes a [`Sandbox`]. It returns the next record and what has
//! to be done about it; the caller commits the record first and acts afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use woodfrog_types::event::Level;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::{EndReason, InstanceState, OnTimeout, Sandbox, SandboxState};
use woodfrog_types::sleep::{Sleep, SleepCause, SleepPolicy};
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Code, Fault, SnapshotId, Timestamp};

use crate::sleep::{self, Rearm};

mod asleep;

/// Something that happened to a sandbox or is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The driver launched it and its guest answers.
    Ready { instance: InstanceState },
    /// It ends at this time, earlier or later than before; `None` is never.
    SetDeadline { deadline: Option<Timestamp> },
    /// It lives at least until this time. A later deadline stays.
    ExtendDeadline { deadline: Timestamp },
    /// This is what its deadline leads to from now on.
    SetOnTimeout { on_timeout: OnTimeout },
    /// It goes to sleep by itself at other times from now on.
    SetSleep { policy: SleepPolicy },
    /// The clock says that a deadline or the next rung of its sleep may have come.
    Due,
    /// Its network rules are replaced.
    SetNetwork { network: NetworkSpec },
    /// It is to stand still.
    Pause { cause: SleepCause },
    /// It sleeps already, but for this reason from now on.
    Recause { cause: SleepCause },
    /// It stands still no more.
    Thawed { rearm: Rearm },
    /// It is to be saved into this snapshot, and to end.
    Hibernate {
        snapshot: SnapshotId,
        content: SnapshotContent,
        cause: SleepCause,
    },
    /// It is safe in the snapshot, and has ended.
    Hibernated,
    /// It could not be saved and goes on; `paused`: as it stood still before.
    HibernateFailed {
        paused: Option<Sleep>,
        reason: String,
    },
    /// It was saved while it runs: this is what it comes back from if it is lost.
    Saved { snapshot: SnapshotId },
    /// It and what was being saved of it are gone; the snapshot before holds what is left.
    FellBack {
        snapshot: SnapshotId,
        content: SnapshotContent,
        taken_at: Timestamp,
    },
    /// It is to be brought back.
    Wake,
    /// It is back; its processes go on (`Memory`) or began anew.
    Woken {
        instance: InstanceState,
        content: SnapshotContent,
        rearm: Rearm,
    },
    /// It could not be brought back.
    WakeFailed { reason: String },
    /// Its snapshot is to move to the archive.
    Archive,
    /// Its snapshot is in the archive.
    Archived,
    /// Its snapshot could not be moved to the archive, and is where it was.
    ArchiveFailed { reason: String },
    /// Its snapshot was brought back from the archive.
    Unarchived,
    /// It has to go.
    Delete { reason: EndReason },
    /// The driver has nothing of it any more.
    Destroyed,
}

/// What becomes of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This replaces it; its generation is one higher.
    Store(Box<Sandbox>),
    /// It is removed.
    Remove,
    /// Nothing changed; there is nothing to commit.
    Unchanged,
}

/// What must happen once the record is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Requests may reach it now.
    Publish,
    /// Requests may not reach it any more; open streams are aborted.
    Withdraw,
    /// The driver destroys it; [`Event::Destroyed`] follows.
    Destroy,
    /// The driver is given the record's network rules.
    ApplyEgress,
    /// Whoever waits for the earliest deadline looks again.
    RearmDeadline,
    /// The driver freezes it.
    Freeze,
    /// [`Event::Hibernate`] follows, with a snapshot of this content.
    Hibernate {
        content: SnapshotContent,
        cause: SleepCause,
    },
    /// [`Event::Archive`] follows.
    Archive,
}

/// A line for the sandbox's event log, without its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub level: Level,
    /// A stable name: `sandbox.created`.
    pub kind: &'static str,
    pub message: String,
    pub fields: BTreeMap<String, String>,
}

impl LogEntry {
    fn new(level: Level, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            level,
            kind,
            message: message.into(),
            fields: BTreeMap::new(),
        }
    }

    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.fields.insert(name.to_owned(), value.to_string());
        self
    }
}

/// The outcome of [`step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub next: Next,
    pub effects: Vec<Effect>,
    pub log: Vec<LogEntry>,
}

/// The state does not allow the event. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sandbox that is {state} does not take `{event}`")]
pub struct Denied {
    pub state: &'static str,
    pub event: &'static str,
    /// It will not help to ask again in a moment: somebody must resume it.
    pub asleep: bool,
}

impl From<Denied> for Fault {
    fn from(denied: Denied) -> Self {
        if denied.asleep {
            return sleep::asleep();
        }
        Self::new(
            Code::Transitioning,
            format!("the sandbox is {}; try again in a moment", denied.state),
        )
    }
}

impl Event {
    /// A stable name for logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "ready",
            Self::SetDeadline { .. } => "set_deadline",
            Self::ExtendDeadline { .. } => "extend_deadline",
            Self::SetOnTimeout { .. } => "set_on_timeout",
            Self::SetSleep { .. } => "set_sleep",
            Self::Due => "due",
            Self::SetNetwork { .. } => "set_network",
            Self::Pause { .. } => "pause",
            Self::Recause { .. } => "recause",
            Self::Thawed { .. } => "thawed",
            Self::Hibernate { .. } => "hibernate",
            Self::Hibernated => "hibernated",
            Self::HibernateFailed { .. } => "hibernate_failed",
            Self::Saved { .. } => "saved",
            Self::FellBack { .. } => "fell_back",
            Self::Wake => "wake",
            Self::Woken { .. } => "woken",
            Self::WakeFailed { .. } => "wake_failed",
            Self::Archive => "archive",
            Self::Archived => "archived",
            Self::ArchiveFailed { .. } => "archive_failed",
            Self::Unarchived => "unarchived",
            Self::Delete { .. } => "delete",
            Self::Destroyed => "destroyed",
        }
    }
}

/// Decides what `event` at `now` makes of `sandbox`.
pub fn step(sandbox: &Sandbox, event: Event, now: Timestamp) -> Result<Step, Denied> {
    let denied = Denied {
        state: sandbox.state.as_str(),
        event: event.as_str(),
        asleep: is_asleep(&sandbox.state),
    };
    let step = match event {
        Event::Ready { instance } => match sandbox.state {
            SandboxState::Creating => Some(started(sandbox, instance, now)),
            SandboxState::Running { .. }
            | SandboxState::Paused { .. }
            | SandboxState::Hibernating { .. }
            | SandboxState::Hibernated { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Archived { .. }
            | SandboxState::Deleting { .. } => None,
        },
        Event::SetDeadline { deadline } => {
            takes_deadline(&sandbox.state).then(|| set_deadline(sandbox, deadline, now))
        }
        Event::ExtendDeadline { deadline } => {
            takes_deadline(&sandbox.state).then(|| match sandbox.deadline {
                Some(present) if present < deadline => set_deadline(sandbox, Some(deadline), now),
                Some(_) | None => unchanged(),
            })
        }
        Event::SetOnTimeout { on_timeout } => is_settled(&sandbox.state).then(|| {
            if on_timeout == sandbox.on_timeout {
                return unchanged();
            }
            stored(
                changed(sandbox, |next| next.on_timeout = on_timeout),
                &[],
                Vec::new(),
            )
        }),
        Event::SetSleep { policy } => {
            is_settled(&sandbox.state).then(|| asleep::set_policy(sandbox, policy))
        }
        Event::Due => is_settled(&sandbox.state).then(|| asleep::due(sandbox, now)),
        Event::SetNetwork { network } => {
            is_settled(&sandbox.state).then(|| set_network(sandbox, network))
        }
        Event::Delete { reason } => Some(match sandbox.state {
            SandboxState::Deleting { .. } => unchanged(),
            SandboxState::Creating
            | SandboxState::Running { .. }
            | SandboxState::Paused { .. }
            | SandboxState::Hibernating { .. }
            | SandboxState::Hibernated { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Archived { .. } => deleting(sandbox, reason, now),
        }),
        Event::Destroyed => destroyed(&sandbox.state),
        Event::Pause { cause } => asleep::pause(sandbox, cause, now),
        Event::Recause { cause } => asleep::recause(sandbox, cause),
        Event::Thawed { rearm } => asleep::thawed(sandbox, rearm, now),
        Event::Hibernate {
            snapshot,
            content,
            cause,
        } => asleep::hibernate(sandbox, snapshot, content, cause, now),
        Event::Hibernated => asleep::hibernated(sandbox, now),
        Event::HibernateFailed { paused, reason } => {
            asleep::hibernate_failed(sandbox, paused, &reason, now)
        }
        Event::Saved { snapshot } => asleep::saved(sandbox, snapshot),
        Event::FellBack {
            snapshot,
            content,
            taken_at,
        } => asleep::fell_back(sandbox, snapshot, content, taken_at, now),
        Event::Wake => asleep::wake(sandbox),
        Event::Woken {
            instance,
            content,
            rearm,
        } => asleep::woken(sandbox, instance, content, rearm, now),
        Event::WakeFailed { reason } => asleep::wake_failed(sandbox, &reason),
        Event::Archive => asleep::archive(sandbox),
        Event::Archived => asleep::archived(sandbox),
        Event::ArchiveFailed { reason } => asleep::archive_failed(sandbox, &reason, now),
        Event::Unarchived => asleep::unarchived(sandbox, now),
    };
    step.ok_or(denied)
}

/// When a sandbox that may live for `timeout` ends; `None` is never.
pub fn deadline_after(now: Timestamp, timeout: Option<Duration>) -> Option<Timestamp> {
    timeout.map(|timeout| now.plus(timeout))
}

/// Whether nothing is under way with it: it runs, or it sleeps.
const fn is_settled(state: &SandboxState) -> bool {
    match state {
        SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Archived { .. } => true,
        SandboxState::Creating
        | SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => false,
    }
}

const fn is_asleep(state: &SandboxState) -> bool {
    match state {
        SandboxState::Paused { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Archived { .. } => true,
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => false,
    }
}

/// Whether its deadline may be moved: not while it sleeps without one.
const fn takes_deadline(state: &SandboxState) -> bool {
    match state {
        SandboxState::Running { .. } => true,
        SandboxState::Paused { sleep, .. }
        | SandboxState::Hibernated { sleep, .. }
        | SandboxState::Archived { sleep, .. } => sleep::keeps_deadline(sleep.cause),
        SandboxState::Creating
        | SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => false,
    }
}

fn changed(sandbox: &Sandbox, change: impl FnOnce(&mut Sandbox)) -> Next {
    let mut next = sandbox.clone();
    change(&mut next);
    next.generation = sandbox.generation + 1;
    Next::Store(Box::new(next))
}

fn unchanged() -> Step {
    stored(Next::Unchanged, &[], Vec::new())
}

fn stored(next: Next, effects: &[Effect], log: Vec<LogEntry>) -> Step {
    Step {
        next,
        effects: effects.to_vec(),
        log,
    }
}

fn started(sandbox: &Sandbox, instance: InstanceState, now: Timestamp) -> Step {
    let mut log = LogEntry::new(Level::Info, "sandbox.created", "the sandbox is running")
        .with("template", &sandbox.template)
        // What the log alone must tell about a sandbox that is gone.
        .with("workspace", &sandbox.workspace)
        .with("cpu_count", sandbox.resources.cpu_count)
        .with("memory_bytes", sandbox.resources.memory_bytes)
        .with("disk_bytes", sandbox.resources.disk_bytes);
    if let Some(alias) = &sandbox.template_alias {
        log = log.with("template_name", alias);
    }
    let next = changed(sandbox, |next| {
        next.state = SandboxState::Running { instance };
        next.started_at = now;
        // The time that it took to start is not taken from its life.
        next.deadline = deadline_after(now, sandbox.timeout);
    });
    stored(next, &[Effect::Publish, Effect::RearmDeadline], vec![log])
}

fn deleting(sandbox: &Sandbox, reason: EndReason, now: Timestamp) -> Step {
    let (level, kind, message) = match reason {
        EndReason::Requested => (Level::Info, "sandbox.deleted", "deleted on request"),
        EndReason::Expired => (Level::Info, "sandbox.expired", "its time was over"),
        EndReason::Exited => (Level::Warn, "sandbox.exited", "its first process ended"),
        EndReason::Lost => (Level::Error, "sandbox.lost", "it was found broken"),
    };
    let log = LogEntry::new(level, kind, message)
        .with("reason", reason.as_str())
        .with("ran_ms", now.since(sandbox.started_at).as_millis());
    let next = changed(sandbox, |next| {
        next.state = SandboxState::Deleting { reason };
        next.sleep_due = None;
    });
    stored(next, &[Effect::Withdraw, Effect::Destroy], vec![log])
}

fn destroyed(state: &SandboxState) -> Option<Step> {
    match state {
        // A launch that failed or never began leaves no record.
        SandboxState::Creating => Some(stored(
            Next::Remove,
            &[],
            vec![LogEntry::new(
                Level::Error,
                "sandbox.create_failed",
                "the sandbox could not be created",
            )],
        )),
        SandboxState::Deleting { .. } => Some(stored(Next::Remove, &[], Vec::new())),
        SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Archived { .. } => None,
    }
}

fn set_deadline(sandbox: &Sandbox, deadline: Option<Timestamp>, now: Timestamp) -> Step {
    if deadline.is_some_and(|deadline| deadline <= now) {
        return deadline_passed(sandbox, now);
    }
    if deadline == sandbox.deadline {
        return unchanged();
    }
    let text = deadline.map_or_else(|| "never".to_owned(), Timestamp::to_rfc3339);
    let message = format!("ends at {text}");
    let log = LogEntry::new(Level::Info, "sandbox.timeout_changed", message).with("deadline", text);
    let next = changed(sandbox, |next| next.deadline = deadline);
    stored(next, &[Effect::RearmDeadline], vec![log])
}

/// Its deadline is over: it ends, or it goes to sleep for good.
fn deadline_passed(sandbox: &Sandbox, now: Timestamp) -> Step {
    match sandbox.on_timeout {
        OnTimeout::Kill => deleting(sandbox, EndReason::Expired, now),
        OnTimeout::Pause { memory } => asleep::deadline_passed(sandbox, memory),
    }
}

fn set_network(sandbox: &Sandbox, network: NetworkSpec) -> Step {
    if network == sandbox.network {
        return unchanged();
    }
    let log = LogEntry::new(
        Level::Info,
        "sandbox.network_updated",
        "the network rules were replaced",
    )
    .with("internet", network.internet)
    .with("allow_out", network.allow_out.join(","))
    .with("deny_out", network.deny_out.join(","));
    let next = changed(sandbox, |next| next.network = network);
    stored(next, &[Effect::ApplyEgress], vec![log])
}

#[cfg(test)]
mod tests;
