//! Decisions about sleep: who may wake a sandbox, when it goes to the next rung, what a crash
//! leaves of one that was changing. Pure; the engine acts.

use std::time::Duration;

use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::sleep::{Sleep, SleepCause, SleepChanges, SleepPolicy};
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Code, Fault, Timestamp};

/// The longest time between the warning of a deletion and the deletion.
pub const WARNING_MAX: Duration = Duration::from_secs(24 * 3600);
/// A sandbox that traffic woke after its timeout lives at least this long, as on E2B.
pub const REARMED_MIN: Duration = Duration::from_secs(300);
/// Until a snapshot that could not be moved to the archive is tried again.
pub const ARCHIVE_AGAIN: Duration = Duration::from_secs(600);
/// The longest time on one rung.
pub const RUNG_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Connections to the outside are kept over naps up to this: the other end waits about as long for
/// an answer, and what translates addresses on the way forgets them after some minutes.
const OUTBOUND_KEPT_MAX: Duration = Duration::from_secs(120);

/// Whether connections that a sandbox had when it fell asleep so long ago are worth keeping.
pub fn keeps_outbound(slept: Duration) -> bool {
    slept <= OUTBOUND_KEPT_MAX
}

/// Who wants a sandbox to be awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waker {
    /// Somebody asked for just that.
    Resume,
    /// Somebody uses it.
    Access,
}

/// Whether `waker` may wake a sandbox that fell asleep like this.
pub const fn may_wake(
    sleep: Sleep,
    content: SnapshotContent,
    auto_resume: bool,
    waker: Waker,
) -> bool {
    match (waker, sleep.cause) {
        (Waker::Resume, _) | (Waker::Access, SleepCause::Idle | SleepCause::Requested) => true,
        (Waker::Access, SleepCause::Held | SleepCause::Timeout) => {
            auto_resume && matches!(content, SnapshotContent::Memory)
        }
    }
}

/// The answer to who may not wake it.
pub fn asleep() -> Fault {
    Fault::new(
        Code::Asleep,
        "the sandbox sleeps, and using it does not wake it; resume it first",
    )
}

/// Whether what is asked of this sandbox counts against its deadline: one that dozes by itself
/// is awake to its client.
pub const fn keeps_deadline(cause: SleepCause) -> bool {
    match cause {
        SleepCause::Idle => true,
        SleepCause::Requested | SleepCause::Held | SleepCause::Timeout => false,
    }
}

/// Whether a sandbox that sleeps for this reason runs as far as its client knows.
pub const fn keeps_face(cause: SleepCause) -> bool {
    match cause {
        SleepCause::Idle | SleepCause::Requested => true,
        SleepCause::Held | SleepCause::Timeout => false,
    }
}

/// How a sandbox's deadline is set when it wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rearm {
    /// As its own timeout says.
    Own,
    /// To exactly this.
    At(Option<Timestamp>),
    /// At least to this.
    Extend(Timestamp),
}

/// The deadline of a sandbox that wakes from this sleep.
pub fn rearmed(sandbox: &Sandbox, sleep: Sleep, how: Rearm, now: Timestamp) -> Option<Timestamp> {
    let kept = keeps_deadline(sleep.cause);
    match how {
        Rearm::At(deadline) => deadline,
        Rearm::Extend(least) if kept => sandbox.deadline.map(|present| present.max(least)),
        Rearm::Extend(least) => Some(least),
        Rearm::Own if kept => sandbox.deadline,
        Rearm::Own => sandbox.timeout.map(|timeout| match sleep.cause {
            SleepCause::Held | SleepCause::Timeout => now.plus(timeout.max(REARMED_MIN)),
            SleepCause::Idle | SleepCause::Requested => now.plus(timeout),
        }),
    }
}

/// A step down the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    Pause,
    Hibernate,
    Archive,
    /// Not a step: its owner is told that the next one is its end.
    Warn,
    Delete,
}

impl Rung {
    /// The state that it leads to.
    pub const fn state(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Hibernate => "hibernated",
            Self::Archive => "archived",
            Self::Warn | Self::Delete => "deleted",
        }
    }
}

/// When a running sandbox goes to sleep if nothing happens: `idle_since` is its last activity,
/// `held` the end of the hold that ends last (`None` inside: never).
pub fn idle_due(
    policy: &SleepPolicy,
    idle_since: Timestamp,
    held: Option<Option<Timestamp>>,
) -> Option<Timestamp> {
    let due = idle_since.plus(policy.pause_after?);
    match held {
        None => Some(due),
        Some(None) => None,
        Some(Some(until)) => Some(due.max(until)),
    }
}

/// The step down that a sweep asks of a sandbox: `None` if it was used since `now - idle`, came to
/// its rung since, is held, or may not sleep by itself.
pub fn swept(
    sandbox: &Sandbox,
    idle_since: Timestamp,
    held: bool,
    idle: Duration,
    now: Timestamp,
) -> Option<Rung> {
    let long = |since: Timestamp| since.plus(idle) <= now;
    match &sandbox.state {
        SandboxState::Running { .. } => {
            let may = sandbox.sleep.pause_after.is_some() && !held;
            (may && long(idle_since)).then_some(Rung::Pause)
        }
        SandboxState::Paused { sleep, .. } => long(sleep.since).then_some(Rung::Hibernate),
        SandboxState::Hibernated { sleep, .. } => long(sleep.since).then_some(Rung::Archive),
        SandboxState::Archived { .. }
        | SandboxState::Creating
        | SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

/// The first rung of a sleeping sandbox that comes after `after`.
pub fn next_rung(sandbox: &Sandbox, after: Option<Timestamp>) -> Option<(Rung, Timestamp)> {
    let policy = &sandbox.sleep;
    let rung = |rung, sleep: &Sleep, after: Option<Duration>| {
        after.map(|after| (rung, sleep.since.plus(after)))
    };
    let ladder = match &sandbox.state {
        SandboxState::Paused { sleep, .. } => {
            vec![rung(Rung::Hibernate, sleep, policy.hibernate_after)]
        }
        SandboxState::Hibernated { sleep, .. } => vec![
            rung(Rung::Archive, sleep, policy.archive_after),
            rung(Rung::Warn, sleep, policy.delete_after.map(warned_after)),
            rung(Rung::Delete, sleep, policy.delete_after),
        ],
        SandboxState::Archived { sleep, .. } => vec![
            rung(Rung::Warn, sleep, policy.delete_after.map(warned_after)),
            rung(Rung::Delete, sleep, policy.delete_after),
        ],
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => Vec::new(),
    };
    ladder
        .into_iter()
        .flatten()
        .filter(|(_, at)| after.is_none_or(|after| *at > after))
        .min_by_key(|(_, at)| *at)
}

/// Whether what is due for a hibernated sandbox is its move to the archive: the first attempt, or
/// another one after a failure. Attempts end where the warning of its deletion begins.
pub fn is_archive_due(policy: &SleepPolicy, slept: Sleep, due: Timestamp) -> bool {
    let Some(after) = policy.archive_after else {
        return false;
    };
    let first = slept.since.plus(after);
    first == due || (first < due && is_before_warning(policy, slept, due))
}

fn is_before_warning(policy: &SleepPolicy, slept: Sleep, at: Timestamp) -> bool {
    let warning = policy.delete_after.map(warned_after);
    warning.is_none_or(|after| at < slept.since.plus(after))
}

/// When the clock looks next at a sandbox that is `archived` now and was `before`: a warning or
/// deletion that was next stays where it is.
pub fn due_archived(before: &Sandbox, archived: &Sandbox) -> Option<Timestamp> {
    let (SandboxState::Archiving { sleep, .. }, Some(due)) = (&before.state, before.sleep_due)
    else {
        return next_rung(archived, before.sleep_due).map(|(_, at)| at);
    };
    match is_archive_due(&before.sleep, *sleep, due) {
        true => next_rung(archived, Some(due)).map(|(_, at)| at),
        false => Some(due),
    }
}

/// When the clock looks next at a sandbox that is hibernated (again) at `now` and was to be looked
/// at when `due` says: not at once for the archive.
pub fn due_again(sandbox: &Sandbox, due: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let SandboxState::Hibernated { sleep, .. } = &sandbox.state else {
        return due;
    };
    let later = due.filter(|due| *due > now);
    let again = now.plus(ARCHIVE_AGAIN);
    if is_archive_due(&sandbox.sleep, *sleep, again) {
        return Some(later.map_or(again, |later| later.min(again)));
    }
    later.or_else(|| next_rung(sandbox, due).map(|(_, at)| at))
}

/// How long after falling asleep its deletion is announced, when it comes after `delete_after`.
pub fn warned_after(delete_after: Duration) -> Duration {
    delete_after - (delete_after / 10).min(WARNING_MAX)
}

/// What holds for a new sandbox: what its request says, else its workspace, else the server.
/// `archive`: whether the server has one; what a workspace says about it counts only then, since a
/// request that does not mention it must not fail because the server lost its archive.
pub fn policy(
    server: SleepPolicy,
    workspace: SleepChanges,
    request: SleepChanges,
    archive: bool,
) -> SleepPolicy {
    request.over(workspace_policy(server, workspace, archive))
}

/// What holds for sandboxes of a workspace whose request says nothing.
pub fn workspace_policy(
    server: SleepPolicy,
    mut workspace: SleepChanges,
    archive: bool,
) -> SleepPolicy {
    if !archive {
        workspace.archive_after = None;
    }
    workspace.over(server)
}

/// Checks what a caller said of a policy, and that alone.
pub fn validate_changes(changes: SleepChanges, archive: bool) -> Result<(), Fault> {
    validate(&changes.over(SleepPolicy::NEVER), archive)
}

/// Checks a policy that a caller gave. `archive`: whether the server has one.
pub fn validate(policy: &SleepPolicy, archive: bool) -> Result<(), Fault> {
    let SleepPolicy {
        pause_after,
        hibernate_after,
        archive_after,
        delete_after,
        fallback: _,
        checkpoint_every,
    } = policy;
    for (field, after) in [
        ("sleep.pause_after", pause_after),
        ("sleep.hibernate_after", hibernate_after),
        ("sleep.archive_after", archive_after),
        ("sleep.delete_after", delete_after),
        ("sleep.checkpoint_every", checkpoint_every),
    ] {
        if after.is_some_and(|after| after > RUNG_MAX) {
            return Err(Fault::invalid(field, "must be at most ten years"));
        }
    }
    if archive_after.is_some() && !archive {
        return Err(Fault::new(
            Code::Unsupported,
            "archiving is not supported: this server has no archive",
        )
        .with_field("sleep.archive_after"));
    }
    Ok(())
}

/// What is on the machine of a sandbox after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its processes are there.
    pub runs: bool,
    /// The snapshot that its state names is complete.
    pub snapshot: bool,
    /// The one before that is.
    pub last_snapshot: bool,
}

/// What a start of the server makes of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It runs (or stands still): its owner goes on with it.
    Adopt,
    /// It goes on as before; what was begun is removed.
    Undo,
    /// It sleeps in the snapshot that its state names.
    Asleep,
    /// It sleeps in the snapshot before: what it did since is lost.
    FallBack,
    /// Its snapshot is gone: it sleeps, and waking it will fail until that is repaired.
    Broken,
    /// What is left of it is removed.
    Remove,
}

/// What a start makes of a sandbox that was in this state; `saved`: it is saved now and then while
/// it runs, to come back from that.
pub const fn after_crash(state: &SandboxState, saved: bool, found: Found) -> Verdict {
    match state {
        SandboxState::Creating | SandboxState::Deleting { .. } => Verdict::Remove,
        SandboxState::Running { .. } | SandboxState::Paused { .. } => {
            match (found.runs, saved && found.last_snapshot) {
                (true, _) => Verdict::Adopt,
                (false, true) => Verdict::FallBack,
                (false, false) => Verdict::Remove,
            }
        }
        SandboxState::Hibernating { .. } => {
            match (found.runs, found.snapshot, found.last_snapshot) {
                (true, _, _) => Verdict::Undo,
                (false, true, _) => Verdict::Asleep,
                (false, false, true) => Verdict::FallBack,
                (false, false, false) => Verdict::Remove,
            }
        }
        SandboxState::Waking { .. } => match (found.runs, found.snapshot) {
            (true, _) => Verdict::Adopt,
            (false, true) => Verdict::Asleep,
            (false, false) => Verdict::Broken,
        },
        SandboxState::Hibernated { .. } | SandboxState::Archiving { .. } => match found.snapshot {
            true => Verdict::Asleep,
            false => Verdict::Broken,
        },
        SandboxState::Archived { .. } => Verdict::Asleep,
    }
}

#[cfg(test)]
mod tests;
