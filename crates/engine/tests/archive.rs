//! The lowest rung: to the archive and back, whatever goes wrong on the way.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{World, admin, eventually, owner, request};
use woodfrog_engine::{CheckpointRequest, Engine, ForkRequest, HibernateRequest};
use woodfrog_store::{EventStore as _, SandboxStore as _, SnapshotStore as _};
use woodfrog_types::sandbox::SandboxState;
use woodfrog_types::sleep::{SleepCause, SleepChanges, SleepPolicy};
use woodfrog_types::snapshot::{Snapshot, SnapshotContent, SnapshotPlace, SnapshotState};
use woodfrog_types::{Code, SandboxId};

const FOREVER_MS: u64 = 3_600_000;

async fn create(engine: &Engine) -> SandboxId {
    let view = engine.sandbox_create(&owner(), request()).await.unwrap();
    view.sandbox.id
}

async fn archived(engine: &Engine) -> SandboxId {
    let id = create(engine).await;
    let view = engine.sandbox_archive(&owner(), &id).await.unwrap();
    assert_eq!(view.sandbox.state.as_str(), "archived");
    id
}

async fn hibernated(engine: &Engine) -> SandboxId {
    let id = create(engine).await;
    let request = HibernateRequest {
        content: SnapshotContent::Memory,
        cause: SleepCause::Requested,
    };
    let slept = engine.sandbox_hibernate(&owner(), &id, request).await;
    slept.unwrap();
    id
}

async fn state(world: &World, id: &SandboxId) -> SandboxState {
    let stored = world.store.sandbox_fetch(id).await.unwrap();
    stored.unwrap().state
}

async fn snapshot(world: &World) -> Snapshot {
    let all = world.store.snapshot_all().await.unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap()
}

async fn log(world: &World, id: &SandboxId) -> Vec<(String, BTreeMap<String, String>)> {
    let log = world.store.event_list(id, 0, 1000).await.unwrap();
    log.into_iter()
        .map(|event| (event.kind, event.fields))
        .collect()
}

async fn fields(world: &World, id: &SandboxId, kind: &str) -> BTreeMap<String, String> {
    let log = log(world, id).await;
    let found = log.iter().rev().find(|(known, _)| known == kind);
    found
        .unwrap_or_else(|| panic!("no {kind} in {log:?}"))
        .1
        .clone()
}

async fn hello(engine: &Engine, id: &SandboxId) {
    let guest = engine.guest(id).await.unwrap();
    guest.hello().await.unwrap();
}

async fn gone(world: &World, engine: &Engine, id: &SandboxId) {
    engine.sandbox_delete(&owner(), id).await.unwrap();
    assert!(world.driver.sandboxes().is_empty());
    assert!(world.driver.snapshots().is_empty());
    assert!(world.archive.labels().is_empty());
    assert!(world.store.snapshot_all().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_archived_sandbox_leaves_the_machine_and_comes_back_when_it_is_used() {
    let world = World::new();
    let engine = world.ready().await;
    let id = archived(&engine).await;
    assert!(world.driver.snapshots().is_empty(), "bytes are left here");
    assert!(world.driver.kept_disks().is_empty());
    let kept = snapshot(&world).await;
    assert!(matches!(kept.place, SnapshotPlace::Archive { .. }));
    assert_eq!(world.archive.labels().len(), 1);
    assert!(world.archive.labels()[0].ends_with(kept.id.as_str()));
    let went = fields(&world, &id, "sandbox.archived").await;
    assert_eq!(
        (went["bytes"].as_str(), went.contains_key("duration_ms")),
        ("10", true)
    );
    // Once more: it is there.
    engine.sandbox_archive(&owner(), &id).await.unwrap();
    assert_eq!(world.archive.stores(), 1);
    hello(&engine, &id).await;
    assert_eq!(world.driver.restores(), 1);
    assert_eq!(state(&world, &id).await.as_str(), "running");
    let back = fields(&world, &id, "sandbox.unarchived").await;
    assert!(back.contains_key("duration_ms"));
    gone(&world, &engine, &id).await;
}

#[tokio::test]
async fn a_hundred_callers_fetch_it_once() {
    let world = World::new();
    let engine = world.ready().await;
    let id = archived(&engine).await;
    world.archive.delay.store(50, Ordering::SeqCst);
    let calls = (0..100).map(|_| hello(&engine, &id));
    futures_util::future::join_all(calls).await;
    assert_eq!(world.driver.restores(), 1);
    let came = log(&world, &id).await;
    let came = came.iter().filter(|(kind, _)| kind == "sandbox.unarchived");
    assert_eq!(came.count(), 1);
}

#[tokio::test]
async fn what_cannot_be_uploaded_stays_and_says_why() {
    let world = World::new();
    let engine = world.ready().await;
    let id = hibernated(&engine).await;
    world.archive.down.store(true, Ordering::SeqCst);
    let refused = engine.sandbox_archive(&owner(), &id).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    assert!(refused.message.contains("no route"), "{refused}");
    assert_eq!(state(&world, &id).await.as_str(), "hibernated");
    assert_eq!(world.driver.snapshots().len(), 1);
    let why = fields(&world, &id, "sandbox.archive_failed").await;
    assert!(why["reason"].contains("no route"), "{why:?}");
    world.archive.down.store(false, Ordering::SeqCst);
    engine.sandbox_archive(&owner(), &id).await.unwrap();
    hello(&engine, &id).await;
    gone(&world, &engine, &id).await;
}

#[tokio::test]
async fn what_cannot_be_fetched_stays_in_the_archive() {
    let world = World::new();
    let engine = world.ready().await;
    let id = archived(&engine).await;
    world.archive.down.store(true, Ordering::SeqCst);
    let refused = engine.guest(&id).await.err().unwrap();
    assert_eq!(refused.code, Code::Unavailable, "{refused}");
    assert_eq!(state(&world, &id).await.as_str(), "archived");
    assert!(world.driver.snapshots().is_empty(), "half of it is left");
    fields(&world, &id, "sandbox.unarchive_failed").await;
    world.archive.down.store(false, Ordering::SeqCst);
    hello(&engine, &id).await;
    gone(&world, &engine, &id).await;
}

#[tokio::test]
async fn a_damaged_archive_is_refused_and_its_repair_is_found() {
    let world = World::new();
    let engine = world.ready().await;
    let id = archived(&engine).await;
    let copy = world.archive.copy();
    world.archive.damage_all();
    let refused = engine.guest(&id).await.err().unwrap();
    assert_eq!(refused.code, Code::SnapshotUnusable);
    assert!(refused.message.contains("chunk 00 is damaged"), "{refused}");
    assert_eq!(state(&world, &id).await.as_str(), "archived");
    let name = snapshot(&world).await.id.to_string();
    let checked = engine.snapshot_verify(&owner(), &name).await.unwrap();
    assert!(matches!(checked.state, SnapshotState::Damaged { .. }));
    world.archive.swap(&copy);
    let checked = engine.snapshot_verify(&owner(), &name).await.unwrap();
    assert_eq!(checked.state, SnapshotState::Ready);
    hello(&engine, &id).await;
    gone(&world, &engine, &id).await;
}

#[tokio::test]
async fn who_wants_it_while_it_is_uploaded_gets_it_at_once() {
    let world = World::new();
    let engine = world.ready().await;
    let id = hibernated(&engine).await;
    world.archive.delay.store(FOREVER_MS, Ordering::SeqCst);
    let (asked, which) = (engine.clone(), id.clone());
    let archive = tokio::spawn(async move { asked.sandbox_archive(&owner(), &which).await });
    eventually("it is on its way", async || {
        state(&world, &id).await.as_str() == "archiving"
    })
    .await;
    hello(&engine, &id).await;
    let refused = archive.await.unwrap().unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    assert_eq!(state(&world, &id).await.as_str(), "running");
    // So does its deletion.
    engine
        .sandbox_hibernate(
            &owner(),
            &id,
            HibernateRequest {
                content: SnapshotContent::Memory,
                cause: SleepCause::Requested,
            },
        )
        .await
        .unwrap();
    let (asked, which) = (engine.clone(), id.clone());
    let archive = tokio::spawn(async move { asked.sandbox_archive(&owner(), &which).await });
    eventually("it is on its way", async || {
        state(&world, &id).await.as_str() == "archiving"
    })
    .await;
    gone(&world, &engine, &id).await;
    assert!(archive.await.unwrap().is_err());
}

#[tokio::test]
async fn its_time_comes_by_itself() {
    let world = World::new();
    let mut options = world.options();
    options.active_cpu_pct = 1e9;
    let engine = world.start_with(options).await;
    common::base(&engine).await;
    let mut asked = request();
    let soon = Some(Duration::from_millis(20));
    asked.sleep = SleepChanges::from(SleepPolicy {
        pause_after: soon,
        hibernate_after: soon,
        archive_after: soon,
        ..SleepPolicy::NEVER
    });
    asked.timeout = None;
    let id = engine.sandbox_create(&owner(), asked).await.unwrap();
    let id = id.sandbox.id;
    eventually("archived", async || {
        state(&world, &id).await.as_str() == "archived"
    })
    .await;
    eventually("nobody owns it", async || engine.owners() == 0).await;
    hello(&engine, &id).await;
    engine.sandbox_delete(&owner(), &id).await.unwrap();
}

#[tokio::test]
async fn copies_and_checkpoints_of_an_archived_sandbox_leave_it_there() {
    let world = World::new();
    let engine = world.ready().await;
    let id = archived(&engine).await;
    let fork = ForkRequest {
        count: 2,
        timeout: None,
    };
    for copy in engine.sandbox_fork(&owner(), &id, fork).await.unwrap() {
        let copy = copy.unwrap().sandbox.id;
        hello(&engine, &copy).await;
        engine.sandbox_delete(&owner(), &copy).await.unwrap();
    }
    assert_eq!(state(&world, &id).await.as_str(), "archived");
    let kept = engine
        .sandbox_checkpoint(
            &owner(),
            &id,
            CheckpointRequest {
                name: Some("kept".to_owned()),
                content: SnapshotContent::Memory,
                labels: BTreeMap::new(),
            },
        )
        .await
        .unwrap();
    engine.sandbox_delete(&owner(), &id).await.unwrap();
    assert_eq!(world.archive.labels().len(), 1);
    let mut asked = request();
    asked.template = "kept".to_owned();
    let made = engine.sandbox_create(&owner(), asked).await.unwrap();
    hello(&engine, &made.sandbox.id).await;
    engine
        .sandbox_delete(&owner(), &made.sandbox.id)
        .await
        .unwrap();
    let name = kept.id.to_string();
    engine.snapshot_delete(&owner(), &name).await.unwrap();
    assert!(world.archive.labels().is_empty());
    assert!(world.driver.snapshots().is_empty());
}

#[test]
fn killed_while_it_is_uploaded_it_sleeps_on_this_machine() {
    let world = World::new();
    let id = world.killed_after(async |engine| {
        let id = hibernated(&engine).await;
        world.archive.delay.store(FOREVER_MS, Ordering::SeqCst);
        let (engine, which) = (engine.clone(), id.clone());
        tokio::spawn(async move { engine.sandbox_archive(&owner(), &which).await });
        eventually("it is on its way", async || {
            state(&world, &id).await.as_str() == "archiving"
        })
        .await;
        id
    });
    world.archive.delay.store(0, Ordering::SeqCst);
    world.killed_after(async |engine| {
        assert_eq!(state(&world, &id).await.as_str(), "hibernated");
        hello(&engine, &id).await;
        gone(&world, &engine, &id).await;
    });
}

#[test]
fn killed_once_it_is_recorded_nothing_of_it_stays_on_this_machine() {
    let world = World::new();
    let id = world.killed_after(async |engine| archived(&engine).await);
    let kept = world.killed_after(async |_| snapshot(&world).await);
    // As if the removal had not come to pass.
    world.driver.put_back(&kept.id, &id);
    assert_eq!(world.driver.snapshots().len(), 1);
    world.killed_after(async |engine| {
        assert!(world.driver.snapshots().is_empty());
        assert_eq!(state(&world, &id).await.as_str(), "archived");
        // While it comes back.
        world.archive.delay.store(FOREVER_MS, Ordering::SeqCst);
        let id = id.clone();
        tokio::spawn(async move { engine.guest(&id).await.map(drop) });
        eventually("half of it is here", async || {
            !world.driver.snapshots().is_empty()
        })
        .await;
    });
    world.archive.delay.store(0, Ordering::SeqCst);
    world.killed_after(async |engine| {
        assert!(world.driver.snapshots().is_empty());
        hello(&engine, &id).await;
        assert_eq!(world.archive.labels().len(), 1);
        gone(&world, &engine, &id).await;
    });
}

#[tokio::test]
async fn a_collection_removes_what_has_no_record_and_nothing_of_others() {
    let world = World::new();
    let engine = world.ready().await;
    let id = archived(&engine).await;
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("file"), "content").unwrap();
    let own = world.archive.labels()[0].clone();
    let (scope, _) = own.split_once('/').unwrap();
    use woodfrog_engine::Archive as _;
    let lost = woodfrog_types::SnapshotId::generate();
    for label in [
        own.clone(),
        format!("{scope}/{lost}"),
        format!("other/{lost}"),
    ] {
        world.archive.store(other.path(), &label).await.unwrap();
    }
    let report = engine.snapshot_gc(&admin()).await.unwrap();
    assert_eq!(report.archive_bytes, 7);
    let mut left = world.archive.labels();
    left.sort();
    let mut wanted = [own, format!("other/{lost}")];
    wanted.sort();
    assert_eq!(left, wanted);
    hello(&engine, &id).await;
}

#[tokio::test]
async fn without_an_archive_nothing_is_promised() {
    let world = World::new();
    let engine = world.without_archive().await;
    let id = create(&engine).await;
    let refused = engine.sandbox_archive(&owner(), &id).await.unwrap_err();
    assert_eq!(refused.code, Code::Unsupported);
    assert_eq!(state(&world, &id).await.as_str(), "running");
    let policy = SleepPolicy {
        archive_after: Some(Duration::from_secs(1)),
        ..SleepPolicy::NEVER
    };
    let refused = engine.sandbox_sleep_policy(&owner(), &id, policy).await;
    assert_eq!(refused.unwrap_err().code, Code::Unsupported);
}
