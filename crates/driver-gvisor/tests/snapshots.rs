//! Snapshots of gVisor sandboxes, from inside: the same guest goes on, or does not.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use common::Machine;
use libtest_mimic::{Arguments, Trial};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use woodfrog_guest_client::{Connect, FileRead, GuestClient};
use woodfrog_guest_proto::{
    Configure, Follow, PathRequest, ReadRequest, StartRequest, WriteMode, WriteRequest,
};
use woodfrog_sandbox::conformance::Fixture as _;
use woodfrog_sandbox::{
    CheckpointSpec, Driver, DriverError, Egress, LaunchSpec, Outbound, RestoreSpec, SnapshotHealth,
    Then,
};
use woodfrog_types::sandbox::Resources;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::template::SecurityOptions;
use woodfrog_types::{SandboxId, SnapshotId};

const PATIENCE: Duration = Duration::from_secs(30);
const GUEST: &str = "/usr/lib/woodfrog/guest";

struct To(Arc<dyn Driver>, SandboxId);

impl Connect for To {
    fn connect(&self) -> Pin<Box<dyn Future<Output = std::io::Result<UnixStream>> + Send + '_>> {
        Box::pin(async { self.0.connect(&self.1).await.map_err(std::io::Error::other) })
    }
}

fn guest(driver: &Arc<dyn Driver>, id: &SandboxId) -> GuestClient {
    GuestClient::new(Arc::new(To(Arc::clone(driver), id.clone())))
}

fn spec(machine: &Machine) -> LaunchSpec {
    let id = SandboxId::generate();
    LaunchSpec {
        hostname: id.to_string(),
        id,
        layers: machine.layers(),
        resources: Resources {
            cpu_count: 1,
            memory_bytes: 256 << 20,
            disk_bytes: 64 << 20,
            pids: 64,
        },
        egress: Egress::default(),
        security: SecurityOptions::default(),
        volumes: Vec::new(),
    }
}

fn checkpoint(content: SnapshotContent, then: Then) -> CheckpointSpec {
    CheckpointSpec {
        snapshot: SnapshotId::generate(),
        parent: None,
        content,
        then,
        timeout: PATIENCE,
    }
}

fn restore(launch: LaunchSpec, snapshot: &SnapshotId, content: SnapshotContent) -> RestoreSpec {
    RestoreSpec {
        launch,
        snapshot: snapshot.clone(),
        content,
        outbound: Outbound::Keep,
        timeout: PATIENCE,
    }
}

fn at(path: &str) -> PathRequest {
    PathRequest {
        path: path.to_owned(),
        user: Some("root".to_owned()),
        ..PathRequest::default()
    }
}

fn write(path: &str) -> WriteRequest {
    WriteRequest {
        at: at(path),
        replace: WriteMode::Truncate,
        ..WriteRequest::default()
    }
}

async fn put(guest: &GuestClient, path: &str, bytes: &[u8]) {
    let written = guest.write_all(write(path), bytes).await;
    written.expect("written");
}

async fn get(guest: &GuestClient, path: &str) -> Option<Vec<u8>> {
    let request = ReadRequest {
        at: at(path),
        ..ReadRequest::default()
    };
    match guest.read_file(request).await {
        Ok(FileRead::Stream { mut stream, .. }) => {
            let mut all = Vec::new();
            while let Some(bytes) = stream.next().await.expect("read") {
                all.extend_from_slice(&bytes);
            }
            Some(all)
        }
        Ok(FileRead::File { .. }) => panic!("a descriptor came out of gVisor"),
        Err(_) => None,
    }
}

async fn boot_id(guest: &GuestClient) -> String {
    guest.hello().await.expect("hello").boot_id
}

/// A process that stays, found again by its pid.
async fn start_one(guest: &GuestClient) -> u32 {
    let request = StartRequest {
        cmd: GUEST.to_owned(),
        args: vec![
            "--socket".into(),
            "/tmp/other.sock".into(),
            "--no-init".into(),
        ],
        user: Some("root".to_owned()),
        cwd: Some("/".to_owned()),
        follow: Follow::Detach,
        ..StartRequest::default()
    };
    guest.start(request).await.expect("started").started().pid
}

async fn pids(guest: &GuestClient) -> Vec<u32> {
    let listed = guest.processes().await.expect("listed");
    listed.iter().map(|process| process.pid).collect()
}

async fn sleeps_and_wakes(machine: &Machine) {
    let driver: Arc<dyn Driver> = Arc::new(machine.start().await);
    let launch = spec(machine);
    let id = launch.id.clone();
    driver.launch(launch.clone()).await.expect("launched");
    let inside = guest(&driver, &id);
    let (first, pid) = (boot_id(&inside).await, start_one(&inside).await);
    put(&inside, "/root/a", b"one").await;
    // It goes on, and what it does later is not in the snapshot.
    let early = checkpoint(SnapshotContent::Memory, Then::Continue);
    let taken = driver.checkpoint(&id, early.clone()).await.expect("taken");
    assert!(taken.size.memory_bytes > 1 << 20, "{taken:?}");
    assert_eq!(boot_id(&inside).await, first);
    put(&inside, "/root/a", b"two").await;
    put(&inside, "/root/b", b"late").await;
    // It falls asleep, and nothing of it is left but the snapshots.
    let late = checkpoint(SnapshotContent::Memory, Then::Stop);
    driver.checkpoint(&id, late.clone()).await.expect("taken");
    let gone = driver.connect(&id).await;
    assert!(
        matches!(gone, Err(DriverError::NotFound { .. })),
        "{gone:?}"
    );
    let mut there = driver.snapshot_reconcile(&[]).await.expect("listed");
    there.sort();
    assert_eq!(there, [early.snapshot.clone(), late.snapshot.clone()]);
    settled(machine, &*driver, 2).await;
    // It wakes as it was; a copy of the early one has its own name and address beside it.
    let memory = SnapshotContent::Memory;
    let woken = driver.restore(restore(launch.clone(), &late.snapshot, memory));
    let woken = woken.await.expect("woken");
    println!(
        "woken in {:?}; the early one: {:?}",
        woken.timings, taken.timings
    );
    assert_eq!(boot_id(&inside).await, first);
    assert_eq!(pids(&inside).await, [pid]);
    assert_eq!(get(&inside, "/root/a").await.as_deref(), Some(&b"two"[..]));
    assert_eq!(get(&inside, "/root/b").await.as_deref(), Some(&b"late"[..]));
    let copy = spec(machine);
    let copied = restore(copy.clone(), &early.snapshot, memory);
    driver.restore(copied).await.expect("copied");
    let other = guest(&driver, &copy.id);
    assert_eq!(boot_id(&other).await, first);
    assert_eq!(get(&other, "/root/a").await.as_deref(), Some(&b"one"[..]));
    assert_eq!(get(&other, "/root/b").await, None);
    let name = Configure {
        hostname: Some("copy".to_owned()),
        ..Configure::default()
    };
    other.configure(name).await.expect("named");
    let named = get(&other, "/proc/sys/kernel/hostname").await;
    assert_eq!(named.as_deref(), Some(&b"copy\n"[..]));
    // Files alone boot anew.
    let booted = spec(machine);
    let files = restore(booted.clone(), &early.snapshot, SnapshotContent::Filesystem);
    driver.restore(files).await.expect("booted");
    let third = guest(&driver, &booted.id);
    assert_ne!(boot_id(&third).await, first);
    assert_eq!(get(&third, "/root/a").await.as_deref(), Some(&b"one"[..]));
    let hosts = get(&third, "/etc/hostname").await.expect("a name");
    assert_eq!(hosts, format!("{}\n", booted.hostname).into_bytes());
    for id in [&id, &copy.id, &booted.id] {
        driver.destroy(id).await.expect("destroyed");
    }
    for snapshot in [&early.snapshot, &late.snapshot] {
        for _ in 0..2 {
            driver.snapshot_remove(snapshot).await.expect("removed");
        }
    }
    settled(machine, &*driver, 0).await;
}

/// A checkpoint that gVisor refuses costs nothing.
async fn survives_a_refusal(machine: &Machine) {
    let driver: Arc<dyn Driver> = Arc::new(machine.start().await);
    let launch = spec(machine);
    let id = launch.id.clone();
    driver.launch(launch).await.expect("launched");
    let inside = guest(&driver, &id);
    let first = boot_id(&inside).await;
    let mut open = inside.write_file(write("/root/open")).await.expect("open");
    open.write(b"x").await.expect("written");
    // Once it is there, it goes.
    for _ in 0..1000 {
        if get(&inside, "/root/open").await.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    inside.remove(at("/root/open")).await.expect("removed");
    let asked = checkpoint(SnapshotContent::Memory, Then::Stop);
    let refused = driver.checkpoint(&id, asked.clone()).await;
    match refused {
        Err(DriverError::Checkpoint {
            reason, transient, ..
        }) => {
            assert!(reason.contains("/root/open"), "{reason}");
            assert!(transient);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(boot_id(&inside).await, first, "it goes on");
    assert_eq!(driver.snapshot_reconcile(&[]).await.expect("listed"), []);
    drop(open);
    // What was refused works once the guest has closed the file.
    let mut kept = checkpoint(SnapshotContent::Memory, Then::Continue);
    for _ in 0..50 {
        match driver.checkpoint(&id, kept.clone()).await {
            Err(DriverError::Checkpoint { .. }) => {}
            other => {
                other.expect("taken");
                break;
            }
        }
    }
    driver
        .snapshot_remove(&kept.snapshot)
        .await
        .expect("removed");
    // A paused one stays so.
    driver.pause(&id).await.expect("paused");
    kept.snapshot = SnapshotId::generate();
    driver.checkpoint(&id, kept.clone()).await.expect("taken");
    let silent = tokio::time::timeout(Duration::from_millis(200), inside.hello()).await;
    assert!(silent.is_err(), "it is paused no more");
    driver.resume(&id).await.expect("resumed");
    assert_eq!(boot_id(&inside).await, first);
    driver
        .snapshot_remove(&kept.snapshot)
        .await
        .expect("removed");
    driver.destroy(&id).await.expect("destroyed");
    settled(machine, &*driver, 0).await;
}

/// Damage is found, unfinished ones are removed, and one that was away comes back.
async fn keeps_snapshots(machine: &Machine) {
    let driver: Arc<dyn Driver> = Arc::new(machine.start().await);
    let launch = spec(machine);
    let id = launch.id.clone();
    driver.launch(launch.clone()).await.expect("launched");
    let first = boot_id(&guest(&driver, &id)).await;
    let taken = checkpoint(SnapshotContent::Memory, Then::Stop);
    driver.checkpoint(&id, taken.clone()).await.expect("taken");
    let snapshot = taken.snapshot;
    let health = driver.snapshot_verify(&snapshot).await.expect("read");
    assert_eq!(health, SnapshotHealth::Good);
    let folder = driver.snapshot_export(&snapshot).await.expect("there");
    let away = machine.data().join("away");
    copy(&folder, &away);
    driver.snapshot_remove(&snapshot).await.expect("removed");
    let missing = driver.snapshot_verify(&snapshot).await;
    assert!(matches!(missing, Err(DriverError::NotFound { .. })));
    let asked = restore(launch.clone(), &snapshot, SnapshotContent::Memory);
    let missing = driver.restore(asked.clone()).await;
    assert!(
        matches!(missing, Err(DriverError::Snapshot { .. })),
        "{missing:?}"
    );
    // A copy that is not what was written is refused.
    let pages = away.join("memory/pages.img");
    let good = fs::read(&pages).expect("pages");
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&pages, bad).expect("changed");
    let back = driver
        .snapshot_import_begin(&snapshot)
        .await
        .expect("begun");
    copy(&away, &back);
    let refused = driver.snapshot_import_finish(&snapshot).await;
    assert!(
        matches!(refused, Err(DriverError::Snapshot { .. })),
        "{refused:?}"
    );
    assert_eq!(driver.snapshot_reconcile(&[]).await.expect("listed"), []);
    fs::write(&pages, good).expect("changed back");
    let back = driver
        .snapshot_import_begin(&snapshot)
        .await
        .expect("begun");
    copy(&away, &back);
    driver
        .snapshot_import_finish(&snapshot)
        .await
        .expect("back");
    driver.restore(asked).await.expect("woken");
    assert_eq!(boot_id(&guest(&driver, &id)).await, first);
    driver.destroy(&id).await.expect("destroyed");
    driver.snapshot_remove(&snapshot).await.expect("removed");
    fs::remove_dir_all(away).expect("removed");
    settled(machine, &*driver, 0).await;
}

/// A connection to a port is the port's; strangers at the guest's own are told nothing.
async fn reaches_ports(machine: &Machine) {
    let driver: Arc<dyn Driver> = Arc::new(machine.start().await);
    let launch = spec(machine);
    let id = launch.id.clone();
    driver.launch(launch).await.expect("launched");
    let inside = guest(&driver, &id);
    let own = inside.ports().await.expect("ports");
    assert_eq!(own.len(), 1, "the guest's: {own:?}");
    let mut port = inside.connect(own[0].port).await.expect("connected");
    port.write_all(&[0; 32]).await.expect("said");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, port.read_to_end(&mut answer)).await;
    // Closed, in whichever way.
    let _ = read.expect("in time");
    assert_eq!(answer, b"");
    let nobody = inside.connect(9).await;
    assert!(nobody.is_err());
    driver.destroy(&id).await.expect("destroyed");
    settled(machine, &*driver, 0).await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("read") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type") {
            kind if kind.is_dir() => copy(&entry.path(), &target),
            kind if kind.is_file() => drop(fs::copy(entry.path(), target).expect("copied")),
            _ => {}
        }
    }
}

/// Waits until nothing is there but so many snapshots.
async fn settled(machine: &Machine, driver: &dyn Driver, snapshots: usize) {
    let mut traces = Vec::new();
    for _ in 0..1000 {
        traces = machine.traces(driver);
        if traces.len() == snapshots {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("left: {traces:?}");
}

type Case = for<'a> fn(&'a Machine) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

fn main() -> ExitCode {
    common::play_role();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let cases: [(&str, Case); 4] = [
        ("sleeps_and_wakes", |m| Box::pin(sleeps_and_wakes(m))),
        ("survives_a_refusal", |m| Box::pin(survives_a_refusal(m))),
        ("keeps_snapshots", |m| Box::pin(keeps_snapshots(m))),
        ("reaches_ports", |m| Box::pin(reaches_ports(m))),
    ];
    if arguments.list {
        let names = cases.map(|(name, _)| Trial::test(name, || Ok(())));
        return libtest_mimic::run(&arguments, names.into()).exit_code();
    }
    if woodfrog_linux::runsc::find(&woodfrog_linux::runsc::default_prefix()).is_none() {
        println!("NOT RUN: no runsc; `woodfrog doctor --fix` installs it");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let handle = runtime.handle().clone();
    let machine = Arc::new(Machine::new(common::guest()));
    let trials = cases.into_iter().map(|(name, case)| {
        let (machine, handle) = (Arc::clone(&machine), handle.clone());
        let trial = Trial::test(name, move || {
            handle.block_on(case(&machine));
            Ok(())
        });
        // The others save memory, which is off unless it is asked for.
        trial.with_ignored_flag(name != "reaches_ports" && !common::memory_snapshots())
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if let Err(error) = runtime.block_on(common::purge(&machine)) {
        eprintln!("purge: {error:?}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
