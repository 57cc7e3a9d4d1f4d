use proptest::prelude::*;
use woodfrog_types::SnapshotId;
use woodfrog_types::sandbox::{EndReason, InstanceState};
use woodfrog_types::sleep::Fallback;

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
fn the_sandbox_comes_before_its_workspace_and_that_before_the_server() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let server = SleepPolicy {
        pause_after: seconds(1),
        hibernate_after: seconds(2),
        archive_after: None,
        delete_after: seconds(4),
        fallback: Fallback::StayPaused,
        checkpoint_every: seconds(5),
    };
    let nothing = SleepChanges::default();
    assert_eq!(policy(server, nothing, nothing, true), server);
    let workspace = SleepChanges {
        pause_after: Some(seconds(10)),
        hibernate_after: Some(None),
        archive_after: Some(seconds(30)),
        fallback: Some(Fallback::Filesystem),
        ..nothing
    };
    let request = SleepChanges {
        pause_after: Some(seconds(100)),
        delete_after: Some(None),
        checkpoint_every: Some(seconds(500)),
        ..nothing
    };
    let wanted = SleepPolicy {
        pause_after: seconds(100),
        hibernate_after: None,
        archive_after: seconds(30),
        delete_after: None,
        fallback: Fallback::Filesystem,
        checkpoint_every: seconds(500),
    };
    assert_eq!(policy(server, workspace, request, true), wanted);
    // Every rung of the request is above the workspace's.
    let all = SleepChanges::from(SleepPolicy::NEVER);
    assert_eq!(policy(server, workspace, all, true), SleepPolicy::NEVER);
    // And every rung of the workspace above the server's.
    assert_eq!(policy(server, all, nothing, true), SleepPolicy::NEVER);
    // The workspace said it while there was an archive.
    let without = policy(server, workspace, request, false);
    assert_eq!(without.archive_after, None);
    let named = SleepChanges {
        archive_after: Some(seconds(7)),
        ..nothing
    };
    let kept = policy(server, workspace, named, false).archive_after;
    assert_eq!(
        kept,
        seconds(7),
        "what a request says is refused, not dropped"
    );
}

#[test]
fn only_what_is_said_is_checked() {
    assert!(validate_changes(SleepChanges::default(), false).is_ok());
    let archive = SleepChanges {
        archive_after: Some(Some(Duration::from_secs(60))),
        ..SleepChanges::default()
    };
    let fault = validate_changes(archive, false).unwrap_err();
    assert_eq!(fault.code, Code::Unsupported);
    assert_eq!(fault.field.as_deref(), Some("sleep.archive_after"));
    assert!(validate_changes(archive, true).is_ok());
    let never = SleepChanges {
        archive_after: Some(None),
        ..SleepChanges::default()
    };
    assert!(validate_changes(never, false).is_ok());
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
            after_crash(state, false, what),
            verdict,
            "{} {found}",
            state.as_str()
        );
    }
}

#[test]
fn what_was_saved_while_it_ran_comes_back() {
    let running = SandboxState::Running {
        instance: InstanceState("{}".to_owned()),
    };
    let found = |runs, last_snapshot| Found {
        runs,
        snapshot: false,
        last_snapshot,
    };
    for (saved, what, verdict) in [
        (true, found(false, true), Verdict::FallBack),
        (true, found(false, false), Verdict::Remove),
        (true, found(true, true), Verdict::Adopt),
        (false, found(false, true), Verdict::Remove),
    ] {
        assert_eq!(after_crash(&running, saved, what), verdict, "{what:?}");
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
