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
        sleep: woodfrog_types::sleep::SleepPolicy::NEVER,
        sleep_due: None,
        last_snapshot: None,
        resources: Resources::default(),
        env: BTreeMap::new(),
        metadata: BTreeMap::new(),
        network: NetworkSpec::default(),
        secure: true,
        volumes: Vec::new(),
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

fn slept(cause: SleepCause) -> Sleep {
    Sleep {
        since: at(1_500),
        cause,
    }
}

fn paused(cause: SleepCause) -> SandboxState {
    SandboxState::Paused {
        instance: InstanceState("{}".into()),
        sleep: slept(cause),
    }
}

fn hibernating(cause: SleepCause) -> SandboxState {
    SandboxState::Hibernating {
        instance: InstanceState("{}".into()),
        snapshot: SnapshotId::generate(),
        content: SnapshotContent::Memory,
        sleep: slept(cause),
    }
}

fn hibernated(cause: SleepCause) -> SandboxState {
    SandboxState::Hibernated {
        snapshot: SnapshotId::generate(),
        content: SnapshotContent::Memory,
        sleep: slept(cause),
    }
}

fn waking(cause: SleepCause) -> SandboxState {
    SandboxState::Waking {
        snapshot: SnapshotId::generate(),
        content: SnapshotContent::Memory,
        sleep: slept(cause),
    }
}

fn archiving() -> SandboxState {
    SandboxState::Archiving {
        snapshot: SnapshotId::generate(),
        content: SnapshotContent::Memory,
        sleep: slept(SleepCause::Idle),
    }
}

fn archived() -> SandboxState {
    SandboxState::Archived {
        snapshot: SnapshotId::generate(),
        content: SnapshotContent::Memory,
        sleep: slept(SleepCause::Idle),
    }
}

fn states() -> Vec<SandboxState> {
    vec![
        SandboxState::Creating,
        running(),
        paused(SleepCause::Idle),
        hibernating(SleepCause::Idle),
        hibernated(SleepCause::Idle),
        waking(SleepCause::Idle),
        archiving(),
        archived(),
        deleting_state(),
    ]
}

fn policy() -> SleepPolicy {
    let secs = |secs| Some(Duration::from_secs(secs));
    SleepPolicy {
        pause_after: secs(10),
        hibernate_after: secs(20),
        archive_after: secs(100),
        delete_after: secs(1_000),
        ..SleepPolicy::NEVER
    }
}

/// Every event, and what it leads to from each of [`states`]: `.` refused, `=` unchanged, else
/// the first letter of the state, in capitals for those of a change under way, `-` gone.
fn events() -> Vec<(Event, &'static str)> {
    let instance = InstanceState("{}".into());
    let snapshot = SnapshotId::generate();
    let content = SnapshotContent::Memory;
    let cause = SleepCause::Requested;
    let rearm = Rearm::Own;
    let reason = "why".to_owned();
    let ready = Event::Ready {
        instance: instance.clone(),
    };
    let deadline = at(90_000);
    let network = NetworkSpec {
        internet: false,
        ..NetworkSpec::default()
    };
    let woken = Event::Woken {
        instance,
        content,
        rearm,
    };
    let hibernate = Event::Hibernate {
        snapshot: snapshot.clone(),
        content,
        cause,
    };
    let failed = Event::HibernateFailed {
        paused: None,
        reason: reason.clone(),
    };
    let deadline_at = Some(deadline);
    let end = EndReason::Requested;
    let on_timeout = OnTimeout::Pause { memory: true };
    vec![
        (ready, "r........"),
        (
            Event::SetDeadline {
                deadline: deadline_at,
            },
            ".rp.h..a.",
        ),
        (Event::ExtendDeadline { deadline }, ".rp.h..a."),
        (Event::SetOnTimeout { on_timeout }, ".rp.h..a."),
        (Event::SetSleep { policy: policy() }, ".rp.h..a."),
        (Event::Due, ".==.=..=."),
        (Event::SetNetwork { network }, ".rp.h..a."),
        (Event::Pause { cause }, ".p=.=..=."),
        (Event::Recause { cause }, "..p.h..a."),
        (Event::Thawed { rearm }, ".=r......"),
        (hibernate, ".HH......"),
        (Event::Hibernated, "...h....."),
        (failed, "...r....."),
        (
            Event::Saved {
                snapshot: snapshot.clone(),
            },
            ".r.......",
        ),
        (
            Event::FellBack {
                snapshot,
                content,
                taken_at: at(1_000),
            },
            ".hhh.....",
        ),
        (Event::Wake, "....W...."),
        (woken, ".....r..."),
        (
            Event::WakeFailed {
                reason: reason.clone(),
            },
            ".....h...",
        ),
        (Event::Archive, "....A..=."),
        (Event::Archived, "......a.."),
        (Event::ArchiveFailed { reason }, "......h.."),
        (Event::Unarchived, ".......h."),
        (Event::Delete { reason: end }, "DDDDDDDD="),
        (Event::Destroyed, "-.......-"),
    ]
}

/// What a step leads to, in one letter.
fn outcome(state: &SandboxState, event: Event, now: Timestamp) -> char {
    match step(&sandbox(state.clone()), event, now) {
        Err(_) => '.',
        Ok(step) => match step.next {
            Next::Remove => '-',
            Next::Unchanged => '=',
            Next::Store(next) => match next.state {
                SandboxState::Creating => 'C',
                SandboxState::Running { .. } => 'r',
                SandboxState::Paused { .. } => 'p',
                SandboxState::Hibernating { .. } => 'H',
                SandboxState::Hibernated { .. } => 'h',
                SandboxState::Waking { .. } => 'W',
                SandboxState::Archiving { .. } => 'A',
                SandboxState::Archived { .. } => 'a',
                SandboxState::Deleting { .. } => 'D',
            },
        },
    }
}

#[test]
fn every_state_answers_every_event() {
    for (event, expected) in events() {
        let name = event.as_str();
        let got: String = states()
            .iter()
            .map(|state| outcome(state, event.clone(), at(2_000)))
            .collect();
        assert_eq!(got, expected, "{name}");
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
    assert_eq!(outcome(&running(), Event::Due, at(60_999)), '=');
    assert_eq!(outcome(&running(), Event::Due, at(61_000)), 'D');
    let mut endless = sandbox(running());
    endless.deadline = None;
    let step = step(&endless, Event::Due, at(i64::MAX)).unwrap();
    assert_eq!(step.next, Next::Unchanged);
}

#[test]
fn the_same_rules_again_are_no_change() {
    let event = Event::SetNetwork {
        network: NetworkSpec::default(),
    };
    assert_eq!(outcome(&running(), event, at(2_000)), '=');
}

fn stored(sandbox: &Sandbox, event: Event, now: i64) -> Sandbox {
    match step(sandbox, event, at(now)).unwrap().next {
        Next::Store(next) => *next,
        other => panic!("not stored: {other:?}"),
    }
}

#[test]
fn a_timeout_that_keeps_it_puts_it_to_sleep() {
    for (memory, content) in [
        (true, SnapshotContent::Memory),
        (false, SnapshotContent::Filesystem),
    ] {
        let mut kept = sandbox(running());
        kept.on_timeout = OnTimeout::Pause { memory };
        let due = step(&kept, Event::Due, at(61_000)).unwrap();
        let cause = SleepCause::Timeout;
        assert_eq!(due.next, Next::Unchanged);
        assert_eq!(due.effects, [Effect::Hibernate { content, cause }]);
        // One that dozed already sleeps on, and has no deadline any more.
        kept.state = hibernated(SleepCause::Idle);
        let next = stored(&kept, Event::Due, 61_000);
        assert_eq!(next.deadline, None);
        assert!(
            matches!(next.state, SandboxState::Hibernated { sleep, .. } if sleep.cause == cause)
        );
    }
    let mut dozing = sandbox(hibernated(SleepCause::Idle));
    assert!(matches!(
        stored(&dozing, Event::Due, 61_000).state,
        SandboxState::Deleting { .. }
    ));
    dozing.deadline = None;
    assert_eq!(
        step(&dozing, Event::Due, at(i64::MAX)).unwrap(),
        unchanged()
    );
}

#[test]
fn only_one_that_dozes_by_itself_keeps_its_deadline() {
    for (cause, deadline, rearmed) in [
        (SleepCause::Idle, Some(at(61_000)), Some(at(61_000))),
        (SleepCause::Requested, None, Some(at(65_000))),
        (SleepCause::Held, None, Some(at(305_000))),
        (SleepCause::Timeout, None, Some(at(305_000))),
    ] {
        let paused = stored(&sandbox(running()), Event::Pause { cause }, 2_000);
        assert_eq!(paused.deadline, deadline, "{cause:?}");
        let rearm = Rearm::Own;
        let awake = stored(&paused, Event::Thawed { rearm }, 5_000);
        assert_eq!(awake.deadline, rearmed, "{cause:?}");
        let deadline = Some(at(99_000));
        let moved = step(&paused, Event::SetDeadline { deadline }, at(3_000));
        assert_eq!(moved.is_ok(), cause == SleepCause::Idle);
        if let Err(denied) = moved {
            assert_eq!(Fault::from(denied).code, Code::Asleep);
        }
    }
}

#[test]
fn the_ladder_goes_down_rung_by_rung() {
    let mut present = sandbox(running());
    present.deadline = None;
    present.timeout = None;
    present.sleep = policy();
    let cause = SleepCause::Idle;
    present = stored(&present, Event::Pause { cause }, 10_000);
    assert_eq!(present.sleep_due, Some(at(30_000)));
    let due = step(&present, Event::Due, at(30_000)).unwrap();
    let content = SnapshotContent::Memory;
    assert_eq!(due.effects, [Effect::Hibernate { content, cause }]);
    let snapshot = SnapshotId::generate();
    let hibernate = Event::Hibernate {
        snapshot: snapshot.clone(),
        content,
        cause,
    };
    present = stored(&present, hibernate, 30_000);
    assert_eq!(present.due(), None);
    present = stored(&present, Event::Hibernated, 40_000);
    assert_eq!(present.last_snapshot, Some(snapshot));
    assert_eq!(present.sleep_due, Some(at(140_000)));
    let due = step(&present, Event::Due, at(140_000)).unwrap();
    assert_eq!(due.effects, [Effect::Archive]);
    present = stored(&present, Event::Archive, 140_000);
    present = stored(&present, Event::Archived, 150_000);
    // A tenth before its end it is warned.
    assert_eq!(present.sleep_due, Some(at(940_000)));
    let warned = step(&present, Event::Due, at(940_000)).unwrap();
    assert_eq!(warned.log[0].kind, "sandbox.expiring");
    present = stored(&present, Event::Due, 940_000);
    assert_eq!(present.sleep_due, Some(at(1_040_000)));
    assert_eq!(
        step(&present, Event::Due, at(1_039_999)).unwrap(),
        unchanged()
    );
    let end = step(&present, Event::Due, at(1_040_000)).unwrap();
    assert_eq!(end.effects, [Effect::Withdraw, Effect::Destroy]);
}

#[test]
fn what_could_not_be_archived_is_tried_again_until_it_is_warned() {
    let mut asleep = sandbox(hibernated(SleepCause::Idle));
    asleep.deadline = None;
    asleep.sleep = policy();
    let since = 1_000_000;
    let SandboxState::Hibernated { sleep, .. } = &mut asleep.state else {
        panic!("it is hibernated");
    };
    sleep.since = at(since);
    asleep.sleep_due = Some(at(since + 100_000));
    let failed = || Event::ArchiveFailed {
        reason: "no network".to_owned(),
    };
    let archiving = stored(&asleep, Event::Archive, since + 100_000);
    let again = stored(&archiving, failed(), since + 110_000);
    assert_eq!(again.state.as_str(), "hibernated");
    assert_eq!(again.sleep_due, Some(at(since + 710_000)));
    let due = step(&again, Event::Due, at(since + 710_000)).unwrap();
    assert_eq!(due.effects, [Effect::Archive]);
    // The warning comes at 900 s: no attempt after that.
    let archiving = stored(&again, Event::Archive, since + 710_000);
    let last = stored(&archiving, failed(), since + 720_000);
    assert_eq!(last.sleep_due, Some(at(since + 900_000)));
    let warned = step(&last, Event::Due, at(since + 900_000)).unwrap();
    assert_eq!(warned.log[0].kind, "sandbox.expiring");
    // A move on request does not take the deletion away that was announced.
    let warned = stored(&last, Event::Due, since + 900_000);
    let archiving = stored(&warned, Event::Archive, since + 910_000);
    let archived = stored(&archiving, Event::Archived, since + 920_000);
    assert_eq!(archived.sleep_due, Some(at(since + 1_000_000)));
    let back = stored(&archived, Event::Unarchived, since + 930_000);
    assert_eq!(back.sleep_due, Some(at(since + 1_000_000)));
}

#[test]
fn nobody_is_deleted_without_a_warning() {
    let mut asleep = sandbox(hibernated(SleepCause::Timeout));
    asleep.deadline = None;
    asleep.sleep = SleepPolicy {
        archive_after: None,
        ..policy()
    };
    asleep.sleep_due = Some(at(901_500));
    // The server was off for a long time.
    let late = 5_000_000;
    let warned = stored(&asleep, Event::Due, late);
    assert!(matches!(warned.state, SandboxState::Hibernated { .. }));
    assert_eq!(warned.sleep_due, Some(at(late + 100_000)));
    assert!(matches!(
        stored(&warned, Event::Due, late + 100_000).state,
        SandboxState::Deleting { .. }
    ));
}

#[test]
fn a_failed_save_goes_back_to_what_it_was() {
    let reason = "io_uring".to_owned();
    let begun = sandbox(hibernating(SleepCause::Idle));
    let failed = Event::HibernateFailed {
        paused: Some(slept(SleepCause::Idle)),
        reason,
    };
    let step = step(&begun, failed, at(2_000)).unwrap();
    assert_eq!(step.log[0].kind, "sandbox.checkpoint_failed");
    assert_eq!(step.log[0].fields["reason"], "io_uring");
    let Next::Store(next) = step.next else {
        panic!("not stored")
    };
    assert_eq!(next.state, paused(SleepCause::Idle));
}

/// The snapshot that a state speaks of.
fn snapshot_of(state: &SandboxState) -> Option<&SnapshotId> {
    match state {
        SandboxState::Hibernating { snapshot, .. }
        | SandboxState::Hibernated { snapshot, .. }
        | SandboxState::Waking { snapshot, .. }
        | SandboxState::Archiving { snapshot, .. }
        | SandboxState::Archived { snapshot, .. } => Some(snapshot),
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

proptest! {
    /// Whatever happens in whatever order: generations rise by one, a deleting sandbox never runs
    /// again, identity never changes, a deadline that is set lies ahead, one that runs has no
    /// rung due, one that sleeps for a reason that stops its deadline has none, and whoever sleeps
    /// on disk sleeps in the snapshot that was named before it was written.
    #[test]
    fn any_history_keeps_the_promises(choices in prop::collection::vec((0_usize..22, 0_i64..100_000), 0..80)) {
        let mut present = sandbox(SandboxState::Creating);
        let mut now = 1_000;
        for (choice, wait) in choices {
            now += wait;
            let event = match events().swap_remove(choice).0 {
                Event::SetDeadline { .. } => Event::SetDeadline { deadline: Some(at(now + wait - 50_000)) },
                Event::ExtendDeadline { .. } => Event::ExtendDeadline { deadline: at(now + wait + 1) },
                other => other,
            };
            let fell_back = matches!(event, Event::FellBack { .. });
            let moves = matches!(event, Event::SetDeadline { .. } | Event::ExtendDeadline { .. });
            let Ok(step) = step(&present, event, at(now)) else { continue };
            match step.next {
                Next::Unchanged => prop_assert!(step.log.is_empty()),
                Next::Remove => return Ok(()),
                Next::Store(next) => {
                    prop_assert_eq!(next.generation, present.generation + 1);
                    prop_assert_eq!(&next.id, &present.id);
                    prop_assert_eq!(&next.workspace, &present.workspace);
                    let was_deleting = matches!(present.state, SandboxState::Deleting { .. });
                    prop_assert!(!was_deleting);
                    if moves && !matches!(next.state, SandboxState::Deleting { .. }) {
                        prop_assert!(next.deadline.is_none_or(|deadline| deadline > at(now)));
                    }
                    match &next.state {
                        SandboxState::Running { .. } => prop_assert_eq!(next.sleep_due, None),
                        SandboxState::Paused { sleep, .. }
                        | SandboxState::Hibernated { sleep, .. }
                        | SandboxState::Archived { sleep, .. } => {
                            let stops = !crate::sleep::keeps_deadline(sleep.cause);
                            prop_assert!(!stops || next.deadline.is_none());
                        }
                        _ => {}
                    }
                    if let (Some(before), Some(after)) = (snapshot_of(&present.state), snapshot_of(&next.state)) {
                        prop_assert!(fell_back || before == after);
                    }
                    present = *next;
                }
            }
        }
    }
}
