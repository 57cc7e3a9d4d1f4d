//! The life of a sandbox: `creating → running → deleting → gone`.
//!
//! [`step`] is the only place that changes a [`Sandbox`]. It returns the next record and what has
//! to be done about it; the caller commits the record first and acts afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use woodfrog_types::event::Level;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::{EndReason, InstanceState, Sandbox, SandboxState};
use woodfrog_types::{Code, Fault, Timestamp};

/// Something that happened to a sandbox or is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The driver launched it and its guest answers.
    Ready { instance: InstanceState },
    /// It ends at this time, earlier or later than before; `None` is never.
    SetDeadline { deadline: Option<Timestamp> },
    /// It lives at least until this time. A later deadline stays.
    ExtendDeadline { deadline: Timestamp },
    /// The clock says that a deadline may have passed.
    DeadlinePassed,
    /// Its network rules are replaced.
    SetNetwork { network: NetworkSpec },
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
}

impl From<Denied> for Fault {
    fn from(denied: Denied) -> Self {
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
            Self::DeadlinePassed => "deadline_passed",
            Self::SetNetwork { .. } => "set_network",
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
    };
    match (&sandbox.state, event) {
        (SandboxState::Creating, Event::Ready { instance }) => Ok(started(sandbox, instance, now)),
        (SandboxState::Creating | SandboxState::Running { .. }, Event::Delete { reason }) => {
            Ok(deleting(sandbox, reason, now))
        }
        (SandboxState::Running { .. }, Event::SetDeadline { deadline }) => {
            Ok(set_deadline(sandbox, deadline, now))
        }
        (SandboxState::Running { .. }, Event::ExtendDeadline { deadline }) => {
            Ok(match sandbox.deadline {
                Some(present) if present < deadline => set_deadline(sandbox, Some(deadline), now),
                Some(_) | None => unchanged(),
            })
        }
        (SandboxState::Running { .. }, Event::DeadlinePassed) => Ok(match sandbox.deadline {
            Some(deadline) if deadline <= now => deleting(sandbox, EndReason::Expired, now),
            Some(_) | None => unchanged(),
        }),
        (SandboxState::Running { .. }, Event::SetNetwork { network }) => {
            Ok(set_network(sandbox, network))
        }
        (SandboxState::Deleting { .. }, Event::Delete { .. }) => Ok(unchanged()),
        // A launch that failed or never began leaves no record.
        (SandboxState::Creating, Event::Destroyed) => Ok(Step {
            next: Next::Remove,
            effects: Vec::new(),
            log: vec![entry(
                Level::Error,
                "sandbox.create_failed",
                "the sandbox could not be created".to_owned(),
            )],
        }),
        (SandboxState::Deleting { .. }, Event::Destroyed) => Ok(Step {
            next: Next::Remove,
            effects: Vec::new(),
            log: Vec::new(),
        }),
        (
            SandboxState::Creating,
            Event::SetDeadline { .. }
            | Event::ExtendDeadline { .. }
            | Event::DeadlinePassed
            | Event::SetNetwork { .. },
        )
        | (SandboxState::Running { .. }, Event::Ready { .. } | Event::Destroyed)
        | (
            SandboxState::Deleting { .. },
            Event::Ready { .. }
            | Event::SetDeadline { .. }
            | Event::ExtendDeadline { .. }
            | Event::DeadlinePassed
            | Event::SetNetwork { .. },
        ) => Err(denied),
    }
}

/// When a sandbox that may live for `timeout` ends; `None` is never.
pub fn deadline_after(now: Timestamp, timeout: Option<Duration>) -> Option<Timestamp> {
    timeout.map(|timeout| now.plus(timeout))
}

fn changed(sandbox: &Sandbox, change: impl FnOnce(&mut Sandbox)) -> Next {
    let mut next = sandbox.clone();
    change(&mut next);
    next.generation = sandbox.generation + 1;
    Next::Store(Box::new(next))
}

fn unchanged() -> Step {
    Step {
        next: Next::Unchanged,
        effects: Vec::new(),
        log: Vec::new(),
    }
}

fn entry(level: Level, kind: &'static str, message: String) -> LogEntry {
    LogEntry {
        level,
        kind,
        message,
        fields: BTreeMap::new(),
    }
}

fn started(sandbox: &Sandbox, instance: InstanceState, now: Timestamp) -> Step {
    let mut log = entry(
        Level::Info,
        "sandbox.created",
        "the sandbox is running".to_owned(),
    );
    log.fields
        .insert("template".to_owned(), sandbox.template.to_string());
    if let Some(alias) = &sandbox.template_alias {
        log.fields.insert("template_name".to_owned(), alias.clone());
    }
    Step {
        next: changed(sandbox, |next| {
            next.state = SandboxState::Running { instance };
            next.started_at = now;
            // The time that it took to start is not taken from its life.
            next.deadline = deadline_after(now, sandbox.timeout);
        }),
        effects: vec![Effect::Publish, Effect::RearmDeadline],
        log: vec![log],
    }
}

fn deleting(sandbox: &Sandbox, reason: EndReason, now: Timestamp) -> Step {
    let (level, kind, message) = match reason {
        EndReason::Requested => (Level::Info, "sandbox.deleted", "deleted on request"),
        EndReason::Expired => (Level::Info, "sandbox.expired", "its deadline passed"),
        EndReason::Exited => (Level::Warn, "sandbox.exited", "its first process ended"),
        EndReason::Lost => (Level::Error, "sandbox.lost", "it was found broken"),
    };
    let mut log = entry(level, kind, message.to_owned());
    log.fields
        .insert("reason".to_owned(), reason.as_str().to_owned());
    log.fields.insert(
        "ran_ms".to_owned(),
        now.since(sandbox.started_at).as_millis().to_string(),
    );
    Step {
        next: changed(sandbox, |next| {
            next.state = SandboxState::Deleting { reason };
        }),
        effects: vec![Effect::Withdraw, Effect::Destroy],
        log: vec![log],
    }
}

fn set_deadline(sandbox: &Sandbox, deadline: Option<Timestamp>, now: Timestamp) -> Step {
    if deadline.is_some_and(|deadline| deadline <= now) {
        return deleting(sandbox, EndReason::Expired, now);
    }
    if deadline == sandbox.deadline {
        return unchanged();
    }
    let text = deadline.map_or_else(|| "never".to_owned(), Timestamp::to_rfc3339);
    let mut log = entry(
        Level::Info,
        "sandbox.timeout_changed",
        format!("ends at {text}"),
    );
    log.fields.insert("deadline".to_owned(), text);
    Step {
        next: changed(sandbox, |next| next.deadline = deadline),
        effects: vec![Effect::RearmDeadline],
        log: vec![log],
    }
}

fn set_network(sandbox: &Sandbox, network: NetworkSpec) -> Step {
    if network == sandbox.network {
        return unchanged();
    }
    let mut log = entry(
        Level::Info,
        "sandbox.network_updated",
        "the network rules were replaced".to_owned(),
    );
    for (name, value) in [
        ("internet", network.internet.to_string()),
        ("allow_out", network.allow_out.join(",")),
        ("deny_out", network.deny_out.join(",")),
    ] {
        log.fields.insert(name.to_owned(), value);
    }
    Step {
        next: changed(sandbox, |next| next.network = network),
        effects: vec![Effect::ApplyEgress],
        log: vec![log],
    }
}

#[cfg(test)]
mod tests;
