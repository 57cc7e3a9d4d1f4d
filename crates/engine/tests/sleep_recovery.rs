//! What a start of the server makes of sandboxes that the one before left in the middle of sleep.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{World, eventually, owner, request};
use woodfrog_engine::{CheckpointRequest, CreateSandbox, Engine, ForkRequest, HibernateRequest};
use woodfrog_sandbox::fake::Call;
use woodfrog_store::{EventStore as _, SandboxStore as _, SnapshotStore as _};
use woodfrog_types::sandbox::SandboxState;
use woodfrog_types::sleep::{SleepCause, SleepChanges, SleepPolicy};
use woodfrog_types::snapshot::{SnapshotContent, SnapshotState};
use woodfrog_types::{Code, SandboxId, SnapshotId};

const FOREVER: Duration = Duration::from_secs(3600);

fn hibernate() -> HibernateRequest {
    HibernateRequest {
        content: SnapshotContent::Memory,
        cause: SleepCause::Requested,
    }
}

async fn create(engine: &Engine) -> SandboxId {
    let view = engine.sandbox_create(&owner(), request()).await.unwrap();
    view.sandbox.id
}

async fn asleep(engine: &Engine) -> SandboxId {
    let id = create(engine).await;
    let me = owner();
    let slept = engine.sandbox_hibernate(&me, &id, hibernate()).await;
    slept.unwrap();
    id
}

async fn state(world: &World, id: &SandboxId) -> SandboxState {
    let stored = world.store.sandbox_fetch(id).await.unwrap();
    stored.unwrap().state
}

async fn hello(engine: &Engine, id: &SandboxId) {
    let guest = engine.guest(id).await.unwrap();
    guest.hello().await.unwrap();
}

/// The sandbox is deleted, and nothing of it is left anywhere.
async fn gone(world: &World, engine: &Engine, id: &SandboxId) {
    engine.sandbox_delete(&owner(), id).await.unwrap();
    assert!(world.driver.sandboxes().is_empty());
    assert!(world.driver.snapshots().is_empty());
    assert!(world.driver.kept_disks().is_empty());
    assert!(world.store.sandbox_all().await.unwrap().is_empty());
    assert!(world.store.snapshot_all().await.unwrap().is_empty());
}

/// Begins to hibernate a sandbox and is killed while the driver's call is under way.
fn killed_hibernating(world: &World, prepare: impl Fn() + Send + Sync) -> SandboxId {
    world.killed_after(async |engine| {
        let id = create(&engine).await;
        prepare();
        let (begun, slept) = (world.driver.calls(Call::Checkpoint), id.clone());
        tokio::spawn(async move {
            engine
                .sandbox_hibernate(&owner(), &slept, hibernate())
                .await
        });
        eventually("it is being saved", async || {
            world.driver.calls(Call::Checkpoint) > begun
                && state(world, &id).await.as_str() == "hibernating"
        })
        .await;
        id
    })
}

#[test]
fn killed_before_it_is_saved_it_goes_on() {
    let world = World::new();
    let id = killed_hibernating(&world, || world.driver.set_delay(Call::Checkpoint, FOREVER));
    world.driver.set_delay(Call::Checkpoint, Duration::ZERO);
    world.killed_after(async |engine| {
        hello(&engine, &id).await;
        assert_eq!(world.driver.restores(), 0, "the same processes");
        assert!(world.store.snapshot_all().await.unwrap().is_empty());
        gone(&world, &engine, &id).await;
    });
}

#[test]
fn killed_after_it_is_saved_it_sleeps() {
    let world = World::new();
    let id = killed_hibernating(&world, || world.driver.set_late(Call::Checkpoint, FOREVER));
    world.driver.set_late(Call::Checkpoint, Duration::ZERO);
    assert!(world.driver.sandboxes().is_empty());
    world.killed_after(async |engine| {
        assert_eq!(state(&world, &id).await.as_str(), "hibernated");
        assert_eq!(engine.owners(), 0);
        let all = world.store.snapshot_all().await.unwrap();
        assert_eq!(all[0].state, SnapshotState::Ready);
        hello(&engine, &id).await;
        gone(&world, &engine, &id).await;
    });
}

#[test]
fn lost_while_it_was_saved_it_falls_back_to_its_last_snapshot() {
    let world = World::new();
    let id = world.killed_after(async |engine| {
        let id = asleep(&engine).await;
        hello(&engine, &id).await;
        world.driver.set_delay(Call::Checkpoint, FOREVER);
        let slept = id.clone();
        tokio::spawn(async move {
            engine
                .sandbox_hibernate(&owner(), &slept, hibernate())
                .await
        });
        eventually("it is being saved", async || {
            state(&world, &id).await.as_str() == "hibernating"
        })
        .await;
        id
    });
    world.driver.set_delay(Call::Checkpoint, Duration::ZERO);
    // The machine was rebooted, too.
    world.driver.lose(&id);
    world.killed_after(async |engine| {
        assert_eq!(state(&world, &id).await.as_str(), "hibernated");
        let log = world.store.event_list(&id, 0, 100).await.unwrap();
        assert!(log.iter().any(|event| event.kind == "sandbox.rolled_back"));
        hello(&engine, &id).await;
        gone(&world, &engine, &id).await;
    });
}

#[test]
fn lost_while_it_was_saved_for_the_first_time_it_is_lost() {
    let world = World::new();
    let id = killed_hibernating(&world, || world.driver.set_delay(Call::Checkpoint, FOREVER));
    world.driver.set_delay(Call::Checkpoint, Duration::ZERO);
    world.driver.lose(&id);
    world.killed_after(async |engine| {
        let fault = engine.sandbox_fetch(&owner(), &id).await.unwrap_err();
        assert_eq!(fault.code, Code::SandboxNotFound);
        let log = world.store.event_list(&id, 0, 100).await.unwrap();
        assert_eq!(log.last().unwrap().kind, "sandbox.lost");
        assert!(world.store.snapshot_all().await.unwrap().is_empty());
    });
}

fn killed_waking(world: &World, prepare: impl Fn() + Send + Sync) -> SandboxId {
    world.killed_after(async |engine| {
        let id = asleep(&engine).await;
        prepare();
        let woken = id.clone();
        tokio::spawn(async move { engine.guest(&woken).await.map(|_| ()) });
        eventually("it is being brought back", async || {
            world.driver.calls(Call::Restore) > 0 && state(world, &id).await.as_str() == "waking"
        })
        .await;
        id
    })
}

#[test]
fn killed_before_it_is_back_it_sleeps() {
    let world = World::new();
    let id = killed_waking(&world, || world.driver.set_delay(Call::Restore, FOREVER));
    world.driver.set_delay(Call::Restore, Duration::ZERO);
    world.killed_after(async |engine| {
        assert_eq!(state(&world, &id).await.as_str(), "hibernated");
        hello(&engine, &id).await;
        assert_eq!(world.driver.sandboxes().len(), 1);
        gone(&world, &engine, &id).await;
    });
}

#[test]
fn killed_after_it_is_back_it_runs() {
    let world = World::new();
    let id = killed_waking(&world, || world.driver.set_late(Call::Restore, FOREVER));
    world.driver.set_late(Call::Restore, Duration::ZERO);
    world.killed_after(async |engine| {
        assert_eq!(state(&world, &id).await.as_str(), "running");
        hello(&engine, &id).await;
        assert_eq!(world.driver.restores(), 1, "not twice");
        gone(&world, &engine, &id).await;
    });
}

#[test]
fn a_paused_sandbox_stands_still_again() {
    let world = World::new();
    let id = world.killed_after(async |engine| {
        let id = create(&engine).await;
        engine.sandbox_pause(&owner(), &id).await.unwrap();
        id
    });
    for killed_before_it_froze in [false, true] {
        if killed_before_it_froze {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            let driver: &dyn woodfrog_sandbox::Driver = &*world.driver;
            runtime.block_on(driver.resume(&id)).unwrap();
        }
        world.killed_after(async |_engine| {
            eventually("it is frozen", async || world.driver.is_paused(&id)).await;
            assert_eq!(state(&world, &id).await.as_str(), "paused");
        });
    }
    world.killed_after(async |engine| {
        hello(&engine, &id).await;
        assert!(!world.driver.is_paused(&id));
        gone(&world, &engine, &id).await;
    });
}

#[test]
fn sleepers_cost_nothing_after_a_start_and_keep_their_disks() {
    let world = World::new();
    let ids = world.killed_after(async |engine| {
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(asleep(&engine).await);
        }
        ids
    });
    world.killed_after(async |engine| {
        assert_eq!(engine.owners(), 0);
        assert_eq!(world.driver.kept_disks().len(), 20);
        for id in &ids {
            hello(&engine, id).await;
        }
        assert_eq!(engine.running(), 20);
    });
}

#[test]
fn snapshots_of_nobody_are_swept_and_lost_ones_are_told() {
    let world = World::new();
    let stray = SnapshotId::generate();
    let (id, kept) = world.killed_after(async |engine| {
        let id = asleep(&engine).await;
        let source = create(&engine).await;
        let name = Some("kept".to_owned());
        let labels = BTreeMap::new();
        let content = SnapshotContent::Memory;
        let request = CheckpointRequest {
            name,
            content,
            labels,
        };
        let kept = engine.sandbox_checkpoint(&owner(), &source, request).await;
        // Killed in the middle of a fork: its copies are there, or not, and its snapshot is not
        // anybody's any more.
        world.driver.set_delay(Call::Restore, FOREVER);
        let forked = source.clone();
        let fork = ForkRequest {
            count: 3,
            timeout: None,
        };
        tokio::spawn(async move { engine.sandbox_fork(&owner(), &forked, fork).await });
        eventually("copies are being made", async || {
            world.driver.calls(Call::Restore) > 0
        })
        .await;
        (id, kept.unwrap().id)
    });
    world.driver.set_delay(Call::Restore, Duration::ZERO);
    world.driver.leave_unfinished(&stray);
    assert_eq!(world.driver.snapshots().len(), 4);
    let slept_in = world.killed_after(async |_engine| {
        let left = world.driver.snapshots();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.contains(&kept));
        assert_eq!(world.driver.sandboxes().len(), 1, "no copy is half there");
        let SandboxState::Hibernated { snapshot, .. } = state(&world, &id).await else {
            panic!("it does not sleep")
        };
        snapshot
    });
    world.driver.lose_snapshot(&slept_in);
    world.killed_after(async |engine| {
        assert_eq!(state(&world, &id).await.as_str(), "hibernated");
        let told = engine.snapshot_fetch(&owner(), slept_in.as_str()).await;
        assert!(matches!(told.unwrap().state, SnapshotState::Damaged { .. }));
        engine.guest(&id).await.err().unwrap();
        engine.sandbox_delete(&owner(), &id).await.unwrap();
    });
}

#[test]
fn a_deletion_of_a_sleeper_is_finished() {
    let world = World::new();
    let id = world.killed_after(async |engine| {
        let id = asleep(&engine).await;
        world.driver.set_delay(Call::SnapshotRemove, FOREVER);
        let deleted = id.clone();
        tokio::spawn(async move { engine.sandbox_delete(&owner(), &deleted).await });
        eventually("it is being removed", async || {
            world.driver.calls(Call::SnapshotRemove) > 0
        })
        .await;
        id
    });
    world.driver.set_delay(Call::SnapshotRemove, Duration::ZERO);
    world.killed_after(async |engine| {
        let fault = engine.sandbox_fetch(&owner(), &id).await.unwrap_err();
        assert_eq!(fault.code, Code::SandboxNotFound);
        assert!(world.driver.snapshots().is_empty());
        assert!(world.store.snapshot_all().await.unwrap().is_empty());
    });
}

/// Idle at once, if nothing holds it.
fn dozing() -> CreateSandbox {
    CreateSandbox {
        timeout: None,
        sleep: SleepChanges {
            pause_after: Some(Some(Duration::from_millis(1))),
            ..SleepPolicy::NEVER.into()
        },
        ..request()
    }
}

async fn names(engine: &Engine, id: &SandboxId) -> Vec<String> {
    let why = engine.sandbox_wakefulness(&owner(), id).await.unwrap();
    why.holds.into_iter().map(|hold| hold.name).collect()
}

#[test]
fn holds_outlive_the_server_until_they_are_released_or_over() {
    let world = World::new();
    let mut options = world.options();
    options.active_cpu_pct = 1e9;
    let soon = Duration::from_millis(50);
    let (id, over) = world.killed_after_with(options.clone(), async |engine| {
        let view = engine.sandbox_create(&owner(), dozing()).await.unwrap();
        let id = view.sandbox.id;
        for name in ["one", "two"] {
            let held = engine.sandbox_hold(&owner(), &id, name, None).await;
            held.unwrap();
        }
        let me = owner();
        let held = engine.sandbox_hold(&me, &id, "three", Some(FOREVER));
        assert_eq!(held.await.unwrap().len(), 3);
        let left = engine.sandbox_unhold(&owner(), &id, "two").await.unwrap();
        assert_eq!(left.len(), 2);
        let view = engine.sandbox_create(&owner(), dozing()).await.unwrap();
        let over = view.sandbox.id;
        let held = engine.sandbox_hold(&me, &over, "short", Some(soon));
        held.await.unwrap();
        (id, over)
    });
    world.killed_after_with(options, async |engine| {
        assert_eq!(names(&engine, &id).await, ["one", "three"]);
        let why = engine.sandbox_wakefulness(&owner(), &id).await.unwrap();
        assert_eq!(
            (why.state, why.next),
            ("running", None),
            "{:?}",
            why.reasons
        );
        // The other one's is over, before or after the start.
        eventually("it falls asleep", async || {
            state(&world, &over).await.as_str() == "paused"
        })
        .await;
        assert_eq!(state(&world, &id).await.as_str(), "running");
        // One that sleeps because somebody asked for it is held again when it is back.
        let slept = engine.sandbox_hibernate(&owner(), &id, hibernate()).await;
        slept.unwrap();
        eventually("it has no owner", async || engine.owners() == 1).await;
        assert_eq!(names(&engine, &id).await, ["one", "three"], "asleep");
        let left = engine.sandbox_unhold(&owner(), &id, "three").await.unwrap();
        assert_eq!(left.len(), 1, "released while it sleeps");
        hello(&engine, &id).await;
        assert_eq!(names(&engine, &id).await, ["one"]);
        let why = engine.sandbox_wakefulness(&owner(), &id).await.unwrap();
        assert_eq!(
            (why.state, why.next),
            ("running", None),
            "{:?}",
            why.reasons
        );
        let left = engine.sandbox_unhold(&owner(), &id, "one").await.unwrap();
        assert!(left.is_empty());
        eventually("nothing holds it any more", async || {
            state(&world, &id).await.as_str() == "paused"
        })
        .await;
    });
}
