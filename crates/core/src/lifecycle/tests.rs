use proptest::prelude::*;
use woodfrog_types::sandbox::{OnTimeout, Resources};
use woodfrog_types::{BuildId, SandboxId, TemplateId, WorkspaceId};

use super::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn sandbox(state: SandboxState) -> Sandbox {
    Sandbox {
        id: SandboxId::generate(),
        workspace: WorkspaceId::default_workspace(),
        template: TemplateId::generate(),
        template_alias: Some("base".into()),
        build: BuildId::generate(),
        state,
        generation: 7,
        created_at: at(1_000),
        started_at: at(1_000),
        deadline: Some(at(61_000)),
        timeout: Some(Duration::from_secs(60)),
        on_timeout: OnTimeout::Kill,
        auto_resume: false,
        resources: Resources::default(),
        env: BTreeMap::new(),
        metadata: BTreeMap::new(),
        network: NetworkSpec::default(),
        secure: true,
    }
}

fn running() -> SandboxState {
    SandboxState::Running {
        instance: InstanceState("{}".into()),
    }
}

fn deleting_state() -> SandboxState {
    SandboxState::Deleting {
        reason: EndReason::Requested,
    }
}

fn states() -> Vec<SandboxState> {
    vec![SandboxState::Creating, running(), deleting_state()]
}

fn events() -> Vec<Event> {
    vec![
        Event::Ready {
            instance: InstanceState("{}".into()),
        },
        Event::SetDeadline {
            deadline: Some(at(90_000)),
        },
        Event::ExtendDeadline {
            deadline: at(90_000),
        },
        Event::DeadlinePassed,
        Event::SetNetwork {
            network: NetworkSpec {
                internet: false,
                ..NetworkSpec::default()
            },
        },
        Event::Delete {
            reason: EndReason::Requested,
        },
        Event::Destroyed,
    ]
}

/// What a step leads to, in one word.
fn outcome(state: &SandboxState, event: Event, now: Timestamp) -> &'static str {
    match step(&sandbox(state.clone()), event, now) {
        Err(_) => "denied",
        Ok(step) => match step.next {
            Next::Remove => "gone",
            Next::Unchanged => "unchanged",
            Next::Store(next) => next.state.as_str(),
        },
    }
}

#[test]
fn every_state_answers_every_event() {
    // Rows: creating, running, deleting. Columns: as `events()` has them.
    let table = [
        [
            "running", "denied", "denied", "denied", "denied", "deleting", "gone",
        ],
        [
            "denied",
            "running",
            "running",
            "unchanged",
            "running",
            "deleting",
            "denied",
        ],
        [
            "denied",
            "denied",
            "denied",
            "denied",
            "denied",
            "unchanged",
            "gone",
        ],
    ];
    for (state, row) in states().iter().zip(table) {
        for (event, expected) in events().into_iter().zip(row) {
            let name = event.as_str();
            assert_eq!(
                outcome(state, event, at(2_000)),
                expected,
                "{} × {name}",
                state.as_str()
            );
        }
    }
}

#[test]
fn life_counts_from_the_start() {
    let event = Event::Ready {
        instance: InstanceState("{}".into()),
    };
    let step = step(&sandbox(SandboxState::Creating), event, at(5_000)).unwrap();
    let Next::Store(next) = step.next else {
        panic!("not stored")
    };
    assert_eq!(next.deadline, Some(at(65_000)));
    assert_eq!(next.started_at, at(5_000));
    assert_eq!(next.generation, 8);
    assert_eq!(step.effects, [Effect::Publish, Effect::RearmDeadline]);
}

#[test]
fn extending_never_shortens_and_never_ends_an_endless_life() {
    let mut running = sandbox(running());
    let extend = |sandbox: &Sandbox, to| {
        step(
            sandbox,
            Event::ExtendDeadline { deadline: at(to) },
            at(2_000),
        )
        .unwrap()
        .next
    };
    assert_eq!(extend(&running, 30_000), Next::Unchanged);
    assert!(
        matches!(extend(&running, 70_000), Next::Store(next) if next.deadline == Some(at(70_000)))
    );
    running.deadline = None;
    assert_eq!(extend(&running, 70_000), Next::Unchanged);
}

#[test]
fn a_deadline_in_the_past_ends_it() {
    for deadline in [1_999, 2_000] {
        let event = Event::SetDeadline {
            deadline: Some(at(deadline)),
        };
        let step = step(&sandbox(running()), event, at(2_000)).unwrap();
        assert_eq!(step.effects, [Effect::Withdraw, Effect::Destroy]);
        assert_eq!(step.log[0].kind, "sandbox.expired");
    }
}

#[test]
fn expiry_waits_for_its_time() {
    assert_eq!(
        outcome(&running(), Event::DeadlinePassed, at(60_999)),
        "unchanged"
    );
    assert_eq!(
        outcome(&running(), Event::DeadlinePassed, at(61_000)),
        "deleting"
    );
    let mut endless = sandbox(running());
    endless.deadline = None;
    let step = step(&endless, Event::DeadlinePassed, at(i64::MAX)).unwrap();
    assert_eq!(step.next, Next::Unchanged);
}

#[test]
fn the_same_rules_again_are_no_change() {
    let event = Event::SetNetwork {
        network: NetworkSpec::default(),
    };
    assert_eq!(outcome(&running(), event, at(2_000)), "unchanged");
}

proptest! {
    /// Whatever happens in whatever order: generations rise by one, a deleting sandbox never runs
    /// again, identity never changes, and a running sandbox's deadline lies ahead.
    #[test]
    fn any_history_keeps_the_promises(choices in prop::collection::vec((0_usize..7, 0_i64..100_000), 0..40)) {
        let mut present = sandbox(SandboxState::Creating);
        let mut now = 1_000;
        for (choice, wait) in choices {
            now += wait;
            let event = match events().swap_remove(choice) {
                Event::SetDeadline { .. } => Event::SetDeadline { deadline: Some(at(now + wait - 50_000)) },
                Event::ExtendDeadline { .. } => Event::ExtendDeadline { deadline: at(now + wait + 1) },
                other => other,
            };
            let Ok(step) = step(&present, event, at(now)) else { continue };
            match step.next {
                Next::Unchanged => prop_assert!(step.effects.is_empty() && step.log.is_empty()),
                Next::Remove => return Ok(()),
                Next::Store(next) => {
                    prop_assert_eq!(next.generation, present.generation + 1);
                    prop_assert_eq!(&next.id, &present.id);
                    prop_assert_eq!(&next.workspace, &present.workspace);
                    let was_deleting = matches!(present.state, SandboxState::Deleting { .. });
                    prop_assert!(!was_deleting);
                    if step.effects.contains(&Effect::RearmDeadline) {
                        prop_assert!(next.deadline.is_none_or(|deadline| deadline > at(now)));
                    }
                    present = *next;
                }
            }
        }
    }
}
