//! Taking snapshots of sandboxes.
//!
//! A sandbox only ends when its snapshot is safe: CRIU waits for our answer with all processes
//! still standing, and gives the dump up if the server dies before.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use woodfrog_linux::btrfs;
use woodfrog_linux::criu::{
    After, Criu, DumpSpec, Images, NetworkMode, Notice, Obstacle, POST_DUMP, dump, obstacles,
};
use woodfrog_linux::process::wait_ended;
use woodfrog_sandbox::{Capability, CheckpointSpec, Checkpointed, DriverError, Result, Then};
use woodfrog_types::snapshot::{SnapshotContent, SnapshotSize};
use woodfrog_types::{SandboxId, SnapshotId};

use crate::clock::Clock;
use crate::disk;
use crate::driver::{Shared, blocking, require};
use crate::error::step;
use crate::instance::Instance;
use crate::launch::uid_base;
use crate::locks::Held;
use crate::manifest::{MEMORY, Manifest, Size};
use crate::note::{Made, Note};
use crate::pages::{Parent, transfer};
use crate::reason::{self, Reason};
use crate::volumes::{self, Mounted};

/// Waits before another try, when something was under way that passes by itself.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(80)];
/// What a sandbox may use above its limit while its small images are in its folder.
const IMAGES_MAX: u64 = 64 << 20;
/// With less room than this a dump that failed did so for want of it.
const FULL: u64 = 8 << 20;
const DISK_FULL: &str = "the server's disk is full";
/// How long killed processes may take to be gone.
const END_MAX: Duration = Duration::from_secs(2);

/// Takes one. What is under way is finished even if the caller goes away.
pub(crate) async fn checkpoint(
    shared: &Arc<Shared>,
    id: &SandboxId,
    spec: CheckpointSpec,
) -> Result<Checkpointed> {
    let (capability, what) = match spec.content {
        SnapshotContent::Memory => (Capability::Checkpoint, "a snapshot of memory"),
        SnapshotContent::Filesystem => (Capability::FilesystemSnapshot, "a snapshot of files"),
    };
    require(&shared.capabilities, capability, what)?;
    if spec.content == SnapshotContent::Memory {
        // Not under the lock: who wants to end the sandbox does not wait for its memory.
        let instance = shared.instance(id)?;
        memory_is_in(id, &instance, spec.timeout).await?;
    }
    let held = shared.locks.lock(id).await;
    let (shared, id) = (Arc::clone(shared), id.clone());
    let work = tokio::spawn(async move { take(&shared, &id, spec, held).await });
    work.await.map_err(|e| step("checkpoint", e))?
}

async fn take(
    shared: &Arc<Shared>,
    id: &SandboxId,
    spec: CheckpointSpec,
    held: Held,
) -> Result<Checkpointed> {
    let instance = shared.instance(id)?;
    if instance
        .has_ended()
        .map_err(|e| step("look at the sandbox", e))?
    {
        return Err(DriverError::NotFound { id: id.to_string() });
    }
    if shared.paths.snapshot(&spec.snapshot).exists() {
        return Err(DriverError::AlreadyExists {
            id: spec.snapshot.to_string(),
        });
    }
    let Some(made) = instance.note.made.clone() else {
        return Err(refused(
            id,
            "it was made by an earlier version of the server; snapshots can be taken of new sandboxes",
        ));
    };
    let mut clock = Clock::start();
    if spec.content == SnapshotContent::Memory {
        // It may be another one than was looked at before.
        memory_is_in(id, &instance, Duration::ZERO).await?;
    }
    let taking = Taking {
        shared: Arc::clone(shared),
        id: id.clone(),
        note: instance.note_now(),
        made,
        instance,
        spec: spec.clone(),
    };
    let (size, mut laps) = blocking(move || taking.run()).await?;
    clock.lap("snapshot");
    if spec.then == Then::Stop {
        put_away(shared, id, &spec.snapshot, held).await;
        clock.lap("end");
    }
    laps.extend(clock.laps);
    tracing::debug!(%id, snapshot = %spec.snapshot, steps = ?laps, "checkpoint");
    Ok(Checkpointed {
        size,
        timings: laps,
    })
}

/// A sandbox that was woken a moment ago may not have all its memory yet.
async fn memory_is_in(id: &SandboxId, instance: &Instance, timeout: Duration) -> Result<()> {
    match tokio::time::timeout(timeout, instance.arrival.wait()).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(DriverError::NotFound { id: id.to_string() }),
        Err(_) => Err(DriverError::Checkpoint {
            id: id.to_string(),
            reason: "its memory from the snapshot before is not in yet".to_owned(),
            transient: true,
        }),
    }
}

/// Ends a sandbox that is safe in its snapshot. Once its processes are gone the rest goes in the
/// background, under the sandbox's lock: whoever wakes or destroys it waits for that.
async fn put_away(shared: &Arc<Shared>, id: &SandboxId, snapshot: &SnapshotId, held: Held) {
    if let Err(error) = shared.dismiss(id).await {
        tracing::error!(%id, %error, "a sandbox that was saved does not end");
    }
    let (shared, id, snapshot) = (Arc::clone(shared), id.clone(), snapshot.clone());
    tokio::spawn(async move {
        let _held = held;
        if let Err(error) = shared.put_away(&id, &snapshot).await {
            // Whoever wakes or destroys it meets the rest.
            tracing::error!(%id, %error, "a sleeping sandbox left something behind");
        }
    });
}

type Laps = Vec<(&'static str, Duration)>;

/// A snapshot being taken, off the async threads.
struct Taking {
    shared: Arc<Shared>,
    id: SandboxId,
    instance: Arc<Instance>,
    note: Note,
    made: Made,
    spec: CheckpointSpec,
}

impl Taking {
    fn run(&self) -> Result<(SnapshotSize, Laps)> {
        let group = self.shared.cgroup(&self.id);
        let frozen = group
            .is_frozen()
            .map_err(|e| step("look at the freezer", e))?;
        let taken = match self.spec.content {
            SnapshotContent::Memory => {
                if frozen {
                    // CRIU would wait for it.
                    group.thaw().map_err(|e| step("thaw", e))?;
                }
                let taken = self.memory();
                if frozen && !self.is_to_go(&taken) {
                    group.freeze().map_err(|e| step("freeze", e))?;
                }
                taken
            }
            SnapshotContent::Filesystem => {
                group.freeze().map_err(|e| step("freeze", e))?;
                let taken = self.files();
                if !frozen && !self.is_to_go(&taken) {
                    group.thaw().map_err(|e| step("thaw", e))?;
                }
                taken
            }
        };
        if taken.is_err() || self.spec.then == Then::Continue {
            self.clean_up(taken.is_err());
        }
        taken
    }

    fn is_to_go<T>(&self, taken: &Result<T>) -> bool {
        taken.is_ok() && self.spec.then == Then::Stop
    }

    /// Removes what is not needed of it, or all of it. Errors leave something that the next
    /// checkpoint or start removes.
    fn clean_up(&self, failed: bool) {
        let shared = &self.shared;
        let images = disk::remove_images(&self.dir());
        let limit = disk::limit(shared, &self.id, self.made.disk_bytes);
        let snapshot = match failed {
            true => disk::remove(shared, &shared.paths.snapshot(&self.spec.snapshot)),
            false => Ok(()),
        };
        if let Err(error) = images.and(limit).and(snapshot) {
            tracing::warn!(id = %self.id, %error, "cleaning up after a checkpoint");
        }
    }

    fn dir(&self) -> PathBuf {
        self.shared.paths.sandbox(&self.id)
    }

    /// Its processes stand still: what they wrote is written as of now.
    fn files(&self) -> Result<(SnapshotSize, Laps)> {
        let mut clock = Clock::start();
        let size = Size {
            disk: self.used(),
            ..Size::default()
        };
        let manifest = self.manifest(size);
        self.publish(&manifest).map_err(|e| self.not_written(&e))?;
        clock.lap("commit");
        Ok((public(size), clock.laps))
    }

    fn memory(&self) -> Result<(SnapshotSize, Laps)> {
        let criu = self
            .shared
            .criu
            .as_ref()
            .map_err(|hint| DriverError::Unsupported {
                what: "a snapshot of memory".into(),
                hint: hint.clone(),
            })?;
        let deadline = Instant::now() + self.spec.timeout;
        if let Some(Obstacle { refusal, name, .. }) = self.obstacle() {
            return Err(refused(&self.id, &format!("{refusal} (`{name}`)")));
        }
        let mut pauses = PAUSES.into_iter();
        loop {
            let reason = match self.attempt(criu, deadline)? {
                Ok(taken) => return Ok(taken),
                Err(reason) => reason,
            };
            match pauses.next() {
                Some(pause) if reason.transient && Instant::now() + pause < deadline => {
                    self.clean_up(true);
                    std::thread::sleep(pause);
                }
                _ => {
                    return Err(DriverError::Checkpoint {
                        id: self.id.to_string(),
                        reason: reason.text,
                        transient: reason.transient,
                    });
                }
            }
        }
    }

    /// What is known beforehand to keep it from being saved, without stopping anything.
    fn obstacle(&self) -> Option<Obstacle> {
        let pids = self.shared.cgroup(&self.id).pids().ok()?;
        let obstacles = obstacles(self.note.init.pid, &pids);
        let lasting = |obstacle: &Obstacle| !obstacle.refusal.transient();
        obstacles.into_iter().find(lasting)
    }

    /// One dump. The inner error is one that may be tried again.
    fn attempt(
        &self,
        criu: &Criu,
        deadline: Instant,
    ) -> Result<std::result::Result<(SnapshotSize, Laps), Reason>> {
        let staging = Staging::new(&self.shared.paths.staging, self.spec.snapshot.as_str());
        let staging = staging.map_err(|e| self.not_written(&e))?;
        let images = staging.images();
        let mounted = volumes::mounted(self.note.init.pid, &self.made.volumes)
            .map_err(|e| step("look for volumes", e))?;
        let spec = DumpSpec {
            pid: self.note.init.pid,
            network: NetworkMode::Owned,
            images: &images,
            after: match self.spec.then {
                Then::Continue => After::Running,
                Then::Stop => After::Killed,
            },
            external: &volumes::left_out(&mounted),
            timeout: deadline.saturating_duration_since(Instant::now()),
        };
        let mut clock = Clock::start();
        let mut published = None;
        let dumped = dump(criu, &spec, &mut |notice: &Notice| {
            if notice.name == POST_DUMP {
                clock.lap("dump");
                let written = self.write(&staging, criu, &mounted, &mut clock);
                let told = written.as_ref().map(drop);
                let told = told.map_err(|e| io::Error::new(e.kind(), e.to_string()));
                published = Some(written);
                return told;
            }
            Ok(())
        });
        clock.lap("release");
        match (dumped, published) {
            (Ok(()), Some(Ok(size))) => Ok(Ok((public(size), clock.laps))),
            (Ok(()), _) => Ok(Err(Reason {
                text: "CRIU did not say that it was done".to_owned(),
                transient: false,
            })),
            // Safe, and gone as it was to be: how CRIU ended after that does not matter.
            (Err(error), Some(Ok(size))) if self.has_gone() => {
                tracing::warn!(id = %self.id, %error, "after a complete checkpoint");
                Ok(Ok((public(size), clock.laps)))
            }
            (Err(_), Some(Err(error))) => Err(self.not_written(&error)),
            // What was written still takes the room: CRIU's own log may have found none.
            (Err(error), _) if self.is_full() => {
                tracing::warn!(id = %self.id, %error, "no room for a checkpoint");
                Err(refused(&self.id, DISK_FULL))
            }
            (Err(error), _) => {
                tracing::info!(id = %self.id, %error, "no checkpoint");
                Ok(Err(reason::of(&error)))
            }
        }
    }

    /// Whether there was no room for the images.
    fn is_full(&self) -> bool {
        let space = self.shared.pool.space();
        space.is_ok_and(|space| space.free < FULL)
    }

    /// Whether its processes were killed, as asked.
    fn has_gone(&self) -> bool {
        let ended = || wait_ended(self.instance.pidfd.as_fd(), END_MAX);
        self.spec.then == Then::Stop && ended().unwrap_or(false)
    }

    /// All its processes stand still, and their images are in the staging folder.
    fn write(
        &self,
        staging: &Staging,
        criu: &Criu,
        mounted: &[Mounted],
        clock: &mut Clock,
    ) -> io::Result<Size> {
        let dir = self.dir();
        disk::remove_images(&dir)?;
        let disk = self.used();
        disk::limit(
            &self.shared,
            &self.id,
            self.made.disk_bytes.saturating_add(IMAGES_MAX),
        )?;
        let memory = dir.join(MEMORY);
        fs::DirBuilder::new().mode(0o700).create(&memory)?;
        let parent = self.parent();
        let from = staging.images().images;
        let moved = transfer(&from, &memory, &staging.scratch(), parent.as_ref())?;
        clock.lap("pages");
        let size = Size {
            memory: moved.memory,
            written: moved.written,
            disk,
        };
        let mut manifest = self.manifest(size);
        manifest.criu = criu.version().to_string();
        manifest.files = moved.files;
        manifest.volumes = mounted.to_vec();
        self.publish(&manifest)?;
        clock.lap("commit");
        Ok(size)
    }

    /// The images of the snapshot before, if it can be read: sharing with it is not needed.
    fn parent(&self) -> Option<Parent> {
        let parent = self.spec.parent.as_ref()?;
        Parent::open(&self.shared.paths.snapshot(parent).join(MEMORY)).ok()
    }

    fn manifest(&self, size: Size) -> Manifest {
        let note = &self.note;
        Manifest {
            source: self.id.to_string(),
            parent: self.spec.parent.as_ref().map(ToString::to_string),
            hostname: self.made.hostname.clone(),
            layers: self.made.layers.clone(),
            skeleton: self.made.skeleton.clone(),
            cpu_count: note.cpu_count,
            memory_limit: note.memory_bytes,
            disk_limit: self.made.disk_bytes,
            pids: self.made.pids,
            uid_base: uid_base(&self.shared, note.slot),
            slots: std::iter::once(note.slot)
                .chain(self.made.earlier.iter().copied())
                .collect(),
            size,
            ..Manifest::new(&self.spec.snapshot, self.spec.content)
        }
    }

    /// From the moment this returns the snapshot is there, and safe.
    fn publish(&self, manifest: &Manifest) -> io::Result<()> {
        let dir = self.dir();
        manifest.write(&dir)?;
        btrfs::snapshot_read_only(&dir, &self.shared.paths.snapshot(&self.spec.snapshot))
    }

    /// Bytes that it wrote, as of the file system's last commit.
    fn used(&self) -> u64 {
        match self.shared.has_quotas() {
            true => btrfs::used(&self.dir()).unwrap_or(0),
            false => 0,
        }
    }

    fn not_written(&self, error: &io::Error) -> DriverError {
        tracing::warn!(id = %self.id, %error, "a snapshot could not be written");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                refused(&self.id, DISK_FULL)
            }
            _ => refused(
                &self.id,
                &format!("the snapshot could not be written: {error}"),
            ),
        }
    }
}

fn public(size: Size) -> SnapshotSize {
    SnapshotSize {
        memory_bytes: size.memory,
        written_bytes: size.written,
        disk_bytes: size.disk,
    }
}

fn refused(id: &SandboxId, reason: &str) -> DriverError {
    DriverError::Checkpoint {
        id: id.to_string(),
        reason: reason.to_owned(),
        transient: false,
    }
}

/// A folder for one dump, removed in the background.
struct Staging(PathBuf);

impl Staging {
    fn new(parent: &Path, name: &str) -> io::Result<Self> {
        // A number of its own: the one before may still be on its way out.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let staging = Self(parent.join(format!("{name}.{number}")));
        for part in ["", "images", "work", "scratch"] {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(staging.0.join(part))?;
        }
        Ok(staging)
    }

    fn images(&self) -> Images {
        Images {
            images: self.0.join("images"),
            work: self.0.join("work"),
        }
    }

    fn scratch(&self) -> PathBuf {
        self.0.join("scratch")
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Dropping what was never written takes a while, too. The start removes what is left.
        let dir = std::mem::take(&mut self.0);
        std::thread::spawn(move || fs::remove_dir_all(dir));
    }
}
