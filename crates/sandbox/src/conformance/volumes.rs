//! Directories of the host's that sandboxes share.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use woodfrog_types::snapshot::SnapshotContent::{Filesystem, Memory};
use woodfrog_types::{SandboxId, VolumeId};

use super::sleep::{checkpoint, restore, run};
use super::{Fixture, boot_id, guest, in_time, spec, traceless};
use crate::{Capability, Driver, DriverError, LaunchSpec, Then, VolumeSpec};

/// A volume on the host, removed in the end.
struct Shared {
    dir: tempfile::TempDir,
    volume: VolumeId,
}

impl Shared {
    fn new() -> Self {
        let shared = Self {
            dir: tempfile::tempdir().expect("a directory"),
            volume: VolumeId::generate(),
        };
        fs::create_dir(shared.source()).expect("the volume");
        let everybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions(shared.source(), everybody).expect("a mode");
        shared
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join(self.volume.as_str())
    }

    fn at(&self, path: &str) -> VolumeSpec {
        VolumeSpec {
            volume: self.volume.clone(),
            name: "shared".to_owned(),
            source: self.source(),
            path: path.to_owned(),
        }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.source().join(name)).unwrap_or_default()
    }
}

fn with(fixture: &dyn Fixture, volume: VolumeSpec) -> LaunchSpec {
    LaunchSpec {
        volumes: vec![volume],
        ..spec(fixture)
    }
}

fn has(driver: &dyn Driver) -> bool {
    let missing = driver.capabilities().why_missing(Capability::Volumes);
    missing.is_none()
}

async fn launched(driver: &dyn Driver, spec: &LaunchSpec) -> SandboxId {
    let launched = in_time("launch", driver.launch(spec.clone())).await;
    launched.expect("launched");
    boot_id(driver, &spec.id).await;
    spec.id.clone()
}

/// What one writes the others see, the host too, with the owners that it has inside; the end of a
/// sandbox leaves it.
pub(super) async fn shares_volumes(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    if !has(&*driver) {
        return;
    }
    let shared = Shared::new();
    let one = launched(&*driver, &with(fixture, shared.at("/mnt/made/for it"))).await;
    let other = launched(&*driver, &with(fixture, shared.at("/data"))).await;
    if fixture.has_shell() {
        let script = "echo one >'/mnt/made/for it/file'; cat '/mnt/made/for it/host'";
        fs::write(shared.source().join("host"), "of the host\n").expect("written");
        assert_eq!(run(&*driver, &one, script).await, "of the host\n");
        assert_eq!(shared.read("file"), "one\n");
        let owner = fs::metadata(shared.source().join("file")).expect("there");
        assert_eq!((owner.uid(), owner.gid()), (0, 0), "root inside is 0");
        let script = "cat /data/file; echo two >>/data/file";
        assert_eq!(run(&*driver, &other, script).await, "one\n");
        driver.destroy(&other).await.expect("destroyed");
        let read = run(&*driver, &one, "cat '/mnt/made/for it/file'").await;
        assert_eq!(read, "one\ntwo\n");
    }
    for id in [&one, &other] {
        driver.destroy(id).await.expect("destroyed");
    }
    assert!(shared.source().is_dir());
    traceless(fixture, &*driver).await;
}

/// Asleep it holds on to nothing, and others write; awake it goes on with the file that it had
/// open. So does its copy.
pub(super) async fn wakes_with_volumes(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    let missing = driver.capabilities().why_missing(Capability::Checkpoint);
    if !has(&*driver) || missing.is_some() {
        return;
    }
    let shared = Shared::new();
    let spec = with(fixture, shared.at("/mnt/data"));
    let id = launched(&*driver, &spec).await;
    let first = boot_id(&*driver, &id).await;
    if fixture.has_shell() {
        let script = "exec >>/mnt/data/log 2>&1 <>/mnt/data/both; cd /mnt/data; echo ready; \
                      while :; do [ -e /mnt/data/go ] && { echo went; cat >&2; exit; }; \
                      sleep 0.01; done";
        guest::detach(driver.connect(&id).await.expect("connected"), script).await;
        until(|| shared.read("log") == "ready\n").await;
    }
    let taken = checkpoint(&*driver, &id, Memory, Then::Stop).await;
    let (snapshot, _) = taken.expect("asleep");
    fs::write(shared.source().join("both"), "longer than it was\n").expect("written");
    let without = LaunchSpec {
        volumes: Vec::new(),
        ..spec.clone()
    };
    if driver.name() != "fake" {
        let refused = restore(&*driver, without, &snapshot, Memory).await;
        assert!(
            matches!(refused, Err(DriverError::Snapshot { .. })),
            "{refused:?}"
        );
    }
    let woken = restore(&*driver, spec.clone(), &snapshot, Memory).await;
    woken.expect("awake");
    let mut copy = spec.clone();
    copy.id = SandboxId::generate();
    copy.hostname = copy.id.to_string();
    let copied = restore(&*driver, copy.clone(), &snapshot, Memory).await;
    copied.expect("copied");
    for id in [&id, &copy.id] {
        assert_eq!(boot_id(&*driver, id).await, first, "the same guest");
    }
    if fixture.has_shell() {
        fs::write(shared.source().join("go"), "").expect("written");
        let line = "went\nlonger than it was\n";
        let both = || {
            let log = shared.read("log");
            log.matches("went\n").count() == 2 && log.matches("longer").count() == 2
        };
        until(both).await;
        assert_eq!(shared.read("log").len(), "ready\n".len() + 2 * line.len());
        let read = run(&*driver, &copy.id, "cat /mnt/data/both").await;
        assert_eq!(read, "longer than it was\n");
    }
    for id in [&id, &copy.id] {
        driver.destroy(id).await.expect("destroyed");
    }
    driver.snapshot_remove(&snapshot).await.expect("removed");
    traceless(fixture, &*driver).await;
}

/// A volume that is lost, and places that are none.
pub(super) async fn refuses_unusable_volumes(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    if !has(&*driver) {
        return;
    }
    let shared = Shared::new();
    let mut lost = with(fixture, shared.at("/data"));
    lost.volumes[0].source = shared.dir.path().join("lost");
    let invalid = |result: crate::Result<()>| match result {
        Err(DriverError::Invalid { field, .. }) if field == "volumes" => {}
        other => panic!("{other:?}"),
    };
    invalid(in_time("launch", driver.launch(lost)).await.map(drop));
    traceless(fixture, &*driver).await;
    let missing = (driver.capabilities()).why_missing(Capability::FilesystemSnapshot);
    if missing.is_some() || !fixture.has_shell() {
        return;
    }
    let mut sandbox = spec(fixture);
    launched(&*driver, &sandbox).await;
    run(&*driver, &sandbox.id, ": >/file").await;
    let taken = checkpoint(&*driver, &sandbox.id, Filesystem, Then::Stop).await;
    let (snapshot, _) = taken.expect("taken");
    for place in ["/file", "/file/x", "/proc/new", "/proc/1/root/tmp"] {
        sandbox.volumes = vec![shared.at(place)];
        let launched = restore(&*driver, sandbox.clone(), &snapshot, Filesystem).await;
        invalid(launched.map(drop));
    }
    sandbox.volumes = vec![shared.at("/etc/new")];
    let launched = restore(&*driver, sandbox.clone(), &snapshot, Filesystem).await;
    launched.expect("launched");
    run(&*driver, &sandbox.id, "echo here >/etc/new/file").await;
    assert_eq!(shared.read("file"), "here\n");
    driver.destroy(&sandbox.id).await.expect("destroyed");
    driver.snapshot_remove(&snapshot).await.expect("removed");
    traceless(fixture, &*driver).await;
}

async fn until(holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    in_time("what is written", waited).await;
}
