//! Sleep: down the ladder, and up again by whoever uses the sandbox.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{MUTE, World, eventually, owner, request, stranger};
use woodfrog_engine::{
    CheckpointRequest, DeadlineChange, Engine, ForkRequest, HibernateRequest, Reach, ResumeRequest,
};
use woodfrog_sandbox::fake::Call;
use woodfrog_store::{EventStore as _, SandboxStore as _, SnapshotStore as _};
use woodfrog_types::sandbox::{OnTimeout, SandboxState};
use woodfrog_types::sleep::{Fallback, SleepCause, SleepChanges, SleepPolicy};
use woodfrog_types::snapshot::{SnapshotContent, SnapshotPurpose, SnapshotState};
use woodfrog_types::{Code, SandboxId};

fn millis(millis: u64) -> Option<Duration> {
    Some(Duration::from_millis(millis))
}

fn hibernate(cause: SleepCause) -> HibernateRequest {
    HibernateRequest {
        content: SnapshotContent::Memory,
        cause,
    }
}

fn resume() -> ResumeRequest {
    ResumeRequest {
        content: SnapshotContent::Memory,
        deadline: None,
        on_timeout: None,
    }
}

fn checkpoint(name: Option<&str>) -> CheckpointRequest {
    CheckpointRequest {
        name: name.map(str::to_owned),
        content: SnapshotContent::Memory,
        labels: BTreeMap::new(),
    }
}

async fn create(engine: &Engine) -> SandboxId {
    let view = engine.sandbox_create(&owner(), request()).await.unwrap();
    view.sandbox.id
}

async fn state(world: &World, id: &SandboxId) -> SandboxState {
    let stored = world.store.sandbox_fetch(id).await.unwrap();
    stored.unwrap().state
}

async fn state_is(world: &World, id: &SandboxId, wanted: &str) {
    eventually(wanted, async || state(world, id).await.as_str() == wanted).await;
}

async fn kinds(world: &World, id: &SandboxId) -> Vec<String> {
    let log = world.store.event_list(id, 0, 1000).await.unwrap();
    log.into_iter().map(|event| event.kind).collect()
}

async fn hello(engine: &Engine, id: &SandboxId) {
    let guest = engine.guest(id).await.unwrap();
    guest.hello().await.unwrap();
}

#[tokio::test]
async fn a_paused_sandbox_stands_still_until_it_is_used() {
    let world = World::new();
    let engine = world.ready().await;
    let id = create(&engine).await;
    let view = engine.sandbox_pause(&owner(), &id).await.unwrap();
    assert!(matches!(view.sandbox.state, SandboxState::Paused { .. }));
    assert_eq!(view.e2b_state(), "running", "to a client of E2B");
    assert!(world.driver.is_paused(&id));
    assert_eq!(engine.peek(&id).await.unwrap().reach, Reach::Dozing);
    let again = engine.sandbox_pause(&owner(), &id).await.unwrap();
    assert_eq!(again.sandbox.generation, view.sandbox.generation);
    hello(&engine, &id).await;
    assert!(!world.driver.is_paused(&id));
    state_is(&world, &id, "running").await;
    eventually("the log has it", async || {
        let kinds = kinds(&world, &id).await;
        kinds.contains(&"sandbox.paused".to_owned()) && kinds.contains(&"sandbox.woken".to_owned())
    })
    .await;
}

#[tokio::test]
async fn a_hibernated_sandbox_is_on_disk_only_and_comes_back() {
    let world = World::new();
    let engine = world.ready().await;
    let id = create(&engine).await;
    let parked = engine.guest(&id).await.unwrap().quiet();
    let request = hibernate(SleepCause::Requested);
    let slept = engine.sandbox_hibernate(&owner(), &id, request).await;
    let slept = slept.unwrap();
    assert!(!slept.already);
    let SandboxState::Hibernated { snapshot, .. } = &slept.view.sandbox.state else {
        panic!("{:?}", slept.view.sandbox.state)
    };
    let stored = world.store.snapshot_fetch(snapshot).await.unwrap().unwrap();
    assert_eq!(stored.state, SnapshotState::Ready);
    assert!(stored.size.memory_bytes > 0);
    assert!(world.driver.sandboxes().is_empty());
    eventually("it has no owner", async || engine.owners() == 0).await;
    assert_eq!(engine.running(), 0);
    // Looking at it does not wake it.
    let view = engine.sandbox_fetch(&owner(), &id).await.unwrap();
    assert_eq!(view.sandbox.state.as_str(), "hibernated");
    let again = engine.sandbox_hibernate(&owner(), &id, request).await;
    assert!(again.unwrap().already);
    assert_eq!(
        engine
            .sandbox_metrics(&owner(), &id, None, None)
            .await
            .unwrap(),
        []
    );
    assert_eq!(engine.peek(&id).await.unwrap().reach, Reach::Dozing);
    assert_eq!(world.driver.restores(), 0);
    // A stream that was parked goes on when somebody else wakes it, and not before.
    assert!(
        tokio::time::timeout(Duration::from_millis(20), parked.awake())
            .await
            .is_err()
    );

    hello(&engine, &id).await;
    parked.awake().await;
    parked.hello().await.unwrap();
    assert_eq!(world.driver.restores(), 1);
    assert_eq!(state(&world, &id).await.as_str(), "running");
    let log = world.store.event_list(&id, 0, 100).await.unwrap();
    for kind in ["sandbox.hibernated", "sandbox.woken"] {
        let event = log.iter().find(|event| event.kind == kind).unwrap();
        assert!(event.fields.contains_key("duration_ms"), "{event:?}");
    }

    // The next sleep shares with this one, which then goes.
    engine
        .sandbox_hibernate(&owner(), &id, request)
        .await
        .unwrap();
    eventually("one snapshot is left", async || {
        world.driver.snapshots().len() == 1 && world.store.snapshot_all().await.unwrap().len() == 1
    })
    .await;
    let left = world.store.snapshot_all().await.unwrap().remove(0);
    assert_eq!(left.parent.as_ref(), Some(snapshot));
    assert!(left.size.written_bytes < left.size.memory_bytes);

    engine.sandbox_delete(&owner(), &id).await.unwrap();
    parked.ended().await;
    assert!(world.driver.snapshots().is_empty());
    assert!(world.store.snapshot_all().await.unwrap().is_empty());
    assert!(world.store.sandbox_all().await.unwrap().is_empty());
    assert!(world.driver.kept_disks().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_callers_cause_one_wake() {
    let world = World::new();
    let engine = world.ready().await;
    let id = create(&engine).await;
    let request = hibernate(SleepCause::Requested);
    engine
        .sandbox_hibernate(&owner(), &id, request)
        .await
        .unwrap();
    world
        .driver
        .set_delay(Call::Restore, Duration::from_millis(50));
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let (engine, id) = (engine.clone(), id.clone());
            tokio::spawn(async move { hello(&engine, &id).await })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(world.driver.calls(Call::Restore), 1);
}

#[tokio::test]
async fn of_a_failed_wake_all_who_waited_hear_and_the_next_one_tries_again() {
    let world = World::new();
    let engine = world.ready().await;
    let id = create(&engine).await;
    let request = hibernate(SleepCause::Requested);
    engine
        .sandbox_hibernate(&owner(), &id, request)
        .await
        .unwrap();
    world.driver.set_broken(Call::Restore, true);
    world
        .driver
        .set_delay(Call::Restore, Duration::from_millis(500));
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (engine, id) = (engine.clone(), id.clone());
            tokio::spawn(async move { engine.guest(&id).await.err().map(|fault| fault.code) })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Some(Code::WakeFailed));
    }
    assert_eq!(world.driver.calls(Call::Restore), 1);
    assert_eq!(state(&world, &id).await.as_str(), "hibernated");
    assert_eq!(world.driver.snapshots().len(), 1, "untouched");
    world.driver.set_broken(Call::Restore, false);
    hello(&engine, &id).await;
    assert!(
        kinds(&world, &id)
            .await
            .contains(&"sandbox.wake_failed".to_owned())
    );
}

#[tokio::test]
async fn a_guest_that_does_not_answer_after_a_wake_leaves_the_snapshot() {
    let world = World::new();
    let mut options = world.options();
    options.guest_timeout = MUTE;
    let engine = world.ready_with(options).await;
    let id = create(&engine).await;
    let request = hibernate(SleepCause::Requested);
    engine
        .sandbox_hibernate(&owner(), &id, request)
        .await
        .unwrap();
    world.driver.guest().set_mute(true);
    let fault = engine.guest(&id).await.err().unwrap();
    assert_eq!(fault.code, Code::WakeFailed);
    assert!(world.driver.sandboxes().is_empty());
    assert_eq!(state(&world, &id).await.as_str(), "hibernated");
    world.driver.guest().set_mute(false);
    hello(&engine, &id).await;
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_and_marked() {
    let world = World::new();
    let engine = world.ready().await;
    let id = create(&engine).await;
    let request = hibernate(SleepCause::Requested);
    engine
        .sandbox_hibernate(&owner(), &id, request)
        .await
        .unwrap();
    let snapshot = world.driver.snapshots().remove(0);
    world.driver.damage(&snapshot, "pages-1.img differs");
    let fault = engine.guest(&id).await.err().unwrap();
    assert_eq!(fault.code, Code::SnapshotUnusable);
    let marked = engine.snapshot_fetch(&owner(), snapshot.as_str()).await;
    assert!(matches!(
        marked.unwrap().state,
        SnapshotState::Damaged { .. }
    ));
    assert_eq!(state(&world, &id).await.as_str(), "hibernated");
}

#[tokio::test]
async fn what_cannot_be_saved_goes_on() {
    let world = World::new();
    let engine = world.ready().await;
    let id = create(&engine).await;
    world
        .driver
        .set_checkpoint_refusal(Some(("it uses io_uring", false)));
    let request = hibernate(SleepCause::Requested);
    let fault = engine.sandbox_hibernate(&owner(), &id, request).await;
    let fault = fault.unwrap_err();
    assert_eq!(fault.code, Code::CheckpointFailed);
    assert!(fault.message.contains("io_uring"));
    assert_eq!(state(&world, &id).await.as_str(), "running");
    hello(&engine, &id).await;
    assert!(world.store.snapshot_all().await.unwrap().is_empty());
    assert!(
        kinds(&world, &id)
            .await
            .contains(&"sandbox.checkpoint_failed".to_owned())
    );
    // One that stood still stands still again.
    engine.sandbox_pause(&owner(), &id).await.unwrap();
    engine
        .sandbox_hibernate(&owner(), &id, request)
        .await
        .unwrap_err();
    assert_eq!(state(&world, &id).await.as_str(), "paused");
    assert!(world.driver.is_paused(&id));
}

#[tokio::test]
async fn e2b_pauses_sleep_until_they_are_resumed() {
    let world = World::new();
    let engine = world.ready().await;
    for auto_resume in [false, true] {
        let mut wanted = request();
        wanted.auto_resume = auto_resume;
        let view = engine.sandbox_create(&owner(), wanted).await.unwrap();
        let id = view.sandbox.id;
        let request = hibernate(SleepCause::Held);
        let slept = engine.sandbox_hibernate(&owner(), &id, request).await;
        let slept = slept.unwrap();
        assert_eq!(slept.view.e2b_state(), "paused");
        assert_eq!(slept.view.sandbox.deadline, None);
        if auto_resume {
            assert_eq!(engine.peek(&id).await.unwrap().reach, Reach::Resumable);
            hello(&engine, &id).await;
            continue;
        }
        for code in [
            engine.access(&id).await.err().unwrap().code,
            engine.guest(&id).await.err().unwrap().code,
            engine.port_connect(&id, 80).await.err().unwrap().code,
            engine
                .sandbox_touch(&owner(), &id)
                .await
                .err()
                .unwrap()
                .code,
        ] {
            assert_eq!(code, Code::Asleep);
        }
        assert_eq!(engine.peek(&id).await.unwrap().reach, Reach::Held);
        let mut order = resume();
        order.deadline = Some(DeadlineChange::Extend(Duration::from_secs(60)));
        order.on_timeout = Some(OnTimeout::Pause { memory: true });
        let resumed = engine.sandbox_resume(&owner(), &id, order).await.unwrap();
        assert!(resumed.woke);
        assert!(resumed.view.sandbox.deadline.is_some());
        assert_eq!(
            resumed.view.sandbox.on_timeout,
            OnTimeout::Pause { memory: true }
        );
        let again = engine.sandbox_resume(&owner(), &id, order).await.unwrap();
        assert!(!again.woke);
        hello(&engine, &id).await;
    }
}

#[tokio::test]
async fn a_dozing_sandbox_can_be_paused_for_good() {
    let world = World::new();
    let engine = world.ready().await;
    let id = create(&engine).await;
    let dozed = hibernate(SleepCause::Requested);
    engine
        .sandbox_hibernate(&owner(), &id, dozed)
        .await
        .unwrap();
    let held = hibernate(SleepCause::Held);
    let slept = engine.sandbox_hibernate(&owner(), &id, held).await.unwrap();
    assert!(!slept.already, "its client thought that it runs");
    assert_eq!(engine.guest(&id).await.err().unwrap().code, Code::Asleep);
    let slept = engine.sandbox_hibernate(&owner(), &id, held).await.unwrap();
    assert!(slept.already);
}

#[tokio::test]
async fn files_alone_boot_anew() {
    let world = World::new();
    let engine = world.ready().await;
    let id = create(&engine).await;
    let boot = engine.guest(&id).await.unwrap().hello().await.unwrap();
    let request = HibernateRequest {
        content: SnapshotContent::Filesystem,
        cause: SleepCause::Held,
    };
    engine
        .sandbox_hibernate(&owner(), &id, request)
        .await
        .unwrap();
    engine
        .sandbox_resume(&owner(), &id, resume())
        .await
        .unwrap();
    let again = engine.guest(&id).await.unwrap().hello().await.unwrap();
    assert_ne!(boot.boot_id, again.boot_id);
    // With its memory there, a reboot can be asked for.
    let request = hibernate(SleepCause::Held);
    engine
        .sandbox_hibernate(&owner(), &id, request)
        .await
        .unwrap();
    let mut order = resume();
    order.content = SnapshotContent::Filesystem;
    engine.sandbox_resume(&owner(), &id, order).await.unwrap();
    let third = engine.guest(&id).await.unwrap().hello().await.unwrap();
    assert_ne!(third.boot_id, again.boot_id);
}

#[tokio::test]
async fn idle_sandboxes_go_down_the_ladder() {
    let world = World::new();
    let mut options = world.options();
    options.active_cpu_pct = 1e9;
    let engine = world.start_with(options).await;
    common::base(&engine).await;
    let mut wanted = request();
    wanted.sleep = SleepChanges::from(SleepPolicy {
        pause_after: millis(30),
        hibernate_after: millis(30),
        delete_after: millis(3000),
        ..SleepPolicy::NEVER
    });
    let view = engine.sandbox_create(&owner(), wanted).await.unwrap();
    let id = view.sandbox.id;
    // Whoever uses it keeps it awake.
    let lease = engine.guest(&id).await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(state(&world, &id).await.as_str(), "running");
    }
    let next = engine.sandbox_wakefulness(&owner(), &id).await.unwrap();
    assert_eq!(next.state, "running");
    assert!(next.reasons[0].contains("under way"), "{:?}", next.reasons);
    engine
        .sandbox_hold(&owner(), &id, "run-1", None)
        .await
        .unwrap();
    drop(lease);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(state(&world, &id).await.as_str(), "running", "held");
    let left = engine.sandbox_unhold(&owner(), &id, "run-1").await;
    assert!(left.unwrap().is_empty());
    state_is(&world, &id, "hibernated").await;
    let next = engine.sandbox_wakefulness(&owner(), &id).await.unwrap();
    assert_eq!(next.next.unwrap().state, "deleted");
    eventually("it is warned and deleted", async || {
        world.store.sandbox_all().await.unwrap().is_empty()
    })
    .await;
    assert!(world.driver.snapshots().is_empty());
    let kinds = kinds(&world, &id).await;
    for kind in [
        "sandbox.paused",
        "sandbox.hibernated",
        "sandbox.expiring",
        "sandbox.expired",
    ] {
        assert!(kinds.contains(&kind.to_owned()), "{kind}: {kinds:?}");
    }
}

#[tokio::test]
async fn what_computes_is_not_idle() {
    let world = World::new();
    let mut options = world.options();
    // The fake driver counts 10 ms of CPU per sample.
    options.active_cpu_pct = 0.001;
    options.metric_interval = Duration::from_millis(10);
    let engine = world.start_with(options).await;
    common::base(&engine).await;
    let mut wanted = request();
    wanted.sleep = SleepChanges::from(SleepPolicy {
        pause_after: millis(100),
        ..SleepPolicy::NEVER
    });
    let view = engine.sandbox_create(&owner(), wanted).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert_eq!(state(&world, &view.sandbox.id).await.as_str(), "running");
    }
}

#[tokio::test]
async fn a_timeout_can_put_it_to_sleep() {
    let world = World::new();
    let engine = world.ready().await;
    let mut wanted = request();
    wanted.on_timeout = OnTimeout::Pause { memory: true };
    let view = engine.sandbox_create(&owner(), wanted).await.unwrap();
    let id = view.sandbox.id;
    let lease = engine.guest(&id).await.unwrap();
    let soon = DeadlineChange::Set(Duration::from_millis(50));
    let set = engine.sandbox_deadline(&owner(), &id, soon).await;
    set.unwrap();
    state_is(&world, &id, "hibernated").await;
    lease.ended().await;
    let view = engine.sandbox_fetch(&owner(), &id).await.unwrap();
    assert_eq!(view.e2b_state(), "paused");
    assert_eq!(view.sandbox.deadline, None);
    assert_eq!(engine.guest(&id).await.err().unwrap().code, Code::Asleep);
    engine
        .sandbox_resume(&owner(), &id, resume())
        .await
        .unwrap();
    hello(&engine, &id).await;
}

#[tokio::test]
async fn a_timeout_that_cannot_save_stands_still() {
    let world = World::new();
    let engine = world.ready().await;
    world
        .driver
        .set_checkpoint_refusal(Some(("it uses io_uring", false)));
    for (fallback, rung) in [
        (Fallback::StayPaused, "paused"),
        (Fallback::Filesystem, "paused"),
    ] {
        let mut wanted = request();
        wanted.timeout = millis(50);
        wanted.on_timeout = OnTimeout::Pause { memory: true };
        wanted.sleep = SleepChanges::from(SleepPolicy {
            fallback,
            ..SleepPolicy::NEVER
        });
        let view = engine.sandbox_create(&owner(), wanted).await.unwrap();
        let id = view.sandbox.id;
        state_is(&world, &id, rung).await;
        let view = engine.sandbox_fetch(&owner(), &id).await.unwrap();
        assert_eq!(view.sandbox.deadline, None);
        assert_eq!(view.e2b_state(), "paused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_sandbox_falls_asleep_under_a_request() {
    const ROUNDS: usize = 3_000;
    let world = World::new();
    let mut options = world.options();
    options.active_cpu_pct = 1e9;
    options.metric_interval = Duration::from_secs(3600);
    let engine = world.start_with(options).await;
    common::base(&engine).await;
    let mut wanted = request();
    wanted.timeout = None;
    wanted.sleep = SleepChanges::from(SleepPolicy {
        pause_after: millis(0),
        hibernate_after: millis(0),
        ..SleepPolicy::NEVER
    });
    let view = engine.sandbox_create(&owner(), wanted).await.unwrap();
    let id = view.sandbox.id;
    let callers: Vec<_> = (0..4_u64)
        .map(|caller| {
            let (engine, id, driver) = (engine.clone(), id.clone(), world.driver.clone());
            tokio::spawn(async move {
                for round in 0..ROUNDS / 4 {
                    let lease = engine.guest(&id).await.unwrap();
                    // It is in memory and moves as long as the lease is held.
                    lease.hello().await.unwrap();
                    assert!(!driver.is_paused(&id), "asleep under a request");
                    assert!(driver.sandboxes().contains(&id));
                    drop(lease);
                    let wait = (round as u64 * 7 + caller * 3) % 15;
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(world.driver.calls(Call::Pause) > 20, "it did sleep");
    assert!(world.driver.restores() > 5, "on disk, too");
    engine.sandbox_delete(&owner(), &id).await.unwrap();
    assert!(world.driver.snapshots().is_empty());
}

#[tokio::test]
async fn a_sleeping_sandbox_gives_its_place_away() {
    let world = World::new();
    let mut options = world.options();
    options.caps.server = 2;
    options.evict_idle = Duration::ZERO;
    let engine = world.start_with(options).await;
    common::base(&engine).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        let mut wanted = request();
        wanted.sleep = SleepChanges::from(SleepPolicy {
            pause_after: millis(3_600_000),
            ..SleepPolicy::NEVER
        });
        let view = engine.sandbox_create(&owner(), wanted).await.unwrap();
        ids.push(view.sandbox.id);
    }
    assert_eq!(world.driver.sandboxes().len(), 2);
    for id in ids.iter().chain(&ids) {
        hello(&engine, id).await;
        assert!(world.driver.sandboxes().len() <= 2);
    }
    // Those in use keep theirs; who wants one waits.
    let leases = [
        engine.guest(&ids[0]).await.unwrap(),
        engine.guest(&ids[1]).await.unwrap(),
    ];
    let third = tokio::spawn({
        let (engine, id) = (engine.clone(), ids[2].clone());
        async move { hello(&engine, &id).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!third.is_finished());
    drop(leases);
    third.await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_is_kept_and_sandboxes_are_made_from_it() {
    let world = World::new();
    let engine = world.ready().await;
    let me = owner();
    let id = create(&engine).await;
    let boot = engine.guest(&id).await.unwrap().hello().await.unwrap();
    let taken = engine.sandbox_checkpoint(&me, &id, checkpoint(Some("gold")));
    let taken = taken.await.unwrap();
    assert_eq!(taken.state, SnapshotState::Ready);
    hello(&engine, &id).await;
    let twice = engine.sandbox_checkpoint(&me, &id, checkpoint(Some("gold")));
    assert_eq!(twice.await.unwrap_err().code, Code::AlreadyExists);
    assert_eq!(world.driver.snapshots().len(), 1);

    for reference in [taken.id.as_str(), "gold"] {
        let mut wanted = request();
        wanted.template = reference.to_owned();
        wanted.env.insert("B".into(), "2".into());
        let copy = engine.sandbox_create(&me, wanted).await.unwrap();
        assert_ne!(copy.sandbox.id, id);
        let spec = world.driver.spec(&copy.sandbox.id).unwrap();
        assert_eq!(spec.hostname, copy.sandbox.id.as_str());
        assert_eq!(copy.sandbox.env["B"], "2");
        let there = engine.guest(&copy.sandbox.id).await.unwrap();
        let hello = there.hello().await.unwrap();
        assert_eq!(hello.boot_id, boot.boot_id, "the same processes");
    }
    let mut wanted = request();
    wanted.template = "gold".into();
    let fault = engine.sandbox_create(&stranger(), wanted).await;
    assert_eq!(fault.unwrap_err().code, Code::TemplateNotFound);
    let fault = engine.snapshot_fetch(&stranger(), taken.id.as_str()).await;
    assert_eq!(fault.unwrap_err().code, Code::SnapshotNotFound);

    let labels = BTreeMap::from([("a".to_owned(), Some("1".to_owned()))]);
    let labelled = engine.snapshot_label(&me, "gold", labels).await.unwrap();
    assert_eq!(labelled.labels["a"], "1");
    world.driver.damage(&taken.id, "bits");
    let found = engine.snapshot_verify(&me, "gold").await.unwrap();
    assert!(matches!(found.state, SnapshotState::Damaged { .. }));
    engine.snapshot_delete(&me, "gold").await.unwrap();
    assert!(world.driver.snapshots().is_empty());
    let gone = engine.snapshot_delete(&me, "gold").await;
    assert_eq!(gone.unwrap_err().code, Code::SnapshotNotFound);
}

#[tokio::test]
async fn a_sleeping_sandbox_is_snapshotted_without_waking() {
    let world = World::new();
    let engine = world.ready().await;
    let me = owner();
    let id = create(&engine).await;
    let request = hibernate(SleepCause::Requested);
    engine.sandbox_hibernate(&me, &id, request).await.unwrap();
    let kept = engine.sandbox_checkpoint(&me, &id, checkpoint(Some("kept")));
    let kept = kept.await.unwrap();
    assert_eq!(kept.purpose, SnapshotPurpose::Checkpoint);
    assert_eq!(world.driver.restores(), 0);
    let fault = engine.snapshot_delete(&me, "kept").await.unwrap_err();
    assert_eq!(fault.code, Code::Conflict);
    engine.sandbox_delete(&me, &id).await.unwrap();
    assert_eq!(world.driver.snapshots().len(), 1, "it was asked for");
    engine.snapshot_delete(&me, "kept").await.unwrap();
    assert!(world.driver.snapshots().is_empty());
}

#[tokio::test]
async fn forks_are_copies_and_the_source_goes_on() {
    let world = World::new();
    let engine = world.ready().await;
    let me = owner();
    let id = create(&engine).await;
    let boot = engine.guest(&id).await.unwrap().hello().await.unwrap();
    let fork = |count| ForkRequest {
        count,
        timeout: millis(60_000),
    };
    for bad in [0, 101, 10_000] {
        let fault = engine.sandbox_fork(&me, &id, fork(bad)).await.unwrap_err();
        assert_eq!(fault.code, Code::InvalidArgument);
    }
    let copies = engine.sandbox_fork(&me, &id, fork(5)).await.unwrap();
    assert_eq!(copies.len(), 5);
    for copy in &copies {
        let copy = copy.as_ref().unwrap();
        assert_ne!(copy.sandbox.id, id);
        let there = engine.guest(&copy.sandbox.id).await.unwrap();
        assert_eq!(there.hello().await.unwrap().boot_id, boot.boot_id);
    }
    hello(&engine, &id).await;
    assert!(
        world.driver.snapshots().is_empty(),
        "the fork's own is gone"
    );
    assert_eq!(world.driver.calls(Call::Checkpoint), 1);
    // One that sleeps is copied without waking it.
    let request = hibernate(SleepCause::Requested);
    engine.sandbox_hibernate(&me, &id, request).await.unwrap();
    let copies = engine.sandbox_fork(&me, &id, fork(2)).await.unwrap();
    assert!(copies.iter().all(Result::is_ok));
    assert_eq!(state(&world, &id).await.as_str(), "hibernated");
    assert_eq!(world.driver.calls(Call::Checkpoint), 2);
    assert_eq!(world.driver.snapshots().len(), 1);
}

#[tokio::test]
async fn quotas_hold() {
    let world = World::new();
    let mut options = world.options();
    options.snapshot_quota = Some(1);
    let engine = world.start_with(options).await;
    common::base(&engine).await;
    let me = owner();
    let id = create(&engine).await;
    let taken = engine.sandbox_checkpoint(&me, &id, checkpoint(None)).await;
    let first = taken.unwrap();
    let full = engine.sandbox_checkpoint(&me, &id, checkpoint(None)).await;
    assert_eq!(full.unwrap_err().code, Code::QuotaExceeded);
    let request = hibernate(SleepCause::Requested);
    let full = engine.sandbox_hibernate(&me, &id, request).await;
    assert_eq!(full.unwrap_err().code, Code::QuotaExceeded);
    hello(&engine, &id).await;
    engine
        .snapshot_delete(&me, first.id.as_str())
        .await
        .unwrap();
    engine.sandbox_hibernate(&me, &id, request).await.unwrap();
}
