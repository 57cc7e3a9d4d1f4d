//! Sandboxes made ahead: who gets them, and that nobody else sees them.

mod common;

use common::{PATIENCE, World, eventually, owner, request};
use woodfrog_engine::{Engine, Options};
use woodfrog_guest_client::proto::Request;
use woodfrog_sandbox::fake::Call;
use woodfrog_store::SandboxStore as _;
use woodfrog_types::page::PageRequest;
use woodfrog_types::sandbox::{Resources, SandboxFilter, SandboxState};
use woodfrog_types::{Code, SandboxId};

fn with_spares(world: &World, spares: usize) -> Options {
    let mut options = world.options();
    options.spares = spares;
    options
}

/// Asks for two sandboxes, so that there are spares, and waits for those.
async fn with_some_ready(world: &World, spares: usize) -> Engine {
    let engine = world.ready_with(with_spares(world, spares)).await;
    create(&engine).await;
    assert_eq!(engine.spares(), 0, "one create is no habit");
    create(&engine).await;
    ready(&engine, spares).await;
    engine
}

async fn create(engine: &Engine) -> SandboxId {
    let made = engine.sandbox_create(&owner(), request()).await;
    made.expect("a sandbox").sandbox.id
}

async fn ready(engine: &Engine, count: usize) {
    eventually("the spares are ready", async || engine.spares() == count).await;
}

#[tokio::test]
async fn a_create_takes_one_that_was_made_ahead_and_another_is_made() {
    let world = World::new();
    let engine = with_some_ready(&world, 2).await;
    let before = world.driver.calls(Call::Launch);
    let ahead = world.driver.sandboxes();
    let mut wanted = request();
    wanted.env.insert("A".into(), "1".into());
    let view = engine.sandbox_create(&owner(), wanted).await.unwrap();
    let id = view.sandbox.id;
    assert!(ahead.contains(&id), "it was launched for this create");
    let stored = world.store.sandbox_fetch(&id).await.unwrap().unwrap();
    assert!(matches!(stored.state, SandboxState::Running { .. }));
    let heard = world.driver.guest().heard();
    let told = heard.iter().filter_map(|heard| match &heard.request {
        Request::Configure(told) => told.env.as_ref(),
        _ => None,
    });
    let told: Vec<_> = told.filter(|env| env.contains_key("A")).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["E2B_SANDBOX_ID"], id.as_str());
    ready(&engine, 2).await;
    assert_eq!(world.driver.calls(Call::Launch), before + 1);
}

#[tokio::test]
async fn nobody_sees_one_that_belongs_to_nobody() {
    let world = World::new();
    let engine = with_some_ready(&world, 2).await;
    assert_eq!(world.driver.sandboxes().len(), 4);
    assert_eq!(world.store.sandbox_all().await.unwrap().len(), 2);
    let me = owner();
    let page = PageRequest {
        limit: 10,
        cursor: None,
    };
    let listed = engine
        .sandbox_list(&me, SandboxFilter::default(), page)
        .await;
    let listed: Vec<_> = listed.unwrap().items;
    assert_eq!(listed.len(), 2);
    assert_eq!(engine.running(), 2);
    let mine: Vec<_> = listed.iter().map(|view| &view.sandbox.id).collect();
    for id in world.driver.sandboxes() {
        if !mine.contains(&&id) {
            let fault = engine.sandbox_fetch(&me, &id).await.unwrap_err();
            assert_eq!(fault.code, Code::SandboxNotFound);
            let fault = engine.sandbox_delete(&me, &id).await.unwrap_err();
            assert_eq!(fault.code, Code::SandboxNotFound);
        }
    }
}

#[tokio::test]
async fn the_rules_asked_for_are_in_force_before_it_is_given_out() {
    let world = World::new();
    let engine = with_some_ready(&world, 1).await;
    let before = world.driver.calls(Call::SetEgress);
    create(&engine).await;
    assert_eq!(
        world.driver.calls(Call::SetEgress),
        before,
        "they are the same"
    );
    ready(&engine, 1).await;
    let ahead = world.driver.sandboxes();
    let mut closed = request();
    closed.network.internet = false;
    let view = engine.sandbox_create(&owner(), closed).await.unwrap();
    assert!(ahead.contains(&view.sandbox.id));
    assert_eq!(world.driver.calls(Call::SetEgress), before + 1);
    let spec = world.driver.spec(&view.sandbox.id).unwrap();
    assert!(!spec.egress.internet);
}

#[tokio::test]
async fn another_size_is_another_kind() {
    let world = World::new();
    let engine = with_some_ready(&world, 1).await;
    let mut big = request();
    let resources = Resources {
        memory_bytes: 2 << 30,
        ..Resources::default()
    };
    big.resources = Some(resources);
    let view = engine.sandbox_create(&owner(), big.clone()).await.unwrap();
    let spec = world.driver.spec(&view.sandbox.id).unwrap();
    assert_eq!(spec.resources, resources);
    assert_eq!(engine.spares(), 1, "the other kind's stays");
    engine.sandbox_create(&owner(), big).await.unwrap();
    ready(&engine, 2).await;
}

#[tokio::test]
async fn one_that_ended_is_replaced_by_a_new_one() {
    let world = World::new();
    let engine = with_some_ready(&world, 1).await;
    let all = world.store.sandbox_all().await.unwrap();
    let spare = world.driver.sandboxes().into_iter();
    let spare: Vec<_> = spare
        .filter(|id| all.iter().all(|known| known.id != *id))
        .collect();
    world.driver.lose(&spare[0]);
    let id = create(&engine).await;
    assert!(world.driver.spec(&id).is_some());
    let lease = engine.guest(&id).await.unwrap();
    lease.hello().await.unwrap();
}

#[tokio::test]
async fn a_create_that_fails_leaves_nothing_of_the_one_it_took() {
    let world = World::new();
    let engine = with_some_ready(&world, 1).await;
    world.driver.set_broken(Call::Connect, true);
    let fault = engine.sandbox_create(&owner(), request()).await;
    assert_eq!(fault.unwrap_err().code, Code::CreateFailed);
    world.driver.set_broken(Call::Connect, false);
    ready(&engine, 1).await;
    assert_eq!(world.driver.sandboxes().len(), 3);
    assert_eq!(world.store.sandbox_all().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_machine_that_cannot_make_more_is_not_asked_again_and_again() {
    let world = World::new();
    let engine = world.ready_with(with_spares(&world, 3)).await;
    create(&engine).await;
    let before = world.driver.calls(Call::Launch);
    world.driver.fail_nth(Call::Launch, before + 2);
    create(&engine).await;
    eventually("it was tried", async || {
        world.driver.calls(Call::Launch) >= before + 2
    })
    .await;
    tokio::task::yield_now().await;
    assert_eq!(engine.spares(), 0);
    create(&engine).await;
    ready(&engine, 3).await;
}

#[tokio::test]
async fn a_stopping_server_keeps_none() {
    let world = World::new();
    let engine = with_some_ready(&world, 3).await;
    engine.shutdown().await;
    assert_eq!(world.driver.sandboxes().len(), 2);
}

#[test]
fn those_of_a_server_that_was_killed_are_removed_by_the_next() {
    let world = World::new();
    world.killed_after_with(with_spares(&world, 2), async |engine| {
        create(&engine).await;
        create(&engine).await;
        ready(&engine, 2).await;
    });
    assert_eq!(world.driver.sandboxes().len(), 4);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let engine = world.start().await;
        assert_eq!(world.driver.sandboxes().len(), 2);
        assert_eq!(engine.running(), 2);
        let lease = engine.guest(&world.driver.sandboxes()[0]).await.unwrap();
        let hello = tokio::time::timeout(PATIENCE, lease.hello());
        hello.await.unwrap().unwrap();
    });
}
