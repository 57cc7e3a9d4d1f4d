//! Volumes in sandboxes: who has one, and what keeps one from being removed.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{World, eventually, owner, request};
use woodfrog_engine::volume::{Attributes, Parents, Places};
use woodfrog_engine::{
    CheckpointRequest, CreateSandbox, Engine, ForkRequest, HibernateRequest, ResumeRequest,
    VolumeContent,
};
use woodfrog_sandbox::Capability;
use woodfrog_sandbox::fake::{Call, FakeDriver};
use woodfrog_types::page::PageRequest;
use woodfrog_types::secret::{VolumeMount, WantedMount};
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::{SnapshotContent, SnapshotFilter};
use woodfrog_types::{Code, Fault, SandboxId, VolumeId};

fn with(mounts: &[(&str, &str)]) -> CreateSandbox {
    let mount = |(name, path): &(&str, &str)| WantedMount {
        name: (*name).to_owned(),
        path: (*path).to_owned(),
    };
    CreateSandbox {
        volumes: mounts.iter().map(mount).collect(),
        ..request()
    }
}

async fn volume(engine: &Engine, name: &str) -> VolumeId {
    let made = engine.volume_create(&owner(), name, None).await.unwrap();
    made.volume.id
}

async fn create(engine: &Engine, request: CreateSandbox) -> SandboxId {
    let made = engine.sandbox_create(&owner(), request).await.unwrap();
    made.sandbox.id
}

async fn mounts(engine: &Engine, id: &SandboxId) -> Vec<VolumeMount> {
    let found = engine.sandbox_fetch(&owner(), id).await.unwrap();
    found.sandbox.volumes
}

fn refused<T: std::fmt::Debug>(result: Result<T, Fault>, code: Code, about: &str) {
    let fault = result.unwrap_err();
    assert_eq!(fault.code, code, "{fault:?}");
    assert!(fault.message.contains(about), "{fault:?}");
}

async fn hibernate(engine: &Engine, id: &SandboxId) {
    let request = HibernateRequest {
        content: SnapshotContent::Memory,
        cause: SleepCause::Requested,
    };
    let slept = engine.sandbox_hibernate(&owner(), id, request).await;
    slept.unwrap();
}

#[tokio::test]
async fn one_in_use_is_kept_on_every_rung_and_over_a_restart() {
    let world = World::new();
    let engine = world.ready().await;
    let me = owner();
    let used = volume(&engine, "used").await;
    let id = create(&engine, with(&[("used", "/data/")])).await;
    let expected = VolumeMount {
        volume: used.clone(),
        name: "used".to_owned(),
        path: "/data".to_owned(),
    };
    assert_eq!(mounts(&engine, &id).await, std::slice::from_ref(&expected));
    let spec = world.driver.spec(&id).unwrap();
    assert_eq!(spec.volumes.len(), 1);
    assert!(spec.volumes[0].source.is_dir());
    let kept = async |engine: &Engine| {
        let removed = engine.volume_delete(&me, &used).await;
        refused(removed, Code::Conflict, id.as_str());
    };
    kept(&engine).await;
    engine.sandbox_pause(&me, &id).await.unwrap();
    kept(&engine).await;
    hibernate(&engine, &id).await;
    kept(&engine).await;
    engine.sandbox_archive(&me, &id).await.unwrap();
    kept(&engine).await;
    engine.shutdown().await;

    let engine = world.ready().await;
    kept(&engine).await;
    let resume = ResumeRequest {
        content: SnapshotContent::Memory,
        deadline: None,
        on_timeout: None,
    };
    engine.sandbox_resume(&me, &id, resume).await.unwrap();
    assert_eq!(mounts(&engine, &id).await, [expected]);
    assert_eq!(world.driver.spec(&id).unwrap().volumes, spec.volumes);
    engine.sandbox_delete(&me, &id).await.unwrap();
    engine.volume_delete(&me, &used).await.unwrap();
    assert!(!spec.volumes[0].source.exists());
    engine.shutdown().await;
}

#[tokio::test]
async fn one_that_a_sandbox_is_being_made_with_is_kept() {
    let world = World::new();
    let engine = world.ready().await;
    let me = owner();
    let used = volume(&engine, "used").await;
    world
        .driver
        .set_delay(Call::Launch, Duration::from_millis(300));
    let making = {
        let engine = engine.clone();
        tokio::spawn(async move { create(&engine, with(&[("used", "/data")])).await })
    };
    eventually("the launch began", async || {
        world.driver.calls(Call::Launch) > 0
    })
    .await;
    let removed = engine.volume_delete(&me, &used).await;
    refused(removed, Code::Conflict, "'used'");
    let id = making.await.unwrap();
    engine.sandbox_delete(&me, &id).await.unwrap();
    // One that is not made keeps nothing.
    world.driver.set_broken(Call::Launch, true);
    let failed = engine.sandbox_create(&me, with(&[("used", "/data")])).await;
    assert!(failed.is_err());
    engine.volume_delete(&me, &used).await.unwrap();
    engine.shutdown().await;
}

#[tokio::test]
async fn copies_have_the_volumes_of_their_source() {
    let world = World::new();
    let engine = world.ready().await;
    let me = owner();
    let one = volume(&engine, "one").await;
    volume(&engine, "two").await;
    let id = create(&engine, with(&[("one", "/data")])).await;
    let source = mounts(&engine, &id).await;
    let fork = ForkRequest {
        count: 1,
        timeout: None,
    };
    let forked = engine.sandbox_fork(&me, &id, fork).await.unwrap();
    let fork = forked.into_iter().next().unwrap().unwrap();
    assert_eq!(fork.sandbox.volumes, source);
    let mut made = vec![id.clone(), fork.sandbox.id];
    for content in [SnapshotContent::Memory, SnapshotContent::Filesystem] {
        let checkpoint = CheckpointRequest {
            name: None,
            content,
            labels: BTreeMap::new(),
        };
        let taken = engine.sandbox_checkpoint(&me, &id, checkpoint).await;
        let template = taken.unwrap().id.to_string();
        let from = |mounts: &[(&str, &str)]| CreateSandbox {
            template: template.clone(),
            ..with(mounts)
        };
        let copy = create(&engine, from(&[])).await;
        assert_eq!(mounts(&engine, &copy).await, source);
        made.push(copy);
        made.push(create(&engine, from(&[("one", "/data")])).await);
        let others = engine.sandbox_create(&me, from(&[("two", "/data")])).await;
        match content {
            SnapshotContent::Memory => refused(others, Code::InvalidArgument, "its source"),
            SnapshotContent::Filesystem => made.push(others.unwrap().sandbox.id),
        }
    }
    for id in &made {
        engine.sandbox_delete(&me, id).await.unwrap();
    }
    engine.volume_delete(&me, &one).await.unwrap();
    let page = PageRequest {
        limit: 10,
        cursor: None,
    };
    let snapshots = engine.snapshot_list(&me, SnapshotFilter::default(), page);
    let snapshots = snapshots.await.unwrap().items;
    assert_eq!(snapshots.len(), 2);
    for snapshot in snapshots {
        let late = CreateSandbox {
            template: snapshot.id.to_string(),
            ..request()
        };
        let late = engine.sandbox_create(&me, late).await;
        refused(late, Code::InvalidArgument, "volume 'one'");
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn one_whose_files_are_lost_stops_the_start_with_the_reason() {
    let world = World::new();
    let engine = world.ready().await;
    let me = owner();
    volume(&engine, "lost").await;
    let id = create(&engine, with(&[("lost", "/data")])).await;
    let source = world.driver.spec(&id).unwrap().volumes[0].source.clone();
    hibernate(&engine, &id).await;
    std::fs::remove_dir(&source).unwrap();
    let made = engine.sandbox_create(&me, with(&[("lost", "/x")])).await;
    refused(made, Code::InvalidArgument, "'lost'");
    let resume = ResumeRequest {
        content: SnapshotContent::Memory,
        deadline: None,
        on_timeout: None,
    };
    let woken = engine.sandbox_resume(&me, &id, resume).await;
    refused(woken, Code::WakeFailed, "'lost'");
    assert_eq!(world.driver.sandboxes(), []);
    let still = engine.sandbox_fetch(&me, &id).await.unwrap();
    assert_eq!(still.sandbox.state.as_str(), "hibernated");
    std::fs::create_dir(&source).unwrap();
    engine.sandbox_resume(&me, &id, resume).await.unwrap();
    engine.shutdown().await;
}

#[tokio::test]
async fn one_made_ahead_is_not_taken_where_volumes_are_asked_for() {
    let world = World::new();
    let mut options = world.options();
    options.spares = 1;
    let engine = world.ready_with(options).await;
    volume(&engine, "data").await;
    for _ in 0..2 {
        create(&engine, request()).await;
    }
    eventually("a spare is ready", async || engine.spares() == 1).await;
    let ahead = world.driver.sandboxes();
    let id = create(&engine, with(&[("data", "/data")])).await;
    assert!(!ahead.contains(&id));
    assert_eq!(world.driver.spec(&id).unwrap().volumes.len(), 1);
    let plain = create(&engine, request()).await;
    assert!(ahead.contains(&plain));
    assert_eq!(world.driver.spec(&plain).unwrap().volumes, []);
    engine.shutdown().await;
}

/// Places that are plain directories.
#[derive(Debug)]
struct Directories;

impl Places for Directories {
    fn make(&self, path: &Path, bytes: u64) -> std::io::Result<()> {
        std::fs::create_dir(path)?;
        std::fs::write(path.join("limit"), bytes.to_string())
    }

    fn used(&self, path: &Path) -> std::io::Result<u64> {
        std::fs::metadata(path.join("limit")).map(|_| 4096)
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        std::fs::remove_dir_all(path)
    }
}

#[tokio::test]
async fn new_ones_have_limits_and_old_ones_stay_as_they_are() {
    let mut world = World::new();
    let me = owner();
    let engine = world.ready().await;
    let refusal = engine.volume_create(&me, "big", Some(1 << 30)).await;
    refused(refusal, Code::Unsupported, "no limits on this server");
    let old = engine.volume_create(&me, "old", None).await.unwrap();
    assert_eq!((old.volume.size_bytes, old.used), (None, None));
    let before = engine.volume_content(&old.volume.id, &old.token).await;
    make_dir(before.unwrap(), "/kept").await;
    engine.shutdown().await;

    let mut options = world.options();
    options.volume_places = Some(Arc::new(Directories));
    options.volume_bytes = 3 << 30;
    options.volume_bytes_max = 5 << 30;
    let engine = world.ready_with(options.clone()).await;
    for (size, expected) in [(None, 3 << 30), (Some(5 << 30), 5 << 30)] {
        let name = format!("new-{expected}");
        let made = engine.volume_create(&me, &name, size).await.unwrap();
        assert_eq!(made.volume.size_bytes, Some(expected));
        assert_eq!(made.used, Some(4096));
        let found = engine.volume_find(&me, &name).await.unwrap();
        assert_eq!(found.volume, made.volume);
        let id = create(&engine, with(&[(&name, "/data")])).await;
        let source = world.driver.spec(&id).unwrap().volumes[0].source.clone();
        assert_eq!(source.file_name().unwrap(), made.volume.id.as_str());
        let limit = std::fs::read_to_string(source.with_file_name("limit")).unwrap();
        assert_eq!(limit, expected.to_string());
        // What goes in through the API is what the sandbox sees.
        let content = engine.volume_content(&made.volume.id, &made.token).await;
        make_dir(content.unwrap(), "/seen").await;
        assert!(source.join("seen").is_dir());
        engine.sandbox_delete(&me, &id).await.unwrap();
        engine.volume_delete(&me, &made.volume.id).await.unwrap();
        assert!(!source.with_file_name("limit").exists());
    }
    for size in [0, (1 << 20) - 1, (5 << 30) + 1] {
        let refusal = engine.volume_create(&me, "odd", Some(size)).await;
        refused(refusal, Code::InvalidArgument, "a volume holds");
    }
    // The old one has no limit, and all that was in it.
    let content = engine.volume_content(&old.volume.id, &old.token).await;
    let stat = content.unwrap().run(|_, tree| tree.stat("/kept")).await;
    stat.unwrap();
    let id = create(&engine, with(&[("old", "/data")])).await;
    let source = world.driver.spec(&id).unwrap().volumes[0].source.clone();
    assert!(source.join("kept").is_dir());
    let page = PageRequest {
        limit: 10,
        cursor: None,
    };
    let listed = engine.volume_page(&me, &page).await.unwrap().items;
    let listed: Vec<_> = listed.iter().map(|one| (one.used, &*one.token)).collect();
    assert_eq!(listed, [(None, "")]);
    engine.sandbox_delete(&me, &id).await.unwrap();
    engine.shutdown().await;

    // One with a limit is found, too, by a server that has none to give.
    let engine = world.ready_with(options.clone()).await;
    let late = engine.volume_create(&me, "late", None).await.unwrap();
    engine.shutdown().await;
    let lacking = FakeDriver::new(world.dir.path().join("uppers"));
    let lacking = lacking.without(Capability::DiskLimit, "no quotas");
    world.driver = Arc::new(lacking);
    let engine = world.ready_with(options).await;
    let refusal = engine.volume_create(&me, "big", Some(1 << 30)).await;
    refused(refusal, Code::Unsupported, "no quotas");
    let id = create(&engine, with(&[("late", "/data")])).await;
    let source = world.driver.spec(&id).unwrap().volumes[0].source.clone();
    assert!(source.with_file_name("limit").exists());
    engine.sandbox_delete(&me, &id).await.unwrap();
    engine.volume_delete(&me, &late.volume.id).await.unwrap();
    engine.shutdown().await;
}

async fn make_dir(content: VolumeContent, path: &'static str) {
    let made = content.run(|_, tree| tree.make_dir(path, Attributes::default(), Parents::Made));
    made.await.unwrap();
}
