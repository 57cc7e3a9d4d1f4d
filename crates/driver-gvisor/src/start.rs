//! The driver's start: pool, skeleton, network, and what runs already.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use woodfrog_driver_common::egress::EgressOptions;
use woodfrog_driver_common::instance_id;
use woodfrog_driver_common::net;
use woodfrog_driver_common::slots::Slots;
use woodfrog_linux::cgroup::Hierarchies;
use woodfrog_linux::pool::{Pool, PoolKind};
use woodfrog_linux::{runsc, skeleton};
use woodfrog_network::Network;
use woodfrog_sandbox::{Capabilities, Capability};
use woodfrog_types::SandboxId;

use crate::error::StartError;
use crate::instance::Instance;
use crate::note::Note;
use crate::paths::Paths;
use crate::runsc::Caller;

/// Options of the gVisor driver.
#[derive(Debug, Clone)]
pub struct GvisorOptions {
    /// The server's data directory. Pool and layers are shared with other drivers.
    pub data_dir: PathBuf,
    /// The guest's program.
    pub guest: &'static [u8],
    /// Where `runsc` was installed apart from the system.
    pub runsc_prefix: PathBuf,
    /// Size of the pool's image, if one has to be made.
    pub pool_size: Option<u64>,
    /// The address block, which no other driver has; `None` picks a free one and remembers it.
    pub cidr: Option<String>,
    /// Private blocks that sandboxes may reach.
    pub allow_private: Vec<String>,
    /// The ways out of sandboxes.
    pub egress: EgressOptions,
    /// Whether memory is saved and restored: see `docs/design/gvisor.md`.
    pub memory_snapshots: bool,
}

/// The last slot that has addresses.
const SLOT_LAST: u32 = woodfrog_network::names::MAX_SLOTS - 1;
/// What is left to the rest of the disk when the image's size is not given.
const POOL_SHARE_OF_FREE: u64 = 90;
/// The longest path of a unix socket.
const SOCKET_PATH_MAX: usize = 107;

pub(crate) fn caller(options: &GvisorOptions, paths: &Paths) -> Result<Caller, StartError> {
    let found = runsc::find(&options.runsc_prefix).ok_or(StartError::NoRunsc)?;
    // It would go to a place of its own choosing.
    let socket = paths
        .state
        .join(format!("runsc-{}.sock", SandboxId::generate()));
    if socket.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(StartError::LongPath(paths.state.clone()));
    }
    Ok(Caller {
        runsc: found,
        state: paths.state.clone(),
    })
}

/// Makes the pool usable, unless another driver has.
pub(crate) async fn pool(options: &GvisorOptions) -> Result<Pool, StartError> {
    let (dir, size) = (options.data_dir.clone(), options.pool_size);
    let set_up = move || {
        let size = match size {
            Some(size) => size,
            None => {
                let disk = rustix::fs::statvfs(&dir)?;
                disk.f_bavail.saturating_mul(disk.f_frsize) / 100 * POOL_SHARE_OF_FREE
            }
        };
        Pool::set_up(&dir, size)
    };
    let failed = |source| StartError::Pool {
        path: options.data_dir.join("pool"),
        source,
    };
    tokio::task::spawn_blocking(set_up)
        .await
        .map_err(|e| failed(std::io::Error::other(e)))?
        .map_err(failed)
}

/// The network, without which the guest cannot be reached.
pub(crate) async fn network(
    options: &GvisorOptions,
    paths: &Paths,
    notes: &[Note],
) -> Result<Network, StartError> {
    let asked = net::Wanted {
        instance: instance_id(&paths.home),
        dir: &paths.home,
        cidr: options.cidr.as_deref(),
        allow_private: &options.allow_private,
        data_dir: &options.data_dir,
        egress: &options.egress,
    };
    let running = notes.iter().map(|note| (note.slot, &note.egress));
    let network = net::set_up(asked, running).await?;
    match network.unavailable() {
        None => Ok(network),
        Some(error) => Err(StartError::Network(error.to_string())),
    }
}

/// Makes the skeleton layer for this guest; returns its folder.
pub(crate) fn skeleton_layer(paths: &Paths, guest: &[u8]) -> Result<PathBuf, StartError> {
    let name = hex::encode(&Sha256::digest(guest)[..16]);
    let path = paths.skeletons.join(name);
    skeleton::create(&path, guest).map_err(|source| StartError::Directory {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

/// Makes folders with mode 0700: what is below is for sandboxes only through mounts.
pub(crate) fn directories(paths: &[&Path]) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    for path in paths {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| StartError::Directory {
                path: path.to_path_buf(),
                source,
            })?;
    }
    Ok(())
}

/// What runs already, by the notes of an earlier server process.
pub(crate) fn running(
    notes: Vec<Note>,
    cgroups: &Hierarchies,
    group: &str,
) -> HashMap<SandboxId, Arc<Instance>> {
    let held = notes.into_iter().filter_map(|note| {
        let frozen = cgroups.group(&format!("{group}/{}", note.id)).is_frozen();
        match Instance::hold(note, frozen.unwrap_or(false)) {
            Ok(instance) => instance,
            Err(error) => {
                tracing::warn!(%error, "a running sandbox cannot be taken over");
                None
            }
        }
    });
    held.filter_map(|instance| Some((instance.id()?, Arc::new(instance))))
        .collect()
}

/// Slots that are not free: those of running sandboxes, whether or not they can be taken over.
pub(crate) fn slots(notes: &[Note]) -> Slots {
    let taken = notes
        .iter()
        .filter_map(|note| Some((note.id.parse().ok()?, note.slot)));
    Slots::new(SLOT_LAST, taken)
}

/// What this machine can give, and what gVisor cannot.
pub(crate) fn capabilities(pool: &Pool, memory_snapshots: bool) -> Capabilities {
    let mut missing = vec![(
        Capability::PidsLimit,
        "gVisor runs each process of a sandbox in threads of its own, which are limited, and has no \
         limit on the processes themselves; the native driver has one"
            .to_owned(),
    )];
    missing.push((Capability::Volumes, crate::launch::NO_VOLUMES.to_owned()));
    if let Err(why) = &pool.disk_limits {
        missing.push((Capability::DiskLimit, why.clone()));
    }
    if let PoolKind::Plain { reason } = &pool.kind {
        for capability in [Capability::FilesystemSnapshot, Capability::Checkpoint] {
            missing.push((capability, format!("the pool is not on btrfs: {reason}")));
        }
    }
    if !memory_snapshots {
        missing.push((
            Capability::Checkpoint,
            "now and then a sandbox on gVisor does not answer after its memory was restored; the \
             setting `gvisor_memory_snapshots` turns it on all the same"
                .to_owned(),
        ));
    }
    Capabilities { missing }
}
