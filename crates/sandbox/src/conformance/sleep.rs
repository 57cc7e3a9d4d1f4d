//! Freezing, snapshots, and what is made from them.

use std::sync::Arc;
use std::time::Duration;

use super::{Fixture, boot_id, guest, in_time, launched, not_found, spec, traceless};
use crate::{
    Capability, CheckpointSpec, Checkpointed, Driver, DriverError, LaunchSpec, Outbound,
    RestoreSpec, Result, SnapshotHealth, Then,
};
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::snapshot::SnapshotContent::{Filesystem, Memory};
use woodfrog_types::{SandboxId, SnapshotId};

/// So long a paused guest is given to answer, which it must not.
const SILENCE: Duration = Duration::from_millis(100);

/// Whether the driver has it; if not, that it says so when asked.
async fn has(driver: &dyn Driver, capability: Capability) -> bool {
    if driver.capabilities().why_missing(capability).is_none() {
        return true;
    }
    let stranger = SandboxId::generate();
    let refused = match capability {
        Capability::Pause => driver.pause(&stranger).await,
        Capability::Checkpoint => checkpoint(driver, &stranger, Memory, Then::Stop)
            .await
            .map(drop),
        _ => checkpoint(driver, &stranger, Filesystem, Then::Stop)
            .await
            .map(drop),
    };
    match refused {
        Err(DriverError::Unsupported { .. }) => false,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn checkpoint(
    driver: &dyn Driver,
    id: &SandboxId,
    content: SnapshotContent,
    then: Then,
) -> Result<(SnapshotId, Checkpointed)> {
    let snapshot = SnapshotId::generate();
    let spec = CheckpointSpec {
        snapshot: snapshot.clone(),
        parent: None,
        content,
        then,
        timeout: Duration::from_secs(20),
    };
    let taken = in_time("checkpoint", driver.checkpoint(id, spec)).await?;
    Ok((snapshot, taken))
}

pub(super) async fn restore(
    driver: &dyn Driver,
    launch: LaunchSpec,
    snapshot: &SnapshotId,
    content: SnapshotContent,
) -> Result<woodfrog_types::sandbox::InstanceState> {
    let spec = RestoreSpec {
        launch,
        snapshot: snapshot.clone(),
        content,
        outbound: Outbound::Keep,
        timeout: Duration::from_secs(20),
    };
    let restored = in_time("restore", driver.restore(spec)).await?;
    Ok(restored.instance)
}

pub(super) async fn run(driver: &dyn Driver, id: &SandboxId, script: &str) -> String {
    let stream = driver.connect(id).await.expect("connected");
    in_time("a script", guest::script(stream, script)).await
}

/// A process whose only memory of how far it has come is its own.
async fn start_counting(driver: &dyn Driver, id: &SandboxId) {
    let count = "i=0; while :; do i=$((i+1)); echo $i >/count.new; \
                 cat /count.new >/count; sleep 0.01; done";
    let stream = driver.connect(id).await.expect("connected");
    guest::detach(stream, count).await;
    counted_beyond(driver, id, 0).await;
}

async fn count(driver: &dyn Driver, id: &SandboxId) -> u64 {
    loop {
        // Empty while it is being written.
        if let Ok(count) = run(driver, id, "cat /count").await.trim().parse() {
            return count;
        }
    }
}

async fn counted_beyond(driver: &dyn Driver, id: &SandboxId, before: u64) -> u64 {
    let beyond = async {
        loop {
            let now = count(driver, id).await;
            if now > before {
                return now;
            }
        }
    };
    in_time("counting", beyond).await
}

fn unusable<T: std::fmt::Debug>(result: Result<T>) {
    match result {
        Err(DriverError::Snapshot { .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// A sandbox of this spec, running.
async fn made(fixture: &dyn Fixture, driver: &dyn Driver) -> LaunchSpec {
    let spec = spec(fixture);
    in_time("launch", driver.launch(spec.clone()))
        .await
        .expect("launched");
    spec
}

/// Asleep and awake again, twice: the same processes, files and name.
pub(super) async fn sleeps_and_wakes(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    if !has(&*driver, Capability::Checkpoint).await {
        return;
    }
    let spec = made(fixture, &*driver).await;
    let id = &spec.id;
    let first = boot_id(&*driver, id).await;
    let mut counted = 0;
    if fixture.has_shell() {
        run(&*driver, id, "echo kept >/file; echo shared >/dev/shm/file").await;
        start_counting(&*driver, id).await;
        counted = count(&*driver, id).await;
    }
    let mut snapshots = Vec::new();
    for _ in 0..2 {
        let taken = checkpoint(&*driver, id, Memory, Then::Stop).await;
        let (snapshot, taken) = taken.expect("asleep");
        assert!(taken.size.memory_bytes > 0, "{taken:?}");
        not_found(driver.connect(id).await);
        not_found(driver.usage(id).await);
        let woken = restore(&*driver, spec.clone(), &snapshot, Memory).await;
        let instance = woken.expect("awake");
        assert_eq!(boot_id(&*driver, id).await, first, "the same guest");
        driver
            .adopt(id, &instance)
            .await
            .expect("it can be adopted");
        driver.usage(id).await.expect("usage");
        if fixture.has_shell() {
            let files = run(&*driver, id, "cat /file /dev/shm/file").await;
            assert_eq!(files, "kept\nshared\n");
            counted = counted_beyond(&*driver, id, counted).await;
        }
        snapshots.push(snapshot);
    }
    driver.destroy(id).await.expect("destroyed");
    for snapshot in &snapshots {
        let health = driver.snapshot_verify(snapshot).await.expect("verified");
        assert_eq!(health, SnapshotHealth::Good);
        driver.snapshot_remove(snapshot).await.expect("removed");
    }
    traceless(fixture, &*driver).await;
}

/// A checkpoint leaves the sandbox as it is.
pub(super) async fn goes_on_after_a_checkpoint(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    if !has(&*driver, Capability::Checkpoint).await {
        return;
    }
    let spec = made(fixture, &*driver).await;
    let id = &spec.id;
    let first = boot_id(&*driver, id).await;
    if fixture.has_shell() {
        start_counting(&*driver, id).await;
    }
    for content in [Memory, Filesystem] {
        let taken = checkpoint(&*driver, id, content, Then::Continue).await;
        let (snapshot, _) = taken.expect("taken");
        assert_eq!(boot_id(&*driver, id).await, first, "the same guest");
        if fixture.has_shell() {
            let counted = count(&*driver, id).await;
            counted_beyond(&*driver, id, counted).await;
        }
        let again = CheckpointSpec {
            snapshot: snapshot.clone(),
            parent: None,
            content,
            then: Then::Continue,
            timeout: Duration::from_secs(20),
        };
        let again = driver.checkpoint(id, again).await;
        assert!(matches!(again, Err(DriverError::AlreadyExists { .. })));
        // It runs: nothing is made in its place.
        let taken = restore(&*driver, spec.clone(), &snapshot, content).await;
        assert!(matches!(taken, Err(DriverError::AlreadyExists { .. })));
        assert_eq!(boot_id(&*driver, id).await, first, "unharmed");
        driver.snapshot_remove(&snapshot).await.expect("removed");
    }
    let unknown = checkpoint(&*driver, &SandboxId::generate(), Memory, Then::Stop).await;
    not_found(unknown);
    driver.destroy(id).await.expect("destroyed");
    traceless(fixture, &*driver).await;
}

/// A paused one stays paused, and can sleep.
pub(super) async fn freezes_around_a_checkpoint(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    if !has(&*driver, Capability::Checkpoint).await || !has(&*driver, Capability::Pause).await {
        return;
    }
    let spec = made(fixture, &*driver).await;
    let id = &spec.id;
    let first = boot_id(&*driver, id).await;
    driver.pause(id).await.expect("paused");
    let mut snapshots = Vec::new();
    for content in [Memory, Filesystem] {
        let taken = checkpoint(&*driver, id, content, Then::Continue).await;
        snapshots.push(taken.expect("taken while paused").0);
        let asked = tokio::spawn({
            let (driver, id) = (Arc::clone(&driver), id.clone());
            async move { boot_id(&*driver, &id).await }
        });
        tokio::time::sleep(SILENCE).await;
        assert!(!asked.is_finished(), "it stays paused");
        asked.abort();
        drop(asked.await);
    }
    let taken = checkpoint(&*driver, id, Memory, Then::Stop).await;
    let (snapshot, _) = taken.expect("asleep");
    let woken = restore(&*driver, spec.clone(), &snapshot, Memory).await;
    woken.expect("awake");
    assert_eq!(boot_id(&*driver, id).await, first, "it runs");
    driver.destroy(id).await.expect("destroyed");
    snapshots.push(snapshot);
    for snapshot in &snapshots {
        driver.snapshot_remove(snapshot).await.expect("removed");
    }
    traceless(fixture, &*driver).await;
}

/// Copies begin as what the snapshot was, have names of their own, and go their own ways.
pub(super) async fn copies_are_independent(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    if !has(&*driver, Capability::Checkpoint).await {
        return;
    }
    let source = made(fixture, &*driver).await;
    let first = boot_id(&*driver, &source.id).await;
    if fixture.has_shell() {
        run(&*driver, &source.id, "echo one >/file").await;
        start_counting(&*driver, &source.id).await;
    }
    let taken = checkpoint(&*driver, &source.id, Memory, Then::Continue).await;
    let (snapshot, _) = taken.expect("taken");
    let mut copies = Vec::new();
    for _ in 0..3 {
        let copy = super::spec(fixture);
        let made = restore(&*driver, copy.clone(), &snapshot, Memory).await;
        made.expect("a copy");
        assert_eq!(boot_id(&*driver, &copy.id).await, first, "it goes on");
        copies.push(copy);
    }
    driver.snapshot_remove(&snapshot).await.expect("removed");
    if fixture.has_shell() {
        let shown = "cat /file /etc/hostname; read name </proc/sys/kernel/hostname; echo $name";
        for copy in &copies {
            let said = run(&*driver, &copy.id, shown).await;
            let name = &copy.hostname;
            assert_eq!(said, format!("one\n{name}\n{name}\n"));
            run(&*driver, &copy.id, "echo two >/file").await;
            let counted = count(&*driver, &copy.id).await;
            counted_beyond(&*driver, &copy.id, counted).await;
        }
        let said = run(&*driver, &source.id, shown).await;
        let name = &source.hostname;
        assert_eq!(
            said,
            format!("one\n{name}\n{name}\n"),
            "the source is untouched"
        );
    }
    // A copy sleeps as well as any other.
    let copy = &copies[0];
    let taken = checkpoint(&*driver, &copy.id, Memory, Then::Stop).await;
    let (snapshot, _) = taken.expect("asleep");
    let woken = restore(&*driver, copy.clone(), &snapshot, Memory).await;
    woken.expect("awake");
    assert_eq!(boot_id(&*driver, &copy.id).await, first);
    driver.snapshot_remove(&snapshot).await.expect("removed");
    for copy in copies.iter().chain([&source]) {
        driver.destroy(&copy.id).await.expect("destroyed");
    }
    traceless(fixture, &*driver).await;
}

/// From files alone a sandbox boots anew.
pub(super) async fn boots_from_files(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    if !has(&*driver, Capability::FilesystemSnapshot).await {
        return;
    }
    let spec = made(fixture, &*driver).await;
    let first = boot_id(&*driver, &spec.id).await;
    if fixture.has_shell() {
        run(&*driver, &spec.id, "echo kept >/file").await;
    }
    let taken = checkpoint(&*driver, &spec.id, Filesystem, Then::Stop).await;
    let (snapshot, _) = taken.expect("asleep");
    not_found(driver.connect(&spec.id).await);
    if has(&*driver, Capability::Checkpoint).await {
        unusable(restore(&*driver, spec.clone(), &snapshot, Memory).await);
    }
    let copy = super::spec(fixture);
    for spec in [&spec, &copy] {
        let woken = restore(&*driver, spec.clone(), &snapshot, Filesystem).await;
        woken.expect("booted");
        assert_ne!(boot_id(&*driver, &spec.id).await, first, "another boot");
        if fixture.has_shell() {
            let shown = "cat /file /etc/hostname; read name </proc/sys/kernel/hostname; echo $name";
            let (said, name) = (run(&*driver, &spec.id, shown).await, &spec.hostname);
            assert_eq!(said, format!("kept\n{name}\n{name}\n"));
        }
    }
    for spec in [&spec, &copy] {
        driver.destroy(&spec.id).await.expect("destroyed");
    }
    driver.snapshot_remove(&snapshot).await.expect("removed");
    traceless(fixture, &*driver).await;
}

/// What fell asleep under one server wakes under the next, which can also adopt it.
pub(super) async fn wakes_after_a_restart(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    if !has(&*driver, Capability::Checkpoint).await {
        return;
    }
    let spec = made(fixture, &*driver).await;
    let first = boot_id(&*driver, &spec.id).await;
    let taken = checkpoint(&*driver, &spec.id, Memory, Then::Stop).await;
    let (snapshot, _) = taken.expect("asleep");
    drop(driver);
    let driver = fixture.driver().await;
    let live = std::slice::from_ref(&spec.id);
    driver.reconcile(live).await.expect("reconciled");
    let known = driver.snapshot_reconcile(std::slice::from_ref(&snapshot));
    let known = known.await.expect("reconciled");
    assert!(known.contains(&snapshot), "{known:?}");
    let woken = restore(&*driver, spec.clone(), &snapshot, Memory).await;
    let instance = woken.expect("awake");
    assert_eq!(boot_id(&*driver, &spec.id).await, first);
    drop(driver);
    let driver = fixture.driver().await;
    driver.adopt(&spec.id, &instance).await.expect("adopted");
    assert_eq!(boot_id(&*driver, &spec.id).await, first);
    let taken = checkpoint(&*driver, &spec.id, Memory, Then::Stop).await;
    let (next, _) = taken.expect("asleep again");
    // Its disk is gone: it is made from the snapshot.
    driver.reconcile(&[]).await.expect("reconciled");
    let woken = restore(&*driver, spec.clone(), &next, Memory).await;
    let instance = woken.expect("awake again");
    assert_eq!(boot_id(&*driver, &spec.id).await, first);
    fixture.end_init(&*driver, &spec.id, &instance);
    in_time("the end", driver.exited(&spec.id))
        .await
        .expect("told of the end of a restored one");
    driver.destroy(&spec.id).await.expect("destroyed");
    for snapshot in [&snapshot, &next] {
        driver.snapshot_remove(snapshot).await.expect("removed");
    }
    traceless(fixture, &*driver).await;
}

/// A sleeping sandbox and its snapshot can go in either order.
pub(super) async fn destroys_what_sleeps(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    if !has(&*driver, Capability::Checkpoint).await {
        return;
    }
    for sandbox_first in [true, false] {
        let spec = made(fixture, &*driver).await;
        boot_id(&*driver, &spec.id).await;
        let taken = checkpoint(&*driver, &spec.id, Memory, Then::Stop).await;
        let (snapshot, _) = taken.expect("asleep");
        if sandbox_first {
            driver.destroy(&spec.id).await.expect("destroyed");
        }
        for _ in 0..2 {
            driver.snapshot_remove(&snapshot).await.expect("removed");
        }
        unusable(restore(&*driver, spec.clone(), &snapshot, Memory).await);
        driver.destroy(&spec.id).await.expect("destroyed");
        traceless(fixture, &*driver).await;
    }
}

pub(super) async fn refuses_unknown_snapshots(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    let stranger = SnapshotId::generate();
    driver
        .snapshot_remove(&stranger)
        .await
        .expect("nothing to do");
    not_found(driver.snapshot_verify(&stranger).await);
    not_found(driver.snapshot_export(&stranger).await);
    for (content, capability) in [
        (Memory, Capability::Checkpoint),
        (Filesystem, Capability::FilesystemSnapshot),
    ] {
        if has(&*driver, capability).await {
            let spec = super::spec(fixture);
            unusable(restore(&*driver, spec, &stranger, content).await);
        }
    }
    traceless(fixture, &*driver).await;
}

/// What was not finished does not count, and goes.
pub(super) async fn keeps_no_unfinished_snapshots(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    if !has(&*driver, Capability::FilesystemSnapshot).await {
        return;
    }
    let snapshot = SnapshotId::generate();
    let folder = driver.snapshot_import_begin(&snapshot).await;
    assert!(folder.expect("a folder").is_dir());
    unusable(driver.snapshot_import_finish(&snapshot).await);
    not_found(driver.snapshot_verify(&snapshot).await);
    let known = driver.snapshot_reconcile(std::slice::from_ref(&snapshot));
    assert_eq!(known.await.expect("reconciled"), []);
    traceless(fixture, &*driver).await;
    not_found(driver.snapshot_import_finish(&snapshot).await);
}

/// Out to the archive, and back under the same name.
pub(super) async fn archives_and_brings_back(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    if !has(&*driver, Capability::Checkpoint).await {
        return;
    }
    let spec = made(fixture, &*driver).await;
    let first = boot_id(&*driver, &spec.id).await;
    let taken = checkpoint(&*driver, &spec.id, Memory, Then::Stop).await;
    let (snapshot, _) = taken.expect("asleep");
    let folder = driver.snapshot_export(&snapshot).await.expect("a folder");
    let archive = tempfile::tempdir().expect("an archive");
    copy(&folder, archive.path());
    let taken = driver.snapshot_import_begin(&snapshot).await;
    assert!(matches!(taken, Err(DriverError::AlreadyExists { .. })));
    driver.destroy(&spec.id).await.expect("its disk goes");
    driver.snapshot_remove(&snapshot).await.expect("removed");
    let folder = driver.snapshot_import_begin(&snapshot).await;
    copy(archive.path(), &folder.expect("a folder"));
    driver
        .snapshot_import_finish(&snapshot)
        .await
        .expect("brought back");
    let health = driver.snapshot_verify(&snapshot).await.expect("verified");
    assert_eq!(health, SnapshotHealth::Good);
    let woken = restore(&*driver, spec.clone(), &snapshot, Memory).await;
    woken.expect("awake");
    assert_eq!(boot_id(&*driver, &spec.id).await, first);
    driver.destroy(&spec.id).await.expect("destroyed");
    driver.snapshot_remove(&snapshot).await.expect("removed");
    traceless(fixture, &*driver).await;
}

/// With owners, modes and attributes.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status();
    assert!(copied.expect("cp runs").success());
}

/// A paused guest takes connections and answers none of them before it is resumed.
pub(super) async fn pauses_in_place(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    if !has(&*driver, Capability::Pause).await {
        return;
    }
    not_found(driver.pause(&SandboxId::generate()).await);
    not_found(driver.resume(&SandboxId::generate()).await);
    let (id, _) = launched(fixture, &*driver).await;
    let first = boot_id(&*driver, &id).await;
    driver.resume(&id).await.expect("it runs already");
    for _ in 0..2 {
        driver.pause(&id).await.expect("paused");
    }
    driver.usage(&id).await.expect("usage of a paused one");
    let asked = tokio::spawn({
        let (driver, id) = (Arc::clone(&driver), id.clone());
        async move { boot_id(&*driver, &id).await }
    });
    tokio::time::sleep(SILENCE).await;
    assert!(!asked.is_finished(), "a paused guest answers");
    for _ in 0..2 {
        driver.resume(&id).await.expect("resumed");
    }
    let answer = in_time("the answer", asked).await.expect("no panic");
    assert_eq!(answer, first);
    driver.pause(&id).await.expect("paused again");
    driver.destroy(&id).await.expect("destroyed while paused");
    traceless(fixture, &*driver).await;
}

/// A server that starts again finds paused sandboxes paused.
pub(super) async fn adopts_paused_ones(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    if !has(&*driver, Capability::Pause).await {
        return;
    }
    let (kept, instance) = launched(fixture, &*driver).await;
    let (orphan, _) = launched(fixture, &*driver).await;
    let first = boot_id(&*driver, &kept).await;
    driver.pause(&kept).await.expect("paused");
    driver.pause(&orphan).await.expect("paused");
    drop(driver);
    let driver = fixture.driver().await;
    driver.adopt(&kept, &instance).await.expect("adopted");
    driver.pause(&kept).await.expect("paused already");
    driver
        .reconcile(std::slice::from_ref(&kept))
        .await
        .expect("reconciled");
    not_found(driver.connect(&orphan).await);
    driver.resume(&kept).await.expect("resumed");
    assert_eq!(boot_id(&*driver, &kept).await, first, "the same guest");
    driver.destroy(&kept).await.expect("destroyed");
    traceless(fixture, &*driver).await;
}
