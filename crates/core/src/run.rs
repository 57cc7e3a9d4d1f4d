//! What a run may do next: its states, its deadlines, and why it failed.
//!
//! Every change makes the next version of the record; the store takes it if nobody was first.

use std::fmt;
use std::time::Duration;

use woodfrog_types::Timestamp;
use woodfrog_types::run::{Boot, Held, Outcome, Run, RunError, RunState};

mod category;
pub mod convert;
pub mod event;
pub mod queue;
pub mod sample;
pub mod text;
pub mod trace;

pub use category::categorize;

/// The states by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    Booting,
    Running,
    Succeeded,
    Failed,
    Canceled,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Booting,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
    ];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Which one a state is.
    pub const fn of(state: &RunState) -> Self {
        match state {
            RunState::Booting(_) => Self::Booting,
            RunState::Running { .. } => Self::Running,
            RunState::Ended { outcome, .. } => match outcome {
                Outcome::Succeeded => Self::Succeeded,
                Outcome::Failed(_) => Self::Failed,
                Outcome::Canceled { .. } => Self::Canceled,
            },
        }
    }

    /// What may come next; nothing after an end.
    pub const fn next(self) -> &'static [Self] {
        match self {
            Self::Booting => &[Self::Running, Self::Failed, Self::Canceled],
            Self::Running => &[Self::Succeeded, Self::Failed, Self::Canceled],
            Self::Succeeded | Self::Failed | Self::Canceled => &[],
        }
    }
}

/// A change that a run's state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidTransition {
    pub from: Status,
    pub to: Status,
}

impl fmt::Display for InvalidTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from.as_str(), self.to.as_str());
        if self.from.next().is_empty() {
            return write!(f, "Cannot transition from terminal state '{from}'");
        }
        let allowed: Vec<_> = self.from.next().iter().map(|it| it.as_str()).collect();
        let allowed = allowed.join(", ");
        write!(
            f,
            "Invalid status transition from '{from}' to '{to}'. Allowed transitions: {allowed}"
        )
    }
}

impl std::error::Error for InvalidTransition {}

/// Whether that state may follow. A state does not follow itself.
pub fn check(from: Status, to: Status) -> Result<(), InvalidTransition> {
    match from.next().contains(&to) {
        true => Ok(()),
        false => Err(InvalidTransition { from, to }),
    }
}

/// What happens to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Its turn has come: its sandbox and process are being started.
    Start,
    /// Its process runs.
    Run,
    /// It sleeps until somebody lets it go on.
    Hold { reason: String },
    /// It goes on.
    Release,
    /// It is over.
    End(Outcome),
}

/// The record after a step, one generation on.
pub fn step(run: &Run, step: Step, now: Timestamp) -> Result<Run, InvalidTransition> {
    let from = Status::of(&run.state);
    let refused = |to| InvalidTransition { from, to };
    let mut held_for = run.held_for;
    let state = match (step, &run.state) {
        (Step::Start, RunState::Booting(Boot::Queued)) => {
            RunState::Booting(Boot::Starting { since: now })
        }
        (Step::Start, _) => return Err(refused(Status::Booting)),
        (Step::Run, RunState::Booting(_)) => RunState::Running {
            since: now,
            held: None,
        },
        (Step::Run, _) => return Err(refused(Status::Running)),
        (Step::Hold { reason }, RunState::Running { since, held: None }) => RunState::Running {
            since: *since,
            held: Some(Held { since: now, reason }),
        },
        (
            Step::Release,
            RunState::Running {
                since,
                held: Some(held),
            },
        ) => {
            held_for += now.since(held.since);
            RunState::Running {
                since: *since,
                held: None,
            }
        }
        (Step::Hold { .. } | Step::Release, _) => return Err(refused(Status::Running)),
        (Step::End(outcome), RunState::Booting(_)) => {
            let to = outcome_status(&outcome);
            check(from, to)?;
            ended(None, now, outcome)
        }
        (Step::End(outcome), RunState::Running { since, held }) => {
            check(from, outcome_status(&outcome))?;
            if let Some(held) = held {
                held_for += now.since(held.since);
            }
            ended(Some(*since), now, outcome)
        }
        (Step::End(outcome), RunState::Ended { .. }) => {
            return Err(refused(outcome_status(&outcome)));
        }
    };
    Ok(Run {
        state,
        held_for,
        generation: run.generation + 1,
        ..run.clone()
    })
}

fn outcome_status(outcome: &Outcome) -> Status {
    match outcome {
        Outcome::Succeeded => Status::Succeeded,
        Outcome::Failed(_) => Status::Failed,
        Outcome::Canceled { .. } => Status::Canceled,
    }
}

fn ended(since: Option<Timestamp>, at: Timestamp, outcome: Outcome) -> RunState {
    RunState::Ended { since, at, outcome }
}

/// How long the run's process has been at work at `now`, or was in all; time on hold does not
/// count.
pub fn worked(run: &Run, now: Timestamp) -> Duration {
    let (since, until) = match &run.state {
        RunState::Booting(_) => return Duration::ZERO,
        RunState::Running { since, held } => (*since, held.as_ref().map_or(now, |held| held.since)),
        RunState::Ended { since, at, .. } => match since {
            Some(since) => (*since, *at),
            None => return Duration::ZERO,
        },
    };
    until.since(since).saturating_sub(run.held_for)
}

/// How long a run may take to get its sandbox and process.
pub const BOOT_MAX: Duration = Duration::from_secs(300);

/// Why a run that goes on must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Its time is up.
    Wall,
    /// Its process has given no sign of life for too long.
    Idle,
    /// It did not get to its sandbox and process in time.
    Booting,
}

/// When a run must end if nothing else happens, and why. `None` while it waits for its turn or is
/// on hold.
pub fn deadline(run: &Run, boot_max: Duration) -> Option<(Timestamp, Due)> {
    match &run.state {
        RunState::Booting(Boot::Starting { since }) => Some((since.plus(boot_max), Due::Booting)),
        RunState::Running { since, held: None } => {
            let wall = since.plus(run.held_for).plus(run.limits.wall);
            let idle = run.limits.idle.map(|idle| {
                // Waking is a sign of life too.
                run.heartbeat_at.max(*since).plus(idle)
            });
            match idle {
                Some(idle) if idle < wall => Some((idle, Due::Idle)),
                _ => Some((wall, Due::Wall)),
            }
        }
        RunState::Booting(Boot::Queued)
        | RunState::Running { held: Some(_), .. }
        | RunState::Ended { .. } => None,
    }
}

/// What a run that is due failed of.
pub fn due_error(due: Due, run: &Run) -> RunError {
    let (code, message) = match due {
        Due::Wall => {
            let limit = run.limits.wall.as_secs_f64();
            ("timeout", format!("the run took longer than {limit} s"))
        }
        Due::Idle => {
            let limit = run.limits.idle.unwrap_or_default().as_secs_f64();
            let text = format!("its process gave no sign of life for {limit} s");
            ("idle_timeout", text)
        }
        Due::Booting => {
            let text = "its sandbox or process was not up in time".to_owned();
            ("stuck_booting", text)
        }
    };
    RunError {
        category: woodfrog_types::run::ErrorCategory::Timeout,
        code: code.to_owned(),
        message,
        details: None,
    }
}

/// Which of its own limits a run has passed, if any: what it failed of.
pub fn over_limit(run: &Run) -> Option<RunError> {
    let over = |limit: Option<u64>, used: u64| limit.filter(|limit| used > *limit);
    let error = |code: &str, message: String| RunError {
        category: woodfrog_types::run::ErrorCategory::Api,
        code: code.to_owned(),
        message,
        details: None,
    };
    if let Some(limit) = over(run.limits.tokens, run.tokens.total()) {
        let used = run.tokens.total();
        let text = format!("the run used {used} tokens, and may use {limit}");
        return Some(error("token_limit", text));
    }
    if let Some(limit) = over(run.limits.cost, run.cost.total()) {
        let used = run.cost.total();
        let text = format!("the run cost {used} micro-dollars, and may cost {limit}");
        return Some(error("cost_limit", text));
    }
    None
}

#[cfg(test)]
mod tests;
