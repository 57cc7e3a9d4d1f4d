//! The removal of layers that nothing needs, and what keeps one.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod common;

use std::time::Duration;

use common::{LAYER_BYTES, World, eventually, owner, request};
use woodfrog_engine::{
    CreateSandbox, Engine, HibernateRequest, NewTemplate, Options, ResumeRequest, StartBuild,
    TemplateBase, TemplateStep,
};
use woodfrog_sandbox::fake::Call;
use woodfrog_store::TemplateStore as _;
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::template::{Build, BuildState};
use woodfrog_types::{BuildId, SandboxId, TemplateId};

fn from_image(reference: &str, commands: &[&str]) -> StartBuild {
    let run = |command: &&str| TemplateStep::Run {
        command: (*command).to_owned(),
        user: None,
        force: false,
    };
    StartBuild {
        base: TemplateBase::Image {
            reference: reference.to_owned(),
            username: None,
            password: None,
        },
        steps: commands.iter().map(run).collect(),
        start_cmd: None,
        ready_cmd: None,
        force: false,
    }
}

async fn begin(engine: &Engine, name: &str, wanted: StartBuild) -> (TemplateId, BuildId) {
    let new = NewTemplate {
        name: name.to_owned(),
        tags: Vec::new(),
        resources: None,
    };
    let view = engine.template_request(&owner(), new).await.unwrap();
    let (template, build) = (view.template.id, view.build.id);
    let me = owner();
    let begun = engine.template_build(&me, &template, &build, wanted);
    begun.await.unwrap();
    (template, build)
}

async fn ended(engine: &Engine, (template, build): (TemplateId, BuildId)) -> Build {
    let me = owner();
    let fetch = async || {
        engine
            .build_fetch(&me, &template, &build)
            .await
            .unwrap()
            .build
    };
    eventually("the build ends", async || {
        fetch().await.finished_at.is_some()
    })
    .await;
    fetch().await
}

async fn built(engine: &Engine, name: &str, wanted: StartBuild) -> Vec<String> {
    let begun = begin(engine, name, wanted).await;
    match ended(engine, begun).await.state {
        BuildState::Ready(image) => image.layers,
        other => panic!("{other:?}"),
    }
}

async fn sandbox(engine: &Engine, template: &str) -> SandboxId {
    let wanted = CreateSandbox {
        template: template.to_owned(),
        ..request()
    };
    let made = engine.sandbox_create(&owner(), wanted).await.unwrap();
    made.sandbox.id
}

async fn collect(engine: &Engine) -> (u64, u64) {
    let gone = engine.layers_collect(&owner()).await.unwrap();
    assert_eq!(gone.bytes, gone.layers * LAYER_BYTES);
    (gone.layers, gone.cached_bytes)
}

/// Options with room for so many layers in the cache of build steps.
fn caching(world: &World, layers: u64) -> Options {
    let mut options = world.options();
    options.build_cache_bytes = layers * LAYER_BYTES;
    options
}

#[tokio::test]
async fn what_is_needed_stays_and_the_rest_goes() {
    let world = World::new();
    let engine = world.ready_with(caching(&world, 0)).await;
    let me = owner();
    let a = built(&engine, "a", from_image("a:1", &["true"])).await;
    let b = built(&engine, "b", from_image("b:1", &["true"])).await;
    let has = |layers: &[String]| {
        let there = world.images.names();
        layers.iter().all(|layer| there.contains(layer))
    };
    let none = |layers: &[String]| {
        let there = world.images.names();
        !layers.iter().any(|layer| there.contains(layer))
    };
    let running = sandbox(&engine, "a").await;
    let asleep = sandbox(&engine, "b").await;
    let sleep = HibernateRequest {
        content: SnapshotContent::Memory,
        cause: SleepCause::Requested,
    };
    engine.sandbox_hibernate(&me, &asleep, sleep).await.unwrap();
    assert_eq!(collect(&engine).await, (0, 0), "two templates need them");
    // One runs on them, though its template is gone, over a restart, too.
    engine.template_delete(&me, "a").await.unwrap();
    assert_eq!(collect(&engine).await, (0, 0));
    engine.shutdown().await;
    let engine = world.ready_with(caching(&world, 0)).await;
    assert_eq!(collect(&engine).await, (0, 0));
    assert!(has(&a) && has(&b));
    engine.sandbox_delete(&me, &running).await.unwrap();
    // By this one, or by the one of the start.
    collect(&engine).await;
    assert!(none(&a) && has(&b));
    assert_eq!(collect(&engine).await, (0, 0));
    let resume = ResumeRequest {
        content: SnapshotContent::Memory,
        deadline: None,
        on_timeout: None,
    };
    engine.sandbox_resume(&me, &asleep, resume).await.unwrap();
    engine.sandbox_delete(&me, &asleep).await.unwrap();
    // Nobody has to ask: the removal of a template does.
    engine.template_delete(&me, "b").await.unwrap();
    eventually("they go", async || none(&b)).await;
    // Nor after a start.
    let c = built(&engine, "c", from_image("c:1", &["true"])).await;
    let views = engine.template_resolve(&me, "c").await.unwrap();
    engine.shutdown().await;
    world
        .store
        .template_remove(&views.template.id)
        .await
        .unwrap();
    let engine = world.ready_with(caching(&world, 0)).await;
    eventually("they go", async || none(&c)).await;
    // The server's own base is there all the time.
    sandbox(&engine, "base").await;
    engine.shutdown().await;
}

#[tokio::test]
async fn the_cache_of_steps_is_kept_within_its_limit() {
    let world = World::new();
    let engine = world.ready_with(caching(&world, 1)).await;
    let me = owner();
    let layers = built(&engine, "a", from_image("a:1", &["one", "two"])).await;
    engine.template_delete(&me, "a").await.unwrap();
    eventually("two go", async || world.images.names().len() == 2).await;
    assert_eq!(collect(&engine).await, (0, LAYER_BYTES));
    assert!(
        world.images.names().contains(&layers[2]),
        "the newest is kept"
    );
    assert_eq!(world.store.layers_cached().await.unwrap(), layers[2..]);
    // What the cache lacks is made again.
    let again = built(&engine, "a", from_image("a:1", &["one", "two"])).await;
    assert_ne!(again[1], layers[1]);
    sandbox(&engine, "a").await;
    engine.shutdown().await;
}

#[tokio::test]
async fn a_build_keeps_what_it_found_and_made() {
    let world = World::new();
    let engine = world.ready_with(caching(&world, 0)).await;
    let me = owner();
    built(&engine, "source", from_image("s:1", &["one"])).await;
    let child = StartBuild {
        base: TemplateBase::Template("source".to_owned()),
        ..from_image("", &["two", "three", "four"])
    };
    world
        .driver
        .set_delay(Call::Launch, Duration::from_millis(100));
    let before = world.driver.calls(Call::Launch);
    let begun = begin(&engine, "child", child).await;
    // What it started from loses its template, and what it made has no record yet.
    engine.template_delete(&me, "source").await.unwrap();
    for launches in 1..=3 {
        eventually("the next step runs", async || {
            world.driver.calls(Call::Launch) >= before + launches
        })
        .await;
        collect(&engine).await;
    }
    let build = ended(&engine, begun).await;
    let BuildState::Ready(image) = &build.state else {
        panic!("{build:?}")
    };
    assert_eq!(image.layers.len(), 5);
    assert_eq!(collect(&engine).await, (0, 0));
    // So does a sandbox that is being made of it.
    let before = world.driver.calls(Call::Launch);
    let making = {
        let engine = engine.clone();
        tokio::spawn(async move { sandbox(&engine, "child").await })
    };
    eventually("the launch began", async || {
        world.driver.calls(Call::Launch) > before
    })
    .await;
    engine.template_delete(&me, "child").await.unwrap();
    collect(&engine).await;
    let id = making.await.unwrap();
    let there = world.images.names();
    assert!(image.layers.iter().all(|layer| there.contains(layer)));
    engine.sandbox_delete(&me, &id).await.unwrap();
    collect(&engine).await;
    assert_eq!(world.images.names(), ["base"]);
    engine.shutdown().await;
}

#[tokio::test]
async fn spares_keep_their_layers() {
    let world = World::new();
    let mut options = caching(&world, 0);
    options.spares = 1;
    let engine = world.ready_with(options).await;
    let me = owner();
    let layers = built(&engine, "a", from_image("a:1", &["one"])).await;
    let mut made = Vec::new();
    for _ in 0..2 {
        made.push(sandbox(&engine, "a").await);
    }
    eventually("a spare is ready", async || engine.spares() == 1).await;
    for id in &made {
        engine.sandbox_delete(&me, id).await.unwrap();
    }
    engine.template_delete(&me, "a").await.unwrap();
    assert_eq!(collect(&engine).await, (0, 0));
    let there = world.images.names();
    assert!(layers.iter().all(|layer| there.contains(layer)));
    engine.shutdown().await;
}
