use std::collections::BTreeMap;

use proptest::prelude::*;
use woodfrog_types::run::{ErrorCategory, RunLimits, RunPosition, RunSetup, RunStats, Work};
use woodfrog_types::usage::{Cost, Tokens};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{RunId, WorkspaceId};

use super::*;

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(0).plus(Duration::from_secs(seconds))
}

pub(super) fn run() -> Run {
    Run {
        id: RunId::generate(),
        workspace: WorkspaceId::generate(),
        thread: "t".to_owned(),
        created_by: UserId::operator(),
        work: Work::Command,
        input: Some("true".to_owned()),
        input_hash: String::new(),
        template: "base".to_owned(),
        sandbox: None,
        made_sandbox: false,
        session: None,
        process: None,
        state: RunState::Booting(Boot::Queued),
        held_for: Duration::ZERO,
        priority: 0,
        limits: RunLimits {
            wall: Duration::from_secs(120),
            idle: None,
            tokens: None,
            cost: None,
        },
        setup: RunSetup::default(),
        metadata: BTreeMap::new(),
        idempotency_key: None,
        generation: 1,
        created_at: at(0),
        heartbeat_at: at(0),
        tokens: Tokens::default(),
        cost: Cost::default(),
        position: RunPosition::default(),
        last_event: 0,
        stats: RunStats::default(),
        result: None,
        result_hash: None,
        trace_id: None,
    }
}

fn failed() -> Outcome {
    Outcome::Failed(due_error(Due::Wall, &run()))
}

fn canceled() -> Outcome {
    Outcome::Canceled {
        by: None,
        reason: "asked".to_owned(),
    }
}

/// A run in that state.
fn in_state(status: Status) -> Run {
    let running = || step(&run(), Step::Run, at(1)).unwrap();
    match status {
        Status::Booting => run(),
        Status::Running => running(),
        Status::Succeeded => step(&running(), Step::End(Outcome::Succeeded), at(2)).unwrap(),
        Status::Failed => step(&running(), Step::End(failed()), at(2)).unwrap(),
        Status::Canceled => step(&running(), Step::End(canceled()), at(2)).unwrap(),
    }
}

/// The step that would lead there.
fn towards(status: Status) -> Step {
    match status {
        Status::Booting => Step::Start,
        Status::Running => Step::Run,
        Status::Succeeded => Step::End(Outcome::Succeeded),
        Status::Failed => Step::End(failed()),
        Status::Canceled => Step::End(canceled()),
    }
}

#[test]
fn all_twenty_five_transitions_are_decided() {
    use Status::{Booting, Canceled, Failed, Running, Succeeded};
    let allowed = [
        (Booting, Running),
        (Booting, Failed),
        (Booting, Canceled),
        (Running, Succeeded),
        (Running, Failed),
        (Running, Canceled),
    ];
    let mut seen = 0;
    for from in Status::ALL {
        for to in Status::ALL {
            seen += 1;
            let ok = allowed.contains(&(from, to));
            assert_eq!(check(from, to).is_ok(), ok, "{from:?} -> {to:?}");
            // From queued to starting is a step within `booting`, and no transition.
            if (from, to) == (Booting, Booting) {
                continue;
            }
            let before = in_state(from);
            match step(&before, towards(to), at(9)) {
                Ok(after) => {
                    assert!(ok, "{from:?} -> {to:?}");
                    assert_eq!(Status::of(&after.state), to);
                    assert_eq!(after.generation, before.generation + 1);
                }
                Err(refused) => {
                    assert!(!ok, "{from:?} -> {to:?}");
                    assert_eq!(refused, InvalidTransition { from, to });
                }
            }
        }
    }
    assert_eq!(seen, 25);
}

#[test]
fn refusals_have_the_contracts_words() {
    let text = |from, to| check(from, to).unwrap_err().to_string();
    for terminal in [Status::Succeeded, Status::Failed, Status::Canceled] {
        for to in Status::ALL {
            let expected = format!(
                "Cannot transition from terminal state '{}'",
                terminal.as_str()
            );
            assert_eq!(text(terminal, to), expected);
        }
    }
    assert_eq!(
        text(Status::Booting, Status::Succeeded),
        "Invalid status transition from 'booting' to 'succeeded'. \
         Allowed transitions: running, failed, canceled"
    );
    assert_eq!(
        text(Status::Running, Status::Booting),
        "Invalid status transition from 'running' to 'booting'. \
         Allowed transitions: succeeded, failed, canceled"
    );
}

#[test]
fn time_on_hold_does_not_count() {
    let running = in_state(Status::Running);
    let wall = deadline(&running, BOOT_MAX);
    assert_eq!(wall, Some((at(121), Due::Wall)));
    let hold = Step::Hold {
        reason: "budget".to_owned(),
    };
    let held = step(&running, hold.clone(), at(31)).unwrap();
    assert_eq!(deadline(&held, BOOT_MAX), None);
    assert_eq!(worked(&held, at(5000)), Duration::from_secs(30));
    assert!(step(&held, hold, at(32)).is_err(), "it is held already");
    let on = step(&held, Step::Release, at(1031)).unwrap();
    assert_eq!(deadline(&on, BOOT_MAX), Some((at(1121), Due::Wall)));
    assert_eq!(worked(&on, at(1041)), Duration::from_secs(40));
    assert!(step(&on, Step::Release, at(1041)).is_err());
    // One that ends on hold.
    let over = step(&held, Step::End(canceled()), at(1031)).unwrap();
    assert_eq!(worked(&over, at(9000)), Duration::from_secs(30));
}

/// A tool that is silent for twenty minutes, whose process lives: it goes on. Once the process
/// gives no sign any more, it is due.
#[test]
fn silence_is_not_death() {
    let mut running = in_state(Status::Running);
    running.limits.wall = Duration::from_secs(3600);
    running.limits.idle = Some(Duration::from_secs(60));
    for second in (1..1200).step_by(30) {
        running.heartbeat_at = at(second);
        let due = deadline(&running, BOOT_MAX);
        assert_eq!(due, Some((at(second + 60), Due::Idle)));
    }
    running.limits.wall = Duration::from_secs(10);
    assert_eq!(deadline(&running, BOOT_MAX), Some((at(11), Due::Wall)));
}

#[test]
fn booting_has_a_deadline_once_it_began() {
    assert_eq!(deadline(&run(), BOOT_MAX), None, "it waits for its turn");
    let starting = step(&run(), Step::Start, at(50)).unwrap();
    assert_eq!(deadline(&starting, BOOT_MAX), Some((at(350), Due::Booting)));
    assert!(step(&starting, Step::Start, at(51)).is_err());
    let error = due_error(Due::Booting, &starting);
    assert_eq!(error.code, "stuck_booting");
    assert_eq!(error.category, ErrorCategory::Timeout);
    assert_eq!(deadline(&in_state(Status::Failed), BOOT_MAX), None);
}

#[test]
fn limits_are_inclusive() {
    let mut one = run();
    assert_eq!(over_limit(&one), None);
    one.limits.tokens = Some(10);
    one.limits.cost = Some(5);
    one.tokens.input = 10;
    one.cost.model = 5;
    assert_eq!(over_limit(&one), None);
    one.cost.compute = 1;
    assert_eq!(over_limit(&one).unwrap().code, "cost_limit");
    one.tokens.output = 1;
    assert_eq!(over_limit(&one).unwrap().code, "token_limit");
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Start),
        Just(Step::Run),
        Just(Step::Hold {
            reason: "r".to_owned()
        }),
        Just(Step::Release),
        Just(Step::End(Outcome::Succeeded)),
        Just(Step::End(failed())),
        Just(Step::End(canceled())),
    ]
}

proptest! {
    /// Whatever happens in whatever order: an end stays, generations rise by one, time at work
    /// never exceeds the time since it ran, and neither ever runs backwards.
    #[test]
    fn steps_keep_the_promises(steps in prop::collection::vec((any_step(), 0..100_u64), 0..30)) {
        let (mut one, mut now) = (run(), 0);
        for (next, later) in steps {
            now += later;
            let before = one.clone();
            match step(&one, next, at(now)) {
                Ok(after) => {
                    prop_assert!(!before.state.is_terminal());
                    prop_assert_eq!(after.generation, before.generation + 1);
                    let (from, to) = (Status::of(&before.state), Status::of(&after.state));
                    prop_assert!(from == to || check(from, to).is_ok());
                    prop_assert!(after.held_for >= before.held_for);
                    prop_assert!(worked(&after, at(now)) >= worked(&before, at(now)));
                    one = after;
                }
                Err(_) => prop_assert_eq!(&one, &before),
            }
            prop_assert!(worked(&one, at(now)) <= Duration::from_secs(now));
        }
    }
}
