//! Making a sandbox: files, limits and network first, then `runsc`.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use woodfrog_driver_common::egress::wanted;
use woodfrog_driver_common::seed::seed;
use woodfrog_linux::cgroup::Limits;
use woodfrog_linux::process::Identity;
use woodfrog_linux::stage::Mounts;
use woodfrog_linux::{btrfs, netns};
use woodfrog_network::{Attachment, DNS_ADDRESS};
use woodfrog_sandbox::{DriverError, LaunchSpec, Launched, Result};
use woodfrog_types::SnapshotId;

use crate::bundle;
use crate::driver::{Shared, blocking};
use crate::error::step;
use crate::files;
use crate::instance::Instance;
use crate::note::{Facts, Note};
use crate::relay;
use crate::runsc::{From, Place};

/// Smallest disk that overlayfs and a seeded `/etc` fit in.
const DISK_BYTES_MIN: u64 = 1 << 20;
/// Why there are no volumes.
pub(crate) const NO_VOLUMES: &str = "the gvisor driver mounts no volumes; the native driver does";
/// Smallest memory in which gVisor, the guest and a shell run.
const MEMORY_BYTES_MIN: u64 = 64 << 20;
/// Processes and threads of gVisor itself: its threads are bounded by neither their number nor that
/// of what runs inside, but stay well below this.
const PIDS_OWN: u32 = 512;

/// What a sandbox is made from.
pub(crate) enum Origin {
    /// Its template alone.
    Template,
    /// A snapshot's files; it boots.
    Files(SnapshotId),
    /// A snapshot's files and processes, whose guest knows this secret.
    Processes {
        snapshot: SnapshotId,
        secret: String,
        /// The host name is another one's.
        renamed: bool,
    },
}

/// Makes a sandbox; on an error nothing of it is left. The caller holds its lock.
pub(crate) async fn launch(
    shared: &Arc<Shared>,
    spec: LaunchSpec,
    origin: Origin,
    timeout: Duration,
) -> Result<Launched> {
    let known = shared.instance(&spec.id).is_ok() || shared.slots.of(&spec.id).is_some();
    if known || shared.paths.sandbox(&spec.id).exists() {
        return Err(DriverError::AlreadyExists {
            id: spec.id.to_string(),
        });
    }
    check(&spec)?;
    // Refused before anything is made.
    wanted(&spec.egress)?;
    let slot = shared.slots.take(&spec.id);
    let slot = slot.ok_or_else(|| DriverError::Capacity {
        detail: "every address is in use".into(),
    })?;
    let made = make(shared, &spec, origin, slot, timeout).await;
    if made.is_err()
        && let Err(error) = shared.end(&spec.id).await
    {
        // Its slot stays taken: whoever destroys it later frees it.
        tracing::error!(id = %spec.id, %error, "a failed launch left something behind");
    }
    made
}

async fn make(
    shared: &Arc<Shared>,
    spec: &LaunchSpec,
    origin: Origin,
    slot: u32,
    timeout: Duration,
) -> Result<Launched> {
    let mut clock = Clock::start();
    let no_namespace = |e: io::Error| step("network namespace", e);
    let namespace = blocking(move || netns::create().map_err(no_namespace)).await?;
    let attached = namespace.try_clone().map_err(no_namespace)?;
    let wanted = wanted(&spec.egress)?;
    let (owned, told) = (Arc::clone(shared), spec.clone());
    let (attachment, prepared) = tokio::join!(
        (shared.network).attach(spec.id.as_str(), slot, attached, wanted.mode, wanted.policy),
        blocking(move || prepare(&owned, &told, &origin).map(|secret| (secret, origin))),
    );
    let (secret, origin) = prepared?;
    let attachment = attachment.map_err(|e| step("connect the network", e))?;
    let attachment = attachment.ok_or_else(|| step("connect the network", "it has none"))?;
    clock.lap("prepare");
    let renamed = matches!(origin, Origin::Processes { renamed: true, .. });
    let (owned, told) = (Arc::clone(shared), spec.clone());
    let started = blocking(move || start(&owned, &told, &origin, namespace, timeout)).await?;
    clock.lap("runsc");
    let instance = hold(shared, spec, slot, started, secret, &attachment)?;
    let state = instance.note.to_instance();
    shared.insert(&spec.id, instance);
    if renamed {
        relay::rename_host(&shared.instance(&spec.id)?, &spec.hostname).await?;
        clock.lap("host name");
    }
    Ok(Launched {
        instance: state,
        timings: clock.laps,
    })
}

fn check(spec: &LaunchSpec) -> Result<()> {
    if !spec.volumes.is_empty() {
        return Err(DriverError::Unsupported {
            what: "a sandbox with volumes".into(),
            hint: NO_VOLUMES.into(),
        });
    }
    let resources = &spec.resources;
    let bad = |field: &str, detail: String| {
        Err(DriverError::Invalid {
            field: field.into(),
            detail,
        })
    };
    let least = |bytes| format!("at least {bytes} bytes are needed");
    if resources.disk_bytes < DISK_BYTES_MIN {
        return bad("resources.disk_bytes", least(DISK_BYTES_MIN));
    }
    if resources.memory_bytes < MEMORY_BYTES_MIN {
        return bad("resources.memory_bytes", least(MEMORY_BYTES_MIN));
    }
    match spec.layers.iter().find(|layer| !layer.is_dir()) {
        Some(_) => bad("layers", "a layer of the template is missing".into()),
        None => Ok(()),
    }
}

/// Files, cgroup and bundle. Blocking. Returns the guest's secret.
fn prepare(shared: &Shared, spec: &LaunchSpec, origin: &Origin) -> Result<String> {
    let secret = files_of(shared, spec, origin).map_err(|e| match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DriverError::Capacity {
            detail: "the pool is full".into(),
        },
        _ => step("make the files", e),
    })?;
    let limits = Limits {
        memory_bytes: Some(spec.resources.memory_bytes),
        cpu_millicores: Some(spec.resources.cpu_count.saturating_mul(1000)),
        pids: Some(spec.resources.pids.saturating_add(PIDS_OWN)),
    };
    let name = shared.group_of(&spec.id);
    let made = shared.cgroups.create(&name, &limits);
    made.map_err(|e| match e.kind() {
        io::ErrorKind::Unsupported => DriverError::Unsupported {
            what: "limiting a sandbox".into(),
            hint: e.to_string(),
        },
        _ => step("make the cgroup", e),
    })?;
    let dir = shared.paths.bundle(&spec.id);
    bundle::write(&dir, &spec.hostname, spec.resources.memory_bytes)
        .map_err(|e| step("make the bundle", e))?;
    Ok(secret)
}

fn files_of(shared: &Shared, spec: &LaunchSpec, origin: &Origin) -> io::Result<String> {
    let dir = shared.paths.sandbox(&spec.id);
    let from = match origin {
        Origin::Template => None,
        Origin::Files(snapshot) | Origin::Processes { snapshot, .. } => {
            Some(shared.paths.snapshot(snapshot))
        }
    };
    match from {
        Some(from) => btrfs::snapshot(&from, &dir)?,
        None if shared.has_subvolumes() => btrfs::create_subvolume(&dir)?,
        None => fs::create_dir(&dir)?,
    }
    if shared.has_quotas() {
        btrfs::limit(&dir, spec.resources.disk_bytes)?;
    }
    let upper = dir.join("u");
    match origin {
        Origin::Template => seed(&dir, &spec.hostname, &DNS_ADDRESS.to_string())?,
        Origin::Files(_) => {
            own_work(&dir)?;
            files::rename_host(&upper, &spec.hostname)?;
        }
        Origin::Processes {
            secret, renamed, ..
        } => {
            own_work(&dir)?;
            // A file of the same name that a process has open must be the one it opened.
            if *renamed {
                files::rename_host(&upper, &spec.hostname)?;
            }
            return Ok(secret.clone());
        }
    }
    let secret = files::new_secret()?;
    files::leave_secret(&upper, &secret)?;
    Ok(secret)
}

/// Takes out of a copy of a snapshot what is the snapshot's alone.
fn own_work(dir: &Path) -> io::Result<()> {
    files::remove_dir(&dir.join("memory"))?;
    files::remove_file(&dir.join("manifest.json"))?;
    files::remove_dir(&dir.join("w"))?;
    fs::create_dir(dir.join("w"))
}

/// Has `runsc` start it. Blocking. The pid of its sentry.
fn start(
    shared: &Shared,
    spec: &LaunchSpec,
    origin: &Origin,
    netns: OwnedFd,
    timeout: Duration,
) -> Result<u32> {
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| step("paths", "a path is not UTF-8"))
    };
    let mut layers = vec![text(&shared.skeleton)?];
    for layer in spec.layers.iter().rev() {
        layers.push(text(layer)?);
    }
    let bundle = shared.paths.bundle(&spec.id);
    let place = Place {
        cgroup: shared.group_of(&spec.id),
        mounts: Mounts {
            layers,
            upper_dir: text(&shared.paths.sandbox(&spec.id))?,
            at: text(&bundle.join(bundle::ROOT))?,
            // Newer kernels show settings there that runsc takes for the host's own network.
            hide_sysctl_net: true,
        },
        netns,
        bundle,
    };
    let image = match origin {
        Origin::Template | Origin::Files(_) => None,
        Origin::Processes { snapshot, .. } => Some(shared.paths.snapshot(snapshot).join("memory")),
    };
    let from = image.as_deref().map_or(From::Nothing, From::Image);
    Ok(shared.runsc.start(&spec.id, place, &from, timeout)?)
}

/// Notes the new sandbox down and takes hold of it.
fn hold(
    shared: &Shared,
    spec: &LaunchSpec,
    slot: u32,
    pid: u32,
    secret: String,
    attachment: &Attachment,
) -> Result<Instance> {
    let ended = || step("launch", "the sandbox ended at once");
    let note = Note::new(
        &spec.id,
        Facts {
            sentry: Identity::read(pid).map_err(|_| ended())?,
            slot,
            egress: (&spec.egress).into(),
            address: attachment.addr,
            secret,
            disk_bytes: spec.resources.disk_bytes,
            layers: spec.layers.clone(),
        },
    );
    note.write(&shared.paths.notes)
        .map_err(|e| step("write the note", e))?;
    Instance::hold(note, false)?.ok_or_else(ended)
}

/// Laps of the way to a running sandbox.
pub(crate) struct Clock {
    last: Instant,
    pub(crate) laps: Vec<(&'static str, Duration)>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            last: Instant::now(),
            laps: Vec::new(),
        }
    }

    pub(crate) fn lap(&mut self, name: &'static str) {
        self.laps.push((name, self.last.elapsed()));
        self.last = Instant::now();
    }
}
