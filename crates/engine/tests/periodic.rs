//! Saving what runs now and then, sweeps, and who is told of transitions.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{World, eventually, owner, request};
use woodfrog_engine::transition::{Ended, Observer, Transition};
use woodfrog_engine::{CreateSandbox, Engine, Sweep};
use woodfrog_store::{EventStore as _, SandboxStore as _, SnapshotStore as _};
use woodfrog_types::sleep::{SleepChanges, SleepPolicy};
use woodfrog_types::{SandboxId, Timestamp};

fn saved_every(millis: u64) -> CreateSandbox {
    let mut asked = request();
    asked.sleep = SleepChanges::from(SleepPolicy {
        checkpoint_every: Some(Duration::from_millis(millis)),
        ..SleepPolicy::NEVER
    });
    asked.timeout = None;
    asked
}

async fn create(engine: &Engine, asked: CreateSandbox) -> SandboxId {
    let view = engine.sandbox_create(&owner(), asked).await.unwrap();
    view.sandbox.id
}

async fn count(world: &World, id: &SandboxId, kind: &str) -> usize {
    let log = world.store.event_list(id, 0, 1000).await.unwrap();
    log.iter().filter(|event| event.kind == kind).count()
}

async fn state(world: &World, id: &SandboxId) -> &'static str {
    let stored = world.store.sandbox_fetch(id).await.unwrap();
    stored.map_or("gone", |stored| stored.state.as_str())
}

async fn saved_twice(world: &World, id: &SandboxId) {
    eventually("it was saved twice", async || {
        count(world, id, "sandbox.checkpointed").await >= 2
    })
    .await;
}

#[tokio::test]
async fn the_last_checkpoint_of_what_runs_is_kept_and_goes_with_it() {
    let world = World::new();
    let engine = world.ready().await;
    let id = create(&engine, saved_every(20)).await;
    saved_twice(&world, &id).await;
    assert_eq!(state(&world, &id).await, "running");
    let policy = SleepPolicy::NEVER;
    let changed = engine.sandbox_sleep_policy(&owner(), &id, policy).await;
    changed.unwrap();
    eventually("the one before is gone", async || {
        world.store.snapshot_all().await.unwrap().len() == 1 && world.driver.snapshots().len() == 1
    })
    .await;
    engine.guest(&id).await.unwrap().hello().await.unwrap();
    engine.sandbox_delete(&owner(), &id).await.unwrap();
    assert!(world.driver.snapshots().is_empty());
}

#[tokio::test]
async fn nothing_under_way_is_cut_for_a_checkpoint() {
    let world = World::new();
    let engine = world.ready().await;
    let id = create(&engine, saved_every(20)).await;
    let lease = engine.guest(&id).await.unwrap();
    let before = count(&world, &id, "sandbox.checkpointed").await;
    eventually("it is late", async || {
        count(&world, &id, "sandbox.checkpoint_late").await == 1
    })
    .await;
    assert_eq!(count(&world, &id, "sandbox.checkpointed").await, before);
    drop(lease);
    eventually("it is saved", async || {
        count(&world, &id, "sandbox.checkpointed").await > before
    })
    .await;
}

#[test]
fn after_a_reboot_what_was_saved_runs_again_and_what_was_not_is_lost() {
    let world = World::new();
    let (saved, other) = world.killed_after(async |engine| {
        let saved = create(&engine, saved_every(20)).await;
        let other = create(&engine, request()).await;
        saved_twice(&world, &saved).await;
        (saved, other)
    });
    world.driver.lose(&saved);
    world.driver.lose(&other);
    world.killed_after(async |engine| {
        eventually("it runs again", async || {
            state(&world, &saved).await == "running"
        })
        .await;
        assert_eq!(count(&world, &saved, "sandbox.rolled_back").await, 1);
        let log = world.store.event_list(&saved, 0, 1000).await.unwrap();
        let back = log.iter().find(|event| event.kind == "sandbox.rolled_back");
        assert!(back.unwrap().fields.contains_key("age_ms"));
        assert_eq!(state(&world, &other).await, "gone");
        assert_eq!(count(&world, &other, "sandbox.lost").await, 1);
        engine.guest(&saved).await.unwrap().hello().await.unwrap();
        engine.sandbox_delete(&owner(), &saved).await.unwrap();
        assert!(world.driver.snapshots().is_empty());
        assert!(world.driver.sandboxes().is_empty());
    });
}

#[tokio::test]
async fn a_sweep_puts_idle_sandboxes_down_a_rung() {
    let world = World::new();
    let mut options = world.options();
    options.active_cpu_pct = 1e9;
    options.sweep = Some(Sweep {
        next: Arc::new(|after: Timestamp| Some(after.plus(Duration::from_millis(60)))),
        idle: Duration::from_millis(50),
    });
    let engine = world.start_with(options).await;
    common::base(&engine).await;
    let sleepy = |pause_after| {
        let mut asked = request();
        asked.timeout = None;
        asked.sleep = SleepChanges::from(SleepPolicy {
            pause_after,
            ..SleepPolicy::NEVER
        });
        asked
    };
    let hour = Some(Duration::from_secs(3600));
    let idle = create(&engine, sleepy(hour)).await;
    let never = create(&engine, sleepy(None)).await;
    let used = create(&engine, sleepy(hour)).await;
    let _lease = engine.guest(&used).await.unwrap();
    eventually("it is in the archive", async || {
        state(&world, &idle).await == "archived"
    })
    .await;
    for kind in ["sandbox.paused", "sandbox.hibernated", "sandbox.archived"] {
        assert_eq!(count(&world, &idle, kind).await, 1, "{kind}");
    }
    assert_eq!(state(&world, &never).await, "running");
    assert_eq!(state(&world, &used).await, "running");
}

#[derive(Default)]
struct Heard(Mutex<Vec<(Transition, Ended)>>);

impl Observer for Heard {
    fn transition(&self, which: Transition, _: Duration, ended: Ended) {
        self.0.lock().unwrap().push((which, ended));
    }
}

#[tokio::test]
async fn transitions_are_told() {
    let world = World::new();
    let engine = world.ready().await;
    let heard = Arc::new(Heard::default());
    engine.observe(Arc::clone(&heard) as Arc<dyn Observer>);
    let id = create(&engine, request()).await;
    engine.sandbox_pause(&owner(), &id).await.unwrap();
    engine.guest(&id).await.unwrap().hello().await.unwrap();
    engine.sandbox_archive(&owner(), &id).await.unwrap();
    world
        .archive
        .down
        .store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(engine.guest(&id).await.is_err());
    world
        .archive
        .down
        .store(false, std::sync::atomic::Ordering::SeqCst);
    engine.guest(&id).await.unwrap().hello().await.unwrap();
    let told = heard.0.lock().unwrap().clone();
    let wanted = [
        (Transition::Pause, Ended::Done),
        (Transition::Thaw, Ended::Done),
        (Transition::Hibernate, Ended::Done),
        (Transition::Archive, Ended::Done),
        (Transition::Unarchive, Ended::Failed),
        (Transition::Unarchive, Ended::Done),
        (Transition::Restore, Ended::Done),
    ];
    assert_eq!(told, wanted);
}
