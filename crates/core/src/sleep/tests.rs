use proptest::prelude::*;
use woodfrog_types::SnapshotId;
use woodfrog_types::sandbox::{EndReason, InstanceState};

use super::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn sleep(cause: SleepCause) -> Sleep {
    Sleep {
        since: at(1_000),
        cause,
    }
}

#[test]
fn who_wakes_what() {
    use SleepCause::{Held, Idle, Requested, Timeout};
    use SnapshotContent::{Filesystem, Memory};
    for (cause, content, auto_resume, wakes) in [
        (Idle, Memory, false, true),
        (Idle, Filesystem, false, true),
        (Requested, Memory, false, true),
        (Requested, Filesystem, true, true),
        (Held, Memory, false, false),
        (Held, Memory, true, true),
        (Held, Filesystem, true, false),
        (Timeout, Memory, false, false),
        (Timeout, Memory, true, true),
        (Timeout, Filesystem, true, false),
    ] {
        let slept = sleep(cause);
        assert_eq!(
            may_wake(slept, content, auto_resume, Waker::Access),
            wakes,
            "{cause:?} {content:?} {auto_resume}"
        );
        assert!(may_wake(slept, content, auto_resume, Waker::Resume));
    }
}

#[test]
fn holds_put_idleness_off() {
    let mut policy = SleepPolicy {
        pause_after: Some(Duration::from_secs(10)),
        ..SleepPolicy::NEVER
    };
    assert_eq!(idle_due(&policy, at(0), None), Some(at(10_000)));
    assert_eq!(
        idle_due(&policy, at(0), Some(Some(at(5)))),
        Some(at(10_000))
    );
    let late = Some(Some(at(99_000)));
    assert_eq!(idle_due(&policy, at(0), late), Some(at(99_000)));
    assert_eq!(idle_due(&policy, at(0), Some(None)), None);
    policy.pause_after = None;
    assert_eq!(idle_due(&policy, at(0), None), None);
}

#[test]
fn policies_are_bounded() {
    assert!(validate(&SleepPolicy::default(), false).is_ok());
    let long = SleepPolicy {
        hibernate_after: Some(RUNG_MAX + Duration::from_secs(1)),
        ..SleepPolicy::NEVER
    };
    let fault = validate(&long, true).unwrap_err();
    assert_eq!(fault.field.as_deref(), Some("sleep.hibernate_after"));
    let archive = SleepPolicy {
        archive_after: Some(Duration::ZERO),
        ..SleepPolicy::NEVER
    };
    assert_eq!(
        validate(&archive, false).unwrap_err().code,
        Code::Unsupported
    );
    assert!(validate(&archive, true).is_ok());
}

#[test]
fn what_a_crash_leaves() {
    let instance = || InstanceState("{}".into());
    let snapshot = SnapshotId::generate;
    let content = SnapshotContent::Memory;
    let sleep = sleep(SleepCause::Idle);
    let running = SandboxState::Running {
        instance: instance(),
    };
    let paused = SandboxState::Paused {
        instance: instance(),
        sleep,
    };
    let hibernating = SandboxState::Hibernating {
        instance: instance(),
        snapshot: snapshot(),
        content,
        sleep,
    };
    let hibernated = SandboxState::Hibernated {
        snapshot: snapshot(),
        content,
        sleep,
    };
    let waking = SandboxState::Waking {
        snapshot: snapshot(),
        content,
        sleep,
    };
    let reason = EndReason::Requested;
    let deleting = SandboxState::Deleting { reason };
    // (runs, snapshot, last snapshot) → verdict
    for (state, found, verdict) in [
        (&SandboxState::Creating, "r..", Verdict::Remove),
        (&deleting, "rsl", Verdict::Remove),
        (&running, "r..", Verdict::Adopt),
        (&running, "..l", Verdict::Remove),
        (&paused, "r..", Verdict::Adopt),
        (&hibernating, "r..", Verdict::Undo),
        (&hibernating, "rsl", Verdict::Undo),
        (&hibernating, ".s.", Verdict::Asleep),
        (&hibernating, "..l", Verdict::FallBack),
        (&hibernating, "...", Verdict::Remove),
        (&hibernated, ".s.", Verdict::Asleep),
        (&hibernated, "...", Verdict::Broken),
        (&waking, "rs.", Verdict::Adopt),
        (&waking, ".s.", Verdict::Asleep),
        (&waking, "...", Verdict::Broken),
    ] {
        let what = Found {
            runs: found.contains('r'),
            snapshot: found.contains('s'),
            last_snapshot: found.contains('l'),
        };
        assert_eq!(
            after_crash(state, what),
            verdict,
            "{} {found}",
            state.as_str()
        );
    }
}

proptest! {
    #[test]
    fn the_warning_comes_before_the_end(secs in 0_u64..400_000_000) {
        let after = Duration::from_secs(secs);
        let warned = warned_after(after);
        prop_assert!(warned <= after);
        prop_assert!(after - warned <= WARNING_MAX);
        prop_assert!(secs == 0 || warned < after);
    }
}
