//! Making a sandbox: files, limits and network first, then the launcher.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use woodfrog_linux::cgroup::{Group, Limits};
use woodfrog_linux::idmap;
use woodfrog_linux::launcher::{
    Call, Event, LISTEN_FD, LaunchSpec as Order, Launched as Made, Network, TmpfsSizes,
    default_masked,
};
use woodfrog_linux::netns::OwnedPair;
use woodfrog_linux::process::Identity;
use woodfrog_linux::seccomp::SeccompPolicy;
use woodfrog_linux::skeleton::GUEST_PATH;
use woodfrog_network::NetworkMode;
use woodfrog_sandbox::{DriverError, LaunchSpec, Launched, Result};
use woodfrog_types::SnapshotId;
use woodfrog_types::template::SecurityOptions;

use crate::ahead::Ahead;
use crate::clock::Clock;
use crate::disk;
use crate::driver::{Shared, blocking, require_network};
use crate::egress::{Wanted, wanted};
use crate::error::step;
use crate::instance::Instance;
use crate::manifest::Manifest;
use crate::note::{Made as NoteMade, Note};
use crate::paging::Paging;
use crate::volumes;

/// Where a sandbox's files come from.
pub(crate) enum Origin {
    /// The template alone.
    Template,
    /// The files of a snapshot.
    Snapshot(SnapshotId, Box<Manifest>),
}

/// Smallest disk that overlayfs and a seeded `/etc` fit in.
const DISK_BYTES_MIN: u64 = 1 << 20;
/// Smallest memory in which the guest and a shell run.
const MEMORY_BYTES_MIN: u64 = 16 << 20;

/// Makes a sandbox; on an error nothing of it is left. The caller holds its lock.
pub(crate) async fn launch(
    shared: &Arc<Shared>,
    spec: LaunchSpec,
    origin: Origin,
) -> Result<Launched> {
    let known = shared.instance(&spec.id).is_ok() || shared.slots.of(&spec.id).is_some();
    if known || shared.paths.sandbox(&spec.id).exists() {
        return Err(DriverError::AlreadyExists {
            id: spec.id.to_string(),
        });
    }
    check(shared, &spec)?;
    let network = network(shared, &spec)?;
    let slot = shared.slots.take(&spec.id).ok_or_else(no_slot)?;
    let made = make(shared, &spec, slot, network, origin).await;
    if made.is_err()
        && let Err(error) = shared.end(&spec.id).await
    {
        // Its slot stays taken: whoever destroys it later frees it.
        tracing::error!(id = %spec.id, %error, "a failed launch left something behind");
    }
    made
}

/// The network that a sandbox gets here.
pub(crate) fn network(shared: &Shared, spec: &LaunchSpec) -> Result<Wanted> {
    let mut network = wanted(&spec.egress)?;
    if shared.network.unavailable().is_some() {
        network.mode = NetworkMode::None;
    }
    Ok(network)
}

/// What it means that no slot is free.
pub(crate) fn no_slot() -> DriverError {
    DriverError::Capacity {
        detail: "every address is in use".into(),
    }
}

async fn make(
    shared: &Arc<Shared>,
    spec: &LaunchSpec,
    slot: u32,
    network: Wanted,
    origin: Origin,
) -> Result<Launched> {
    let mut clock = Clock::start();
    let no_namespace = |e: io::Error| step("network namespace", e);
    let namespace = shared.namespaces.take().await.map_err(no_namespace)?;
    Ahead::refill(&shared.namespaces);
    let attached = namespace.network.try_clone().map_err(no_namespace)?;
    let id = spec.id.as_str();
    // Nothing that the launcher does depends on the link, and the other way round. Both are
    // awaited to their ends: what one makes is not left behind by the other's failure.
    let (attachment, launched) = tokio::join!(
        (shared.network).attach(id, slot, attached, network.mode, network.policy),
        start(shared, spec, slot, origin, &namespace, &mut clock),
    );
    let launched = launched?;
    attachment.map_err(|e| step("connect the network", e))?;
    let instance = hold(
        shared,
        spec,
        slot,
        launched.identity,
        &shared.skeleton,
        Vec::new(),
        None,
    )?;
    clock.lap("launch");
    let state = instance.note.to_instance();
    shared.insert(&spec.id, instance);
    let mut timings = clock.laps;
    let inner = launched
        .timing
        .0
        .values()
        .map(|micros| u64::from(*micros))
        .sum();
    timings.push(("launcher", Duration::from_micros(inner)));
    tracing::debug!(id = %spec.id, steps = ?launched.timing.0, "launcher steps in microseconds");
    Ok(Launched {
        instance: state,
        timings,
    })
}

/// Makes the files and the cgroup and has a launcher start the sandbox in them.
async fn start(
    shared: &Arc<Shared>,
    spec: &LaunchSpec,
    slot: u32,
    origin: Origin,
    namespace: &OwnedPair,
    clock: &mut Clock,
) -> Result<Made> {
    let launcher = shared.launchers.pick()?;
    let mapping = Call::PrepareMapping {
        uid_base: uid_base(shared, slot),
    };
    let (owned, wanted) = (Arc::clone(shared), spec.clone());
    let (group, mapped) = tokio::join!(
        blocking(move || prepare(&owned, &wanted, &origin)),
        launcher.call(mapping, &[]),
    );
    let group = group?;
    mapped?;
    clock.lap("prepare");
    let order = order(shared, spec, slot, &group)?;
    let fds = [namespace.network.as_fd(), namespace.user.as_fd()];
    match launcher.call(Call::Launch(Box::new(order)), &fds).await? {
        (Event::Launched(launched), _) => Ok(launched),
        (other, _) => Err(step("launcher", format!("unexpected answer {other:?}"))),
    }
}

/// First host id of a slot's range.
pub(crate) fn uid_base(shared: &Shared, slot: u32) -> u32 {
    shared.uid_base + slot * idmap::RANGE
}

pub(crate) fn check(shared: &Shared, spec: &LaunchSpec) -> Result<()> {
    require_network(&shared.capabilities, &spec.egress)?;
    let resources = &spec.resources;
    let bad = |field: &str, detail: String| {
        Err(DriverError::Invalid {
            field: field.into(),
            detail,
        })
    };
    if resources.disk_bytes < DISK_BYTES_MIN {
        return bad(
            "resources.disk_bytes",
            format!("at least {DISK_BYTES_MIN} bytes are needed"),
        );
    }
    if resources.memory_bytes < MEMORY_BYTES_MIN {
        return bad(
            "resources.memory_bytes",
            format!("at least {MEMORY_BYTES_MIN} bytes are needed"),
        );
    }
    match spec.layers.iter().find(|layer| !layer.is_dir()) {
        Some(_) => bad("layers", "a layer of the template is missing".into()),
        None => volumes::check(spec),
    }
}

/// Files and cgroup. Blocking.
fn prepare(shared: &Shared, spec: &LaunchSpec, origin: &Origin) -> Result<Group> {
    let files = match origin {
        Origin::Template => disk::create(shared, spec),
        Origin::Snapshot(snapshot, manifest) => {
            disk::claim(shared, spec, snapshot, manifest).map(drop)
        }
    };
    files.map_err(disk_error)?;
    group(shared, spec)
}

/// What a failure of the pool's means to the caller.
pub(crate) fn disk_error(error: io::Error) -> DriverError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DriverError::Capacity {
            detail: "the pool is full".into(),
        },
        _ => step("make the files", error),
    }
}

/// The cgroup with its limits. Blocking.
pub(crate) fn group(shared: &Shared, spec: &LaunchSpec) -> Result<Group> {
    let limits = Limits {
        memory_bytes: Some(spec.resources.memory_bytes),
        cpu_millicores: Some(spec.resources.cpu_count.saturating_mul(1000)),
        pids: Some(spec.resources.pids),
    };
    shared
        .cgroups
        .create(&format!("{}/{}", shared.group, spec.id), &limits)
        .map_err(|e| match e.kind() {
            io::ErrorKind::Unsupported => DriverError::Unsupported {
                what: "limiting a sandbox".into(),
                hint: e.to_string(),
            },
            _ => step("make the cgroup", e),
        })
}

/// A path, for the launcher.
pub(crate) fn text(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| step("paths", "a path is not UTF-8"))
}

/// The layers of a root file system, top first.
pub(crate) fn layers(skeleton: &Path, spec: &LaunchSpec) -> Result<Vec<String>> {
    let below = spec.layers.iter().rev().map(std::path::PathBuf::as_path);
    std::iter::once(skeleton).chain(below).map(text).collect()
}

/// What the launcher is told.
fn order(shared: &Shared, spec: &LaunchSpec, slot: u32, group: &Group) -> Result<Order> {
    let layers = layers(&shared.skeleton, spec)?;
    let directories = volumes::directories(spec)?;
    // A quarter of the memory each, so that filling them cannot take all of it.
    let tmpfs = TmpfsSizes {
        run: (spec.resources.memory_bytes / 4).max(1 << 20),
        shm: (spec.resources.memory_bytes / 4).max(1 << 20),
        inodes: 65_536,
    };
    Ok(Order {
        id: spec.id.to_string(),
        hostname: spec.hostname.clone(),
        uid_base: uid_base(shared, slot),
        layers,
        upper_dir: text(&shared.paths.sandbox(&spec.id))?,
        network: Network::Owned,
        cgroup: group.join(),
        seccomp: policy(&spec.security),
        rlimits: Vec::new(),
        program: GUEST_PATH.to_owned(),
        argv: vec![
            GUEST_PATH.to_owned(),
            "--listen-fd".to_owned(),
            LISTEN_FD.to_string(),
        ],
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
        tmpfs,
        listen: Some(format!("/{}", crate::socket::SOCKET)),
        masked: default_masked(),
        readonly: Vec::new(),
        directories,
        oom_score_adj: Some(-900),
    })
}

fn policy(security: &SecurityOptions) -> SeccompPolicy {
    SeccompPolicy {
        allow_nested_namespaces: security.nested_namespaces,
        allow_io_uring: security.io_uring,
        allow_userfaultfd: security.userfaultfd,
        allow_landlock: security.landlock,
        allow_message_queues: security.message_queues,
    }
}

/// Notes the new sandbox down and takes hold of it.
pub(crate) fn hold(
    shared: &Shared,
    spec: &LaunchSpec,
    slot: u32,
    init: Identity,
    skeleton: &Path,
    earlier: Vec<u32>,
    paging: Option<Paging>,
) -> Result<Instance> {
    let mut note = Note::new(&spec.id, init, slot, &spec.egress);
    note.cpu_count = spec.resources.cpu_count;
    note.memory_bytes = spec.resources.memory_bytes;
    note.made = Some(NoteMade {
        hostname: spec.hostname.clone(),
        layers: spec.layers.iter().map(|layer| name_of(layer)).collect(),
        skeleton: name_of(skeleton),
        disk_bytes: spec.resources.disk_bytes,
        pids: spec.resources.pids,
        earlier,
        volumes: (spec.volumes.iter())
            .map(|volume| volume.volume.to_string())
            .collect(),
    });
    note.paging = paging;
    let notes = &shared.paths.notes;
    note.write(notes).map_err(|e| step("write the note", e))?;
    Instance::hold(note, notes)?.ok_or_else(|| step("launch", "the sandbox ended at once"))
}

/// The last part of a path.
pub(crate) fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
