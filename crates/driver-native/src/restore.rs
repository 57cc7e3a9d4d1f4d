//! Making sandboxes from snapshots.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount,
};
use woodfrog_linux::cgroup::Group;
use woodfrog_linux::criu::{
    Criu, ExternalTree, Images, NetworkMode, Notice, PageDaemon, RestoreSpec as Order,
    SETUP_NAMESPACES, restore as criu_restore, restore_lazily,
};
use woodfrog_linux::launcher::{Call, Event};
use woodfrog_linux::netns;
use woodfrog_linux::process::Identity;
use woodfrog_sandbox::{Capability, DriverError, Launched, Outbound, RestoreSpec, Result};
use woodfrog_types::SandboxId;
use woodfrog_types::snapshot::SnapshotContent;

use crate::clock::Clock;
use crate::disk::{self, Claim};
use crate::driver::{Shared, blocking, require};
use crate::egress::Wanted;
use crate::error::step;
use crate::images;
use crate::launch::{self, Origin, uid_base};
use crate::manifest::{MEMORY, Manifest};
use crate::paging::Paging;
use crate::snapshots;
use crate::volumes;

/// The overlay of the sandbox that just ended may hold its layer a little longer.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// Makes one. What is under way is finished even if the caller goes away.
pub(crate) async fn restore(shared: &Arc<Shared>, spec: RestoreSpec) -> Result<Launched> {
    let (capability, what) = match spec.content {
        SnapshotContent::Memory => (
            Capability::Checkpoint,
            "a sandbox from a snapshot of memory",
        ),
        SnapshotContent::Filesystem => (
            Capability::FilesystemSnapshot,
            "a sandbox from a snapshot of files",
        ),
    };
    require(&shared.capabilities, capability, what)?;
    let held = shared.locks.lock(&spec.launch.id).await;
    let shared = Arc::clone(shared);
    let work = tokio::spawn(async move {
        let _held = held;
        make(&shared, spec).await
    });
    work.await.map_err(|e| step("restore", e))?
}

async fn make(shared: &Arc<Shared>, spec: RestoreSpec) -> Result<Launched> {
    let id = spec.launch.id.clone();
    if let Ok(instance) = shared.instance(&id)
        && !instance
            .has_ended()
            .map_err(|e| step("look at the sandbox", e))?
    {
        return Err(DriverError::AlreadyExists { id: id.to_string() });
    }
    let (owned, wanted) = (Arc::clone(shared), spec.clone());
    let manifest = move || {
        let manifest = snapshots::usable(&owned, &wanted.snapshot, wanted.content)?;
        same_layers(&manifest, &wanted)?;
        Ok(manifest)
    };
    let manifest = blocking(manifest).await?;
    launch::check(shared, &spec.launch)?;
    // A server that died while the sandbox fell asleep left it there.
    if shared.has_remains(&id) {
        shared.clear(&id).await?;
    }
    match spec.content {
        SnapshotContent::Filesystem => {
            let origin = Origin::Snapshot(spec.snapshot, Box::new(manifest));
            launch::launch(shared, spec.launch, origin).await
        }
        SnapshotContent::Memory => wake(shared, spec, manifest).await,
    }
}

/// The memory has the layers' files in it: others under it would be noticed too late.
fn same_layers(manifest: &Manifest, spec: &RestoreSpec) -> Result<()> {
    let layers = spec
        .launch
        .layers
        .iter()
        .map(|layer| launch::name_of(layer));
    if layers.eq(manifest.layers.iter().cloned()) {
        return Ok(());
    }
    Err(DriverError::Snapshot {
        id: spec.snapshot.to_string(),
        reason: "it was made on other layers".to_owned(),
    })
}

async fn wake(shared: &Arc<Shared>, spec: RestoreSpec, manifest: Manifest) -> Result<Launched> {
    let network = launch::network(shared, &spec.launch)?;
    let id = spec.launch.id.clone();
    let slot = match manifest.slots.first() {
        Some(slot) => shared.slots.take_again(&id, *slot),
        None => shared.slots.take(&id),
    };
    let slot = slot.ok_or_else(launch::no_slot)?;
    let limit = spec.launch.resources.memory_bytes;
    let waking = Waking {
        later: match shared.lazy_pages.applies(manifest.size.memory, limit) {
            true => Later::Most,
            false => Later::Nothing,
        },
        shared: Arc::clone(shared),
        skeleton: shared.paths.skeletons.join(&manifest.skeleton),
        spec,
        manifest,
        slot,
    };
    let waking = Arc::new(waking);
    let woken = waking.run(network).await;
    if woken.is_err()
        && let Err(error) = shared.end(&id).await
    {
        // Its slot stays taken: whoever destroys it later frees it.
        tracing::error!(%id, %error, "a failed restore left something behind");
    }
    woken
}

/// What of a sandbox's memory comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Later {
    Nothing,
    Most,
}

/// A sandbox that is on its way back.
struct Waking {
    later: Later,
    shared: Arc<Shared>,
    spec: RestoreSpec,
    manifest: Manifest,
    skeleton: PathBuf,
    slot: u32,
}

impl Waking {
    async fn run(self: &Arc<Self>, network: Wanted) -> Result<Launched> {
        let mut clock = Clock::start();
        let launcher = self.shared.launchers.pick()?;
        let base = uid_base(&self.shared, self.slot);
        let this = Arc::clone(self);
        let (group, mapped) = tokio::join!(
            blocking(move || this.prepare(base)),
            launcher.call(Call::PrepareMapping { uid_base: base }, &[]),
        );
        let group = group?;
        mapped?;
        clock.lap("prepare");
        let root = self.overlay(&launcher, base).await?;
        let volumes = self.volumes(&launcher, base).await?;
        clock.lap("overlay");
        let this = Arc::clone(self);
        let runtime = tokio::runtime::Handle::current();
        let attach = move |netns: OwnedFd| this.attach(&runtime, netns, network);
        let this = Arc::clone(self);
        let restored = blocking(move || this.restore(&group, &root, &volumes, attach)).await?;
        let (init, daemon) = (restored.init, restored.daemon);
        clock.laps.extend(restored.laps);
        clock.lap("restore");
        let launch = &self.spec.launch;
        let instance = launch::hold(
            &self.shared,
            launch,
            self.slot,
            init,
            &self.skeleton,
            self.earlier(),
            restored.paging,
        )?;
        // From here on it is watched by who holds the instance.
        drop(daemon.map(PageDaemon::release));
        let state = instance.note.to_instance();
        self.shared.insert(&launch.id, instance);
        let dir = self.shared.paths.sandbox(&launch.id);
        // The images are in the snapshot; here they are in the way. Who brings memory later has
        // them open.
        drop(tokio::task::spawn_blocking(move || {
            disk::remove_images(&dir)
        }));
        clock.lap("hold");
        tracing::debug!(id = %launch.id, snapshot = %self.spec.snapshot, steps = ?clock.laps, "restored");
        Ok(Launched {
            instance: state,
            timings: clock.laps,
        })
    }

    /// Slots whose addresses its connections may have, but for its own of now.
    fn earlier(&self) -> Vec<u32> {
        let slots: BTreeSet<u32> = self.manifest.slots.iter().copied().collect();
        let earlier = slots.into_iter().filter(|slot| *slot != self.slot);
        earlier.collect()
    }

    /// Disk, images and cgroup.
    fn prepare(&self, base: u32) -> Result<Group> {
        let launch = &self.spec.launch;
        let claim = disk::claim(&self.shared, launch, &self.spec.snapshot, &self.manifest);
        let claim = claim.map_err(launch::disk_error)?;
        if self.later == Later::Most {
            // The images stay for a while, beside what it may write.
            let bytes = launch.resources.disk_bytes;
            let bytes = bytes.saturating_add(self.manifest.size.memory);
            disk::limit(&self.shared, &launch.id, bytes).map_err(launch::disk_error)?;
        }
        let memory = self.memory();
        self.images(&memory, base)
            .map_err(|e| step("prepare the images", e))?;
        if claim == Claim::Copied {
            tracing::debug!(id = %launch.id, "a disk was made from the snapshot");
        }
        launch::group(&self.shared, launch)
    }

    fn memory(&self) -> PathBuf {
        self.shared.paths.sandbox(&self.spec.launch.id).join(MEMORY)
    }

    /// The sandbox's root reads them, and they speak of its ids and its name.
    fn images(&self, memory: &Path, base: u32) -> io::Result<()> {
        chown(memory, None, Some(base))?;
        fs::set_permissions(memory, fs::Permissions::from_mode(0o750))?;
        images::show_init(memory)?;
        if base != self.manifest.uid_base {
            images::set_uid_base(memory, self.manifest.uid_base, base)?;
        }
        if self.spec.launch.hostname != self.manifest.hostname {
            images::set_hostname(memory, &self.spec.launch.hostname)?;
        }
        let volumes = &self.manifest.volumes;
        if !volumes.is_empty() {
            // Others may have written there meanwhile.
            let paths: Vec<&str> = volumes.iter().map(|one| one.path.as_str()).collect();
            images::let_change(memory, &paths)?;
        }
        Ok(())
    }

    async fn overlay(
        &self,
        launcher: &crate::launcher::Launcher,
        uid_base: u32,
    ) -> Result<OwnedFd> {
        let launch = &self.spec.launch;
        let call = Call::MountOverlay {
            layers: launch::layers(&self.skeleton, launch)?,
            upper_dir: launch::text(&self.shared.paths.sandbox(&launch.id))?,
            uid_base,
        };
        for _ in 0..BUSY_TRIES {
            match launcher.try_call(call.clone(), &[]).await? {
                Ok((Event::Overlay, mut fds)) => {
                    return fds.pop().ok_or_else(|| step("overlay", "no mount came"));
                }
                Ok((other, _)) => return Err(step("launcher", format!("unexpected {other:?}"))),
                Err(failure) if failure.errno == rustix::io::Errno::BUSY.raw_os_error() => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(failure) => return Err(crate::error::from_failure(failure)),
            }
        }
        Err(step("overlay", "its layer stays in use"))
    }

    /// Its volumes, in the order of the manifest.
    async fn volumes(
        &self,
        launcher: &crate::launcher::Launcher,
        uid_base: u32,
    ) -> Result<Vec<ExternalTree>> {
        let given = volumes::given_back(&self.spec.launch, &self.spec.snapshot, &self.manifest)?;
        let mut trees = Vec::with_capacity(given.len());
        for (place, volume) in given {
            let call = Call::MapDirectory {
                source: launch::text(&volume.source)?,
                uid_base,
            };
            match launcher.call(call, &[]).await? {
                (Event::Directory, mut fds) => {
                    let tree = fds.pop().ok_or_else(|| step("volume", "no mount came"))?;
                    let name = place.name.clone();
                    trees.push(ExternalTree { name, tree });
                }
                (other, _) => return Err(step("launcher", format!("unexpected {other:?}"))),
            }
        }
        Ok(trees)
    }

    /// Before its processes come back: the link, its rules, and the address that it had.
    fn attach(
        &self,
        runtime: &tokio::runtime::Handle,
        netns: OwnedFd,
        network: Wanted,
    ) -> io::Result<()> {
        let (shared, id) = (&self.shared, self.spec.launch.id.as_str());
        for slot in self.earlier() {
            let kept = shared.network.keep_address(netns.as_fd(), slot);
            kept.map_err(io::Error::other)?;
        }
        let attached = shared
            .network
            .attach(id, self.slot, netns, network.mode, network.policy);
        runtime.block_on(attached).map_err(io::Error::other)?;
        Ok(())
    }

    fn restore(
        &self,
        group: &Group,
        root: &OwnedFd,
        volumes: &[ExternalTree],
        attach: impl FnOnce(OwnedFd) -> io::Result<()>,
    ) -> Result<Restored> {
        let criu = self
            .shared
            .criu
            .as_ref()
            .map_err(|hint| DriverError::Unsupported {
                what: "a sandbox from a snapshot of memory".into(),
                hint: hint.clone(),
            })?;
        let id = &self.spec.launch.id;
        let bench = Bench::new(&self.shared.paths.mounts, id, root);
        let bench = bench.map_err(|e| step("mount the root file system", e))?;
        let images = Images {
            images: self.memory(),
            work: bench.work(),
        };
        let order = Order {
            root: &bench.root(),
            network: NetworkMode::Owned,
            images: &images,
            external: &[],
            trees: volumes,
            group: Some(group),
            timeout: self.spec.timeout,
        };
        let mut clock = Clock::start();
        let mut attach = Some(attach);
        let (outcome, pages) = self.pages(criu, &order);
        let mut notify = |notice: &Notice| {
            if notice.name == SETUP_NAMESPACES {
                clock.lap("namespaces");
                if let Some(attach) = attach.take() {
                    attach(netns::of_process(notice.pid)?)?;
                }
                clock.lap("network");
            }
            Ok(())
        };
        let restored = match &pages {
            None => criu_restore(criu, &order, &mut notify),
            Some(daemon) => restore_lazily(criu, &order, daemon, &mut notify),
        };
        clock.lap(match &pages {
            None => "memory",
            Some(_) => "memory_later",
        });
        let mut daemon = pages;
        let init = restored.map_err(|e| self.not_restored(&e))?;
        let init = Identity::read(init).map_err(|e| step("identity", e))?;
        self.connections(init)?;
        clock.lap("connections");
        let paging = daemon.as_mut().zip(outcome);
        Ok(Restored {
            init,
            paging: paging.map(|(daemon, outcome)| Paging::new(daemon, outcome)),
            daemon,
            laps: clock.laps,
        })
    }

    /// What brings the memory later, if it is to come later and that can be had.
    fn pages(&self, criu: &Criu, order: &Order<'_>) -> (Option<String>, Option<PageDaemon>) {
        if self.later == Later::Nothing {
            return (None, None);
        }
        let outcome = Paging::file(&self.spec.launch.id);
        let path = self.shared.paths.notes.join(&outcome);
        match PageDaemon::start(criu, order.images, &path, order.timeout) {
            Ok(daemon) => (Some(outcome), Some(daemon)),
            Err(error) => {
                tracing::warn!(%error, "memory cannot come later; it is waited for");
                (None, None)
            }
        }
    }

    /// A copy talks as somebody else, with another address nobody answers, and who slept for long
    /// was forgotten.
    fn connections(&self, init: Identity) -> Result<()> {
        let copy = self.spec.launch.id.as_str() != self.manifest.source;
        let moved = self.manifest.slots.first() != Some(&self.slot);
        if self.spec.outbound == Outbound::Keep && !copy && !moved {
            return Ok(());
        }
        let netns = netns::of_process(init.pid).map_err(|e| step("network namespace", e))?;
        match self.shared.network.end_outbound(netns.as_fd()) {
            Ok(0) => {}
            Ok(ended) => tracing::debug!(id = %self.spec.launch.id, ended, "connections of before"),
            // They hang until they time out, as they would without this.
            Err(error) => {
                tracing::warn!(id = %self.spec.launch.id, %error, "connections of before are left")
            }
        }
        Ok(())
    }

    fn not_restored(&self, error: &woodfrog_linux::criu::RpcError) -> DriverError {
        tracing::error!(id = %self.spec.launch.id, snapshot = %self.spec.snapshot, %error, "no restore");
        step("restore the memory", error.to_string())
    }
}

/// What came back.
struct Restored {
    init: Identity,
    /// What brings the rest of its memory.
    daemon: Option<PageDaemon>,
    paging: Option<Paging>,
    laps: Vec<(&'static str, Duration)>,
}

/// Where CRIU finds the root file system; nothing of it stays.
struct Bench(PathBuf);

impl Bench {
    fn new(parent: &Path, id: &SandboxId, root: &OwnedFd) -> io::Result<Self> {
        let bench = Self(parent.join(id.as_str()));
        for part in ["", "root", "work"] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(bench.0.join(part))?;
        }
        let (path, flags) = (bench.root(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        move_mount(root, "", rustix::fs::CWD, &path, flags)?;
        mount_change(&path, MountPropagationFlags::PRIVATE)?;
        Ok(bench)
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn work(&self) -> PathBuf {
        self.0.join("work")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        clear(&self.0);
    }
}

/// Removes what servers that died left of restores.
pub(crate) fn clear_mounts(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        clear(&entry?.path());
    }
    Ok(())
}

fn clear(bench: &Path) {
    // Not mounted is fine; and never remove below a mount.
    let root = bench.join("root");
    let _ = unmount(&root, UnmountFlags::DETACH);
    let _ = fs::remove_dir(&root);
    let _ = fs::remove_dir_all(bench.join("work"));
    let _ = fs::remove_dir(bench);
}
