//! Metering: from a sandbox's log to spans of time on the rungs of the ladder.
//!
//! Spans end at transitions, at the ends of the runs that use the sandbox, and at fixed times of
//! the clock. Where they are cut depends on nothing but these, so that whoever cuts again after a
//! crash gets the same spans, which have the same keys.

use woodfrog_types::usage::{Quantity, Rung};
use woodfrog_types::{RunId, SandboxId, Timestamp};

/// A sandbox that runs is booked at least so often, by the clock: milliseconds.
pub const RUNNING_SLICE: i64 = 5 * 60_000;
/// One that sleeps. A month ends at the end of a slice.
pub const ASLEEP_SLICE: i64 = 24 * 3_600_000;
/// How long after the end of a slice it is booked, so that transitions before that end are known.
pub const GRACE: i64 = 2_000;
/// Spans of one step; what is left is for the next one.
pub const SPANS_MAX: usize = 500;

/// What a sandbox was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    pub memory_mib: u64,
    pub disk_mib: u64,
}

/// Where a sandbox is, for the meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It never was on a rung.
    Before,
    /// Booked up to `since`.
    On {
        rung: Rung,
        since: Timestamp,
    },
    Gone,
}

/// Time on one rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub rung: Rung,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// What an entry of a sandbox's log means to the meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    To(Rung),
    Away,
    Stay,
}

/// By the kinds of the lifecycle. What is being saved or brought back is on the rung that it was.
fn meaning(kind: &str) -> Move {
    match kind {
        "sandbox.created" | "sandbox.woken" => Move::To(Rung::Running),
        "sandbox.paused" => Move::To(Rung::Paused),
        // What was lost while it was being saved is asleep in its last snapshot.
        "sandbox.hibernated" | "sandbox.rolled_back" => Move::To(Rung::Hibernated),
        "sandbox.archived" => Move::To(Rung::Archived),
        "sandbox.deleted"
        | "sandbox.expired"
        | "sandbox.exited"
        | "sandbox.lost"
        | "sandbox.create_failed" => Move::Away,
        _ => Move::Stay,
    }
}

/// The phase after an entry of the log, and the spans that it ends. A clock that was set back ends
/// nothing before it began.
pub fn follow(phase: Phase, kind: &str, at: Timestamp) -> (Phase, Vec<Span>) {
    let to = match meaning(kind) {
        Move::Stay => return (phase, Vec::new()),
        Move::To(rung) => Some(rung),
        Move::Away => None,
    };
    let (at, spans) = match phase {
        Phase::On { rung, since } => (at.max(since), cut(rung, since, at)),
        Phase::Before | Phase::Gone => (at, Vec::new()),
    };
    let next = match to {
        Some(rung) => Phase::On { rung, since: at },
        None => Phase::Gone,
    };
    (next, spans)
}

/// The slices that are over at `now`, and the phase once they are booked. At most [`SPANS_MAX`].
pub fn tick(phase: Phase, now: Timestamp) -> (Phase, Vec<Span>) {
    let Phase::On { rung, since } = phase else {
        return (phase, Vec::new());
    };
    let sure = now.as_millis().saturating_sub(GRACE);
    let end = sure.div_euclid(slice(rung)).saturating_mul(slice(rung));
    settle(rung, since, Timestamp::from_millis(end))
}

/// As [`tick`], up to `at`: a run that used it ended there.
pub fn settle(rung: Rung, since: Timestamp, at: Timestamp) -> (Phase, Vec<Span>) {
    let mut spans = cut(rung, since, at);
    spans.truncate(SPANS_MAX);
    let since = spans.last().map_or(since, |last| last.to);
    (Phase::On { rung, since }, spans)
}

const fn slice(rung: Rung) -> i64 {
    match rung {
        Rung::Running => RUNNING_SLICE,
        Rung::Paused | Rung::Hibernated | Rung::Archived => ASLEEP_SLICE,
    }
}

/// `from` to `to`, cut at the slices of the clock. Nothing if the end is not after the beginning.
fn cut(rung: Rung, from: Timestamp, to: Timestamp) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut from = from;
    while from < to {
        let whole = from.as_millis().div_euclid(slice(rung)) + 1;
        let end = Timestamp::from_millis(whole.saturating_mul(slice(rung))).min(to);
        spans.push(Span {
            rung,
            from,
            to: end,
        });
        from = end;
    }
    spans
}

/// A run's use of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub run: RunId,
    pub from: Timestamp,
    /// `None` while it goes on.
    pub to: Option<Timestamp>,
}

/// A span in parts, each with the run that it is charged to: of those that overlap, the one that
/// began first (then by id).
pub fn attribute(span: Span, uses: &[Use]) -> Vec<(Span, Option<RunId>)> {
    let mut edges: Vec<Timestamp> = uses
        .iter()
        .flat_map(|one| [Some(one.from), one.to])
        .flatten()
        .filter(|at| span.from < *at && *at < span.to)
        .chain([span.from, span.to])
        .collect();
    edges.sort_unstable();
    edges.dedup();
    let mut parts: Vec<(Span, Option<RunId>)> = Vec::with_capacity(edges.len());
    for pair in edges.windows(2) {
        let covers = |one: &&Use| one.from <= pair[0] && one.to.is_none_or(|to| to >= pair[1]);
        let first = uses
            .iter()
            .filter(covers)
            .min_by_key(|one| (one.from, &one.run));
        let run = first.map(|one| one.run.clone());
        match parts.last_mut() {
            Some((before, same)) if *same == run => before.to = pair[1],
            _ => parts.push((
                Span {
                    rung: span.rung,
                    from: pair[0],
                    to: pair[1],
                },
                run,
            )),
        }
    }
    parts
}

/// What a span of a sandbox of this size uses. What sleeps uses no CPU, and memory only while it is
/// still in it.
pub fn quantity(span: Span, size: Size) -> Quantity {
    let millis = u64::try_from(span.to.since(span.from).as_millis()).unwrap_or(u64::MAX);
    let (cpu, memory) = match span.rung {
        Rung::Running => (size.cpu_millis, size.memory_mib),
        Rung::Paused => (0, size.memory_mib),
        Rung::Hibernated | Rung::Archived => (0, 0),
    };
    Quantity::Compute {
        rung: span.rung,
        cpu_millis_ms: cpu.saturating_mul(millis),
        memory_mib_ms: memory.saturating_mul(millis),
        disk_mib_ms: size.disk_mib.saturating_mul(millis),
    }
}

/// The key of a span: one sandbox's spans never begin at the same time.
pub fn key(sandbox: &SandboxId, span: Span) -> String {
    format!("compute/{sandbox}/{}", span.from.as_millis())
}

#[cfg(test)]
mod tests;
