//! What a start of the server makes of what the one before left.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod common;

use std::time::Duration;

use common::{World, base, eventually, owner, request};
use woodfrog_sandbox::fake::Call;
use woodfrog_store::{Damaged, EventStore as _, SandboxStore as _};
use woodfrog_types::Code;
use woodfrog_types::sandbox::{EndReason, SandboxState};

#[test]
fn running_sandboxes_are_adopted() {
    let world = World::new();
    let (id, token) = world.killed_after(async |engine| {
        let view = engine.sandbox_create(&owner(), request()).await.unwrap();
        (view.sandbox.id, view.access_token)
    });
    assert_eq!(world.driver.sandboxes(), std::slice::from_ref(&id));
    world.killed_after(async |engine| {
        eventually("it is reachable", async || engine.access(&id).await.is_ok()).await;
        let access = engine.access(&id).await.unwrap();
        assert_eq!(access.access_token, token, "the secret survives");
        engine.sandbox_delete(&owner(), &id).await.unwrap();
        assert!(world.driver.sandboxes().is_empty());
    });
}

#[test]
fn a_server_killed_between_intent_and_launch_leaves_nothing() {
    let world = World::new();
    world.killed_after(async |engine| {
        world
            .driver
            .set_delay(Call::Launch, Duration::from_secs(3600));
        let mut wanted = request();
        wanted.idempotency_key = Some("k".into());
        let create = tokio::spawn(async move { engine.sandbox_create(&owner(), wanted).await });
        eventually("the intent is recorded", async || {
            !world.store.sandbox_all().await.unwrap().is_empty()
        })
        .await;
        create.abort();
    });
    world.driver.set_delay(Call::Launch, Duration::ZERO);
    let intended = std::thread::scope(|scope| {
        scope
            .spawn(|| block(world.store.sandbox_all()))
            .join()
            .unwrap()
    });
    assert!(matches!(intended.unwrap()[0].state, SandboxState::Creating));
    world.killed_after(async |engine| {
        assert!(world.store.sandbox_all().await.unwrap().is_empty());
        // The key that led to nothing can be used again.
        let mut wanted = request();
        wanted.idempotency_key = Some("k".into());
        engine.sandbox_create(&owner(), wanted).await.unwrap();
    });
}

#[test]
fn a_damaged_record_keeps_its_sandbox_and_hides_no_other() {
    let world = World::new();
    let (damaged, sound) = world.killed_after(async |engine| {
        let mut ids = Vec::new();
        for _ in 0..2 {
            let view = engine.sandbox_create(&owner(), request()).await.unwrap();
            ids.push(view.sandbox.id);
        }
        assert_eq!(engine.running(), 2);
        (ids.remove(0), ids.remove(0))
    });
    let damage = |id| Damaged {
        id,
        detail: "state: unknown".to_owned(),
    };
    world.store.set_damaged(vec![damage(Some(damaged.clone()))]);
    world.killed_after(async |engine| {
        eventually("the other is reachable", async || {
            engine.access(&sound).await.is_ok()
        })
        .await;
        assert_eq!(engine.running(), 1);
        assert!(world.driver.sandboxes().contains(&damaged), "it runs on");
    });
    // A record without a readable id may be about anything that runs.
    world.store.set_damaged(vec![damage(None)]);
    world.killed_after(async |_| {
        world.store.sandbox_remove(&damaged, vec![]).await.unwrap();
    });
    world.killed_after(async |engine| {
        eventually("the other is reachable", async || {
            engine.access(&sound).await.is_ok()
        })
        .await;
        assert!(world.driver.sandboxes().contains(&damaged), "it runs on");
    });
    world.store.set_damaged(vec![]);
    world.killed_after(async |_| {
        assert_eq!(world.driver.sandboxes(), std::slice::from_ref(&sound));
    });
}

#[test]
fn what_the_driver_knows_better_is_stored() {
    let world = World::new();
    let id = world.killed_after(async |engine| {
        let view = engine.sandbox_create(&owner(), request()).await.unwrap();
        view.sandbox.id
    });
    world.driver.set_instance(&id, "{\"fake\":\"newer\"}");
    world.killed_after(async |engine| {
        let stored = world.store.sandbox_fetch(&id).await.unwrap().unwrap();
        let SandboxState::Running { instance } = &stored.state else {
            panic!("{:?}", stored.state)
        };
        assert_eq!(instance.0, "{\"fake\":\"newer\"}");
        // Its owner goes on from that record.
        engine.sandbox_delete(&owner(), &id).await.unwrap();
    });
}

#[test]
fn what_was_lost_is_forgotten() {
    let world = World::new();
    let id = world.killed_after(async |engine| {
        engine
            .sandbox_create(&owner(), request())
            .await
            .unwrap()
            .sandbox
            .id
    });
    world.driver.lose(&id);
    world.killed_after(async |engine| {
        assert_eq!(
            engine.access(&id).await.unwrap_err().code,
            Code::SandboxNotFound
        );
        assert!(world.store.sandbox_all().await.unwrap().is_empty());
        let log = world.store.event_list(&id, 0, 10).await.unwrap();
        assert_eq!(log.last().unwrap().kind, "sandbox.lost");
    });
}

#[test]
fn a_deletion_is_finished() {
    let world = World::new();
    let id = world.killed_after(async |engine| {
        engine
            .sandbox_create(&owner(), request())
            .await
            .unwrap()
            .sandbox
            .id
    });
    block(async {
        let mut record = world.store.sandbox_fetch(&id).await.unwrap().unwrap();
        record.generation += 1;
        record.state = SandboxState::Deleting {
            reason: EndReason::Requested,
        };
        world
            .store
            .sandbox_update(&record, Vec::new())
            .await
            .unwrap();
    });
    world.killed_after(async |_| {
        assert!(world.driver.sandboxes().is_empty());
        assert!(world.store.sandbox_all().await.unwrap().is_empty());
    });
}

#[test]
fn what_expired_meanwhile_ends() {
    let world = World::new();
    let id = world.killed_after(async |engine| {
        let mut wanted = request();
        wanted.timeout = Some(Duration::from_millis(50));
        engine
            .sandbox_create(&owner(), wanted)
            .await
            .unwrap()
            .sandbox
            .id
    });
    world.killed_after(async |engine| {
        eventually("it is gone", async || {
            engine.sandbox_fetch(&owner(), &id).await.is_err()
        })
        .await;
        eventually("all of it", async || world.driver.sandboxes().is_empty()).await;
    });
}

#[tokio::test]
async fn leftovers_of_nobody_are_swept() {
    let world = World::new();
    let engine = world.start().await;
    base(&engine).await;
    let id = engine
        .sandbox_create(&owner(), request())
        .await
        .unwrap()
        .sandbox
        .id;
    engine.shutdown().await;
    world.store.sandbox_remove(&id, Vec::new()).await.unwrap();
    world.start().await;
    assert!(world.driver.sandboxes().is_empty());
}

fn block<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}
