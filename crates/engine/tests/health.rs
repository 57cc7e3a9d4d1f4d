//! Guests that do not answer.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod common;

use std::time::Duration;

use common::{MUTE, PATIENCE, World, eventually, owner, request};
use woodfrog_core::health::HealthPolicy;
use woodfrog_engine::{Engine, Options};
use woodfrog_sandbox::Capability;
use woodfrog_sandbox::fake::{Call, FakeDriver};
use woodfrog_store::{EventStore as _, SandboxStore as _};
use woodfrog_types::SandboxId;

fn options(world: &World) -> Options {
    let mut options = world.options();
    options.guest_timeout = MUTE;
    options.health = Some(HealthPolicy {
        interval: Duration::from_millis(5),
        timeout: Duration::from_millis(25),
        misses: 3,
    });
    options
}

async fn create(engine: &Engine) -> SandboxId {
    let view = engine.sandbox_create(&owner(), request()).await.unwrap();
    view.sandbox.id
}

async fn state(world: &World, id: &SandboxId) -> Option<&'static str> {
    let stored = world.store.sandbox_fetch(id).await.unwrap();
    stored.map(|stored| stored.state.as_str())
}

async fn count(world: &World, id: &SandboxId, kind: &str) -> usize {
    let log = world.store.event_list(id, 0, 1000).await.unwrap();
    log.iter().filter(|event| event.kind == kind).count()
}

/// Mutes the guest until its sandbox is put away for that.
async fn silent(world: &World, id: &SandboxId) {
    let before = world.driver.calls(Call::Checkpoint);
    let events = count(world, id, "sandbox.unresponsive").await;
    world.driver.guest().set_mute(true);
    eventually("it is put away", async || {
        world.driver.calls(Call::Checkpoint) > before
    })
    .await;
    world.driver.guest().set_mute(false);
    assert!(count(world, id, "sandbox.unresponsive").await > events);
}

async fn answers(engine: &Engine, id: &SandboxId) -> bool {
    match engine.guest(id).await {
        Ok(guest) => guest.hello().await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_guest_that_does_not_answer_is_started_anew_and_again() {
    let world = World::new();
    let engine = world.ready_with(options(&world)).await;
    let id = create(&engine).await;
    for _ in 0..2 {
        eventually("it answers", async || answers(&engine, &id).await).await;
        let reader = engine.guest(&id).await.unwrap().quiet();
        assert_eq!(reader.began_anew(), None);
        silent(&world, &id).await;
        eventually("it answers again", async || answers(&engine, &id).await).await;
        // Who read from its processes is told that they are gone.
        let told = tokio::time::timeout(PATIENCE, reader.ended());
        told.await.unwrap();
        assert!(reader.began_anew().is_some());
        assert_eq!(state(&world, &id).await, Some("running"));
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn a_guest_that_answers_is_left_alone() {
    let world = World::new();
    let engine = world.ready_with(options(&world)).await;
    let id = create(&engine).await;
    eventually("it was asked often", async || {
        world.driver.calls(Call::Connect) > 30
    })
    .await;
    assert_eq!(count(&world, &id, "sandbox.unresponsive").await, 0);
    assert_eq!(world.driver.calls(Call::Checkpoint), 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_started_anew_is_lost_in_the_end() {
    let mut world = World::new();
    let driver = FakeDriver::new(world.dir.path().join("uppers"));
    let driver = driver.without(Capability::FilesystemSnapshot, "not here");
    world.driver = std::sync::Arc::new(driver);
    let engine = world.ready_with(options(&world)).await;
    let id = create(&engine).await;
    world.driver.guest().set_mute(true);
    eventually("it is lost", async || state(&world, &id).await.is_none()).await;
    assert_eq!(count(&world, &id, "sandbox.unresponsive").await, 4);
    assert_eq!(count(&world, &id, "sandbox.lost").await, 1);
    engine.shutdown().await;
}
