//! What every driver promises, as cases that run against a real one.
//!
//! A case panics where a promise is broken. Cases leave nothing behind, so they can share a
//! fixture; each makes its own driver.

pub mod guest;
mod sleep;
mod volumes;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use woodfrog_types::sandbox::{InstanceState, Resources};
use woodfrog_types::template::SecurityOptions;
use woodfrog_types::{SandboxId, VolumeId};

use sleep::pauses_in_place;
use sleep::{
    adopts_paused_ones, archives_and_brings_back, boots_from_files, copies_are_independent,
    destroys_what_sleeps, freezes_around_a_checkpoint, goes_on_after_a_checkpoint,
    keeps_no_unfinished_snapshots, refuses_unknown_snapshots, sleeps_and_wakes,
    wakes_after_a_restart,
};
use volumes::{refuses_unusable_volumes, shares_volumes, wakes_with_volumes};

use crate::{Capability, Driver, DriverError, Egress, LaunchSpec, VolumeSpec};

/// Reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine on which a driver can be tried.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A driver on this machine; all those before have been dropped.
    async fn driver(&self) -> Arc<dyn Driver>;
    /// Layers of the smallest template, bottom first.
    fn layers(&self) -> Vec<std::path::PathBuf>;
    /// A program that is in every sandbox and ends with this code when it is run with `--bogus`.
    fn program(&self) -> (String, i32);
    /// Whether there is `/bin/sh` in every sandbox, with `cat` and `sleep`.
    fn has_shell(&self) -> bool;
    /// Turns a spec into one whose launch fails, as late as possible.
    fn spoil(&self, spec: &mut LaunchSpec);
    /// Ends the init of a sandbox from outside.
    fn end_init(&self, driver: &dyn Driver, id: &SandboxId, instance: &InstanceState);
    /// Names of what there is of sandboxes on the machine.
    fn traces(&self, driver: &dyn Driver) -> Vec<String>;
}

/// A case: its name and its body.
pub type Case = (&'static str, fn(&dyn Fixture) -> BoxedFuture<'_>);
/// What a case does.
pub type BoxedFuture<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// All cases.
        pub fn cases() -> Vec<Case> {
            vec![$((stringify!($name), |fixture| Box::pin($name(fixture)))),*]
        }
    };
}

cases![
    launches_and_runs_commands,
    tells_of_the_end,
    refuses_a_taken_id,
    destroys_again_and_again,
    leaves_nothing_of_a_failed_launch,
    leaves_nothing_of_an_abandoned_launch,
    sweeps_what_is_not_live,
    adopts_after_a_restart,
    replaces_egress_and_tells_usage,
    refuses_what_it_cannot_do,
    works_on_many_at_once,
    pauses_in_place,
    adopts_paused_ones,
    sleeps_and_wakes,
    goes_on_after_a_checkpoint,
    freezes_around_a_checkpoint,
    copies_are_independent,
    boots_from_files,
    wakes_after_a_restart,
    destroys_what_sleeps,
    refuses_unknown_snapshots,
    keeps_no_unfinished_snapshots,
    archives_and_brings_back,
    tells_layers_in_use,
    shares_volumes,
    wakes_with_volumes,
    refuses_unusable_volumes,
];

/// What a sandbox runs on is told until nothing is left of it.
async fn tells_layers_in_use(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    let spec = spec(fixture);
    let launched = in_time("launch", driver.launch(spec.clone())).await;
    launched.expect("launched");
    let names = spec.layers.iter().filter_map(|layer| layer.file_name());
    let names: BTreeSet<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let used = driver.layers_in_use().await.expect("told");
    assert_eq!(used, names);
    driver.destroy(&spec.id).await.expect("destroyed");
    let used = driver.layers_in_use().await.expect("told");
    assert!(used.is_empty(), "{used:?}");
}

fn spec(fixture: &dyn Fixture) -> LaunchSpec {
    let id = SandboxId::generate();
    LaunchSpec {
        hostname: id.to_string(),
        id,
        layers: fixture.layers(),
        resources: Resources {
            cpu_count: 1,
            memory_bytes: 128 << 20,
            disk_bytes: 64 << 20,
            pids: 64,
        },
        egress: Egress::default(),
        security: SecurityOptions::default(),
        volumes: Vec::new(),
    }
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: takes too long"),
    }
}

async fn launched(fixture: &dyn Fixture, driver: &dyn Driver) -> (SandboxId, InstanceState) {
    let spec = spec(fixture);
    let id = spec.id.clone();
    let launched = in_time("launch", driver.launch(spec)).await;
    (id, launched.expect("launched").instance)
}

async fn boot_id(driver: &dyn Driver, id: &SandboxId) -> String {
    let stream = in_time("connect", driver.connect(id)).await;
    in_time("hello", guest::boot_id(stream.expect("connected"))).await
}

/// Some traces go in the background.
async fn traceless(fixture: &dyn Fixture, driver: &dyn Driver) {
    let gone = async {
        while !fixture.traces(driver).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, gone).await.is_err() {
        panic!("left behind: {:?}", fixture.traces(driver));
    }
}

fn not_found<T>(result: crate::Result<T>) {
    match result {
        Err(DriverError::NotFound { .. }) => {}
        Err(other) => panic!("another error: {other:?}"),
        Ok(_) => panic!("it is known"),
    }
}

async fn launches_and_runs_commands(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    let (id, _) = launched(fixture, &*driver).await;
    let first = boot_id(&*driver, &id).await;
    assert_eq!(boot_id(&*driver, &id).await, first, "one guest");
    let (program, code) = fixture.program();
    for _ in 0..3 {
        let stream = driver.connect(&id).await.expect("connected");
        let ended = in_time("run", guest::run(stream, &program, "--bogus")).await;
        assert_eq!(ended, code);
    }
    driver.destroy(&id).await.expect("destroyed");
    traceless(fixture, &*driver).await;
}

async fn tells_of_the_end(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    not_found(driver.exited(&SandboxId::generate()).await);
    let (id, instance) = launched(fixture, &*driver).await;
    boot_id(&*driver, &id).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (driver, id) = (Arc::clone(&driver), id.clone());
        waiting.spawn(async move { driver.exited(&id).await });
    }
    let early = tokio::time::timeout(Duration::from_millis(50), waiting.join_next()).await;
    assert!(early.is_err(), "it has not ended yet");
    fixture.end_init(&*driver, &id, &instance);
    while let Some(told) = in_time("the end", waiting.join_next()).await {
        let how = told.expect("no panic").expect("told");
        assert!(!how.is_empty());
    }
    not_found(driver.adopt(&id, &instance).await.map(drop));
    driver.destroy(&id).await.expect("destroyed");
    traceless(fixture, &*driver).await;
}

async fn refuses_a_taken_id(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    let (id, _) = launched(fixture, &*driver).await;
    let first = boot_id(&*driver, &id).await;
    let mut again = spec(fixture);
    again.id = id.clone();
    match driver.launch(again).await {
        Err(DriverError::AlreadyExists { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(boot_id(&*driver, &id).await, first, "unharmed");
    driver.destroy(&id).await.expect("destroyed");
    traceless(fixture, &*driver).await;
}

async fn destroys_again_and_again(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    let (id, instance) = launched(fixture, &*driver).await;
    driver
        .destroy(&id)
        .await
        .expect("destroyed before the guest answers");
    driver.destroy(&id).await.expect("destroyed again");
    let stranger = SandboxId::generate();
    driver
        .destroy(&stranger)
        .await
        .expect("an unknown id is fine");
    not_found(driver.connect(&id).await);
    not_found(driver.usage(&id).await);
    not_found(driver.adopt(&id, &instance).await.map(drop));
    not_found(driver.set_egress(&id, Egress::default()).await);
    traceless(fixture, &*driver).await;
    // Its place can be taken at once.
    let (id, _) = launched(fixture, &*driver).await;
    let (one, other) = tokio::join!(driver.destroy(&id), driver.destroy(&id));
    one.and(other).expect("destroyed twice at once");
    traceless(fixture, &*driver).await;
}

async fn leaves_nothing_of_a_failed_launch(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    let mut bad = spec(fixture);
    fixture.spoil(&mut bad);
    let id = bad.id.clone();
    let result = in_time("launch", driver.launch(bad)).await;
    assert!(result.is_err(), "{result:?}");
    not_found(driver.connect(&id).await);
    traceless(fixture, &*driver).await;
    driver.destroy(&id).await.expect("nothing to destroy");
    // What it held is free again.
    let (id, _) = launched(fixture, &*driver).await;
    boot_id(&*driver, &id).await;
    driver.destroy(&id).await.expect("destroyed");
    traceless(fixture, &*driver).await;
}

/// A caller that goes away, and destroys at whatever point the launch has reached.
async fn leaves_nothing_of_an_abandoned_launch(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    for micros in [0, 200, 1_000, 3_000, 10_000] {
        let spec = spec(fixture);
        let id = spec.id.clone();
        let launch = driver.launch(spec);
        let _ = tokio::time::timeout(Duration::from_micros(micros), launch).await;
        in_time("destroy", driver.destroy(&id))
            .await
            .expect("destroyed");
        not_found(driver.connect(&id).await);
        traceless(fixture, &*driver).await;
    }
}

async fn sweeps_what_is_not_live(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    let (kept, _) = launched(fixture, &*driver).await;
    let (swept, _) = launched(fixture, &*driver).await;
    let first = boot_id(&*driver, &kept).await;
    let removed = driver.reconcile(std::slice::from_ref(&kept)).await;
    let removed = removed.expect("reconciled");
    let named = removed.iter().any(|what| what.contains(swept.as_str()));
    assert!(named, "{removed:?}");
    not_found(driver.connect(&swept).await);
    assert_eq!(boot_id(&*driver, &kept).await, first, "unharmed");
    driver.reconcile(&[]).await.expect("reconciled");
    not_found(driver.connect(&kept).await);
    traceless(fixture, &*driver).await;
}

async fn adopts_after_a_restart(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    let (kept, instance) = launched(fixture, &*driver).await;
    let (orphan, _) = launched(fixture, &*driver).await;
    let first = boot_id(&*driver, &kept).await;
    drop(driver);
    let driver = fixture.driver().await;
    let adopted = driver.adopt(&kept, &instance).await.expect("adopted");
    assert_eq!(boot_id(&*driver, &kept).await, first, "the same guest");
    let stranger = SandboxId::generate();
    not_found(driver.adopt(&stranger, &instance).await.map(drop));
    driver
        .reconcile(std::slice::from_ref(&kept))
        .await
        .expect("reconciled");
    not_found(driver.connect(&orphan).await);
    // An adopted one is as good as a launched one.
    let (next, _) = launched(fixture, &*driver).await;
    assert_ne!(boot_id(&*driver, &next).await, first);
    driver.usage(&kept).await.expect("usage");
    fixture.end_init(&*driver, &kept, &adopted.instance);
    in_time("the end", driver.exited(&kept))
        .await
        .expect("told");
    drop(driver);
    // What ended while nobody looked is not adopted, and can be removed.
    let driver = fixture.driver().await;
    not_found(driver.adopt(&kept, &instance).await.map(drop));
    for id in [&kept, &next] {
        driver.destroy(id).await.expect("destroyed");
    }
    traceless(fixture, &*driver).await;
}

async fn replaces_egress_and_tells_usage(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    let (id, _) = launched(fixture, &*driver).await;
    boot_id(&*driver, &id).await;
    let usage = driver.usage(&id).await.expect("usage");
    assert!(usage.pids >= 1, "{usage:?}");
    assert!(usage.memory_bytes < 128 << 20, "{usage:?}");
    if driver
        .capabilities()
        .why_missing(Capability::EgressCidr)
        .is_none()
    {
        let egress = Egress {
            internet: true,
            deny: vec!["192.0.2.0/24".to_owned()],
            ..Egress::default()
        };
        driver.set_egress(&id, egress).await.expect("replaced");
    }
    let nothing = Egress::default();
    driver
        .set_egress(&id, nothing)
        .await
        .expect("replaced again");
    not_found(
        driver
            .set_egress(&SandboxId::generate(), Egress::default())
            .await,
    );
    driver.destroy(&id).await.expect("destroyed");
    traceless(fixture, &*driver).await;
}

async fn refuses_what_it_cannot_do(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    let reaching = |egress| {
        Some(LaunchSpec {
            egress,
            ..spec(fixture)
        })
    };
    let wanted = |capability| match capability {
        Capability::Network | Capability::EgressCidr => reaching(Egress {
            internet: true,
            ..Egress::default()
        }),
        Capability::EgressDomain => reaching(Egress {
            internet: true,
            allow: vec!["example.org".to_owned()],
            deny: vec!["0.0.0.0/0".to_owned()],
            ..Egress::default()
        }),
        Capability::Volumes => Some(LaunchSpec {
            volumes: vec![VolumeSpec {
                volume: VolumeId::generate(),
                name: "data".to_owned(),
                source: std::env::temp_dir(),
                path: "/data".to_owned(),
            }],
            ..spec(fixture)
        }),
        // Not asked for in a spec.
        Capability::MemoryLimit
        | Capability::CpuLimit
        | Capability::PidsLimit
        | Capability::DiskLimit
        | Capability::Pause
        | Capability::FilesystemSnapshot
        | Capability::Checkpoint => None,
    };
    for (capability, why) in driver.capabilities().missing.clone() {
        assert!(!why.is_empty(), "{capability:?}");
        let Some(spec) = wanted(capability) else {
            continue;
        };
        match driver.launch(spec).await {
            Err(DriverError::Unsupported { .. }) => {}
            other => panic!("{capability:?}: {other:?}"),
        }
    }
    traceless(fixture, &*driver).await;
}

async fn works_on_many_at_once(fixture: &dyn Fixture) {
    const MANY: usize = 8;
    let driver = fixture.driver().await;
    let mut work = tokio::task::JoinSet::new();
    for _ in 0..MANY {
        let (driver, spec) = (Arc::clone(&driver), spec(fixture));
        work.spawn(async move {
            let id = spec.id.clone();
            driver.launch(spec).await.expect("launched");
            let boot = boot_id(&*driver, &id).await;
            (id, boot)
        });
    }
    let made = in_time("all of them", work.join_all()).await;
    let boots: std::collections::BTreeSet<_> = made.iter().map(|(_, boot)| boot).collect();
    assert_eq!(boots.len(), MANY, "each its own guest");
    for (id, _) in made {
        driver.destroy(&id).await.expect("destroyed");
    }
    traceless(fixture, &*driver).await;
}
