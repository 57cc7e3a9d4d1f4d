//! The driver's start: pool, skeleton, launchers, network, and what runs already.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use woodfrog_driver_common::egress::EgressOptions;
use woodfrog_driver_common::net;
use woodfrog_linux::btrfs;
use woodfrog_linux::cgroup::Hierarchies;
use woodfrog_linux::criu::{self, Criu, Found, release_connections};
use woodfrog_linux::idmap;
use woodfrog_linux::pool::{Pool, PoolKind};
use woodfrog_linux::skeleton;
use woodfrog_network::Network;
use woodfrog_sandbox::{Capabilities, Capability};
use woodfrog_types::SandboxId;

use crate::error::StartError;
use crate::instance::Instance;
use crate::launchers::Launchers;
use crate::note::Note;
use crate::paging::LazyPages;
use crate::paths::{Paths, instance_id};
use crate::slots::Slots;

/// Options of the native driver.
#[derive(Debug, Clone)]
pub struct NativeOptions {
    pub data_dir: PathBuf,
    /// The guest's program.
    pub guest: &'static [u8],
    /// First host id of the sandboxes' ranges; each slot has 65,536 from there.
    pub uid_base: u32,
    pub launchers: usize,
    /// Size of the pool's image, if one has to be made.
    pub pool_size: Option<u64>,
    /// The address block; `None` picks a free one and remembers it.
    pub cidr: Option<String>,
    /// Private blocks that sandboxes may reach.
    pub allow_private: Vec<String>,
    /// The ways out of sandboxes.
    pub egress: EgressOptions,
    /// Trade slightly dearer forks on the whole machine for creates that do not wait for an RCU
    /// grace period when they join their cgroups (version 1 only).
    pub favor_moves: bool,
    /// Whether big sandboxes go on before their memory is in.
    pub lazy_pages: LazyPages,
}

/// The last slot that has addresses.
const SLOT_LAST: u32 = woodfrog_network::names::MAX_SLOTS - 1;

/// How long a checkpoint that an earlier server began may take to end.
const SETTLE_MAX: Duration = Duration::from_secs(30);
const SETTLE_EVERY: Duration = Duration::from_millis(5);

/// What is left to the rest of the disk when the image's size is not given.
const POOL_SHARE_OF_FREE: u64 = 90;

/// Makes the pool usable.
pub(crate) async fn pool(options: &NativeOptions) -> Result<Pool, StartError> {
    let dir = options.data_dir.clone();
    let size = options.pool_size;
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
        .map_err(|e| failed(e.into()))?
        .map_err(|e| failed(e.into()))
}

/// The network, with the block it uses.
pub(crate) async fn network(
    options: &NativeOptions,
    notes: &[Note],
) -> Result<Network, StartError> {
    let asked = net::Wanted {
        instance: instance_id(&options.data_dir),
        dir: &options.data_dir,
        cidr: options.cidr.as_deref(),
        allow_private: &options.allow_private,
        data_dir: &options.data_dir,
        egress: &options.egress,
    };
    let running = notes.iter().map(|note| (note.slot, &note.egress));
    Ok(net::set_up(asked, running).await?)
}

/// Makes the skeleton layer for this guest; returns its folder.
pub(crate) fn skeleton_layer(paths: &Paths, guest: &[u8]) -> Result<PathBuf, StartError> {
    use sha2::{Digest, Sha256};
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

/// Those of the notes whose sandboxes run. A server may have died while it took a snapshot: CRIU
/// then either kills the sandbox, because the snapshot is safe, or lets it go on. What it will be
/// is waited for.
pub(crate) async fn settled(notes: Vec<Note>, staging: &Path) -> Vec<Note> {
    let start = std::time::Instant::now();
    let traced = || {
        notes
            .iter()
            .any(|note| note.is_alive() && is_traced(note.init.pid))
    };
    while traced() {
        if start.elapsed() > SETTLE_MAX {
            tracing::error!("a checkpoint of an earlier server does not end");
            break;
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
    let live: Vec<Note> = notes.into_iter().filter(Note::is_alive).collect();
    let under_way = std::fs::read_dir(staging).is_ok_and(|mut entries| entries.next().is_some());
    if under_way {
        let inits: Vec<u32> = live.iter().map(|note| note.init.pid).collect();
        let release = move || {
            inits
                .into_iter()
                .try_for_each(|pid| release_connections(pid).map(drop))
        };
        // Only where CRIU was killed, too, is there something to release.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(release).await {
            tracing::warn!(%error, "connections of sandboxes may hang");
        }
    }
    live
}

/// Whether a process of the host's, which can be CRIU alone, holds the init of a sandbox.
fn is_traced(init: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|pid| pid.trim() != "0")
}

/// What runs already, by the notes of an earlier server process.
pub(crate) fn running(notes: Vec<Note>, dir: &Path) -> HashMap<SandboxId, Instance> {
    let held = notes
        .into_iter()
        .filter_map(|note| match Instance::hold(note, dir) {
            Ok(instance) => instance,
            Err(error) => {
                tracing::warn!(%error, "a running sandbox cannot be taken over");
                None
            }
        });
    held.filter_map(|instance| Some((instance.id()?, instance)))
        .collect()
}

/// Slots that are not free: those of running sandboxes, whether or not they can be taken over.
pub(crate) fn slots(notes: &[Note]) -> Slots {
    let taken = notes
        .iter()
        .filter_map(|note| Some((note.id.parse().ok()?, note.slot)));
    Slots::new(SLOT_LAST, taken)
}

/// Every slot's range of host ids must exist, and none may be the host's own.
pub(crate) fn check_uid_base(base: u32) -> Result<(), StartError> {
    let end = u64::from(base) + u64::from(SLOT_LAST + 1) * u64::from(idmap::RANGE);
    if base >= idmap::RANGE && end <= u64::from(u32::MAX) {
        return Ok(());
    }
    Err(StartError::UidBase {
        base,
        min: idmap::RANGE,
        max: u32::MAX - (SLOT_LAST + 1) * idmap::RANGE,
    })
}

/// Folders for snapshots, without what a server that died left in them.
pub(crate) fn snapshot_directories(paths: &Paths, pool: &Pool) -> Result<(), StartError> {
    directories(&[&paths.snapshots, &paths.mounts])?;
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| StartError::Directory { path, source }
    };
    crate::restore::clear_mounts(&paths.mounts).map_err(failed(&paths.mounts))?;
    if !matches!(pool.kind, PoolKind::Plain { .. }) && !paths.staging.exists() {
        // A subvolume: what is written there counts as nobody's.
        btrfs::create_subvolume(&paths.staging).map_err(failed(&paths.staging))?;
    }
    crate::snapshots::clear_staging(&paths.staging).map_err(failed(&paths.staging))
}

/// What saves and restores memory, or why there is nothing that can.
pub(crate) async fn criu() -> Result<Criu, String> {
    let found = tokio::task::spawn_blocking(|| criu::find(&criu::default_prefix())).await;
    let hint = "`woodfrog doctor --fix` installs it; then start the server again";
    match found {
        Ok(Found::Suitable(mut criu)) => {
            let warm = move || {
                let warmed = criu.warm();
                (criu, warmed)
            };
            let warmed = tokio::task::spawn_blocking(warm).await;
            let (criu, warmed) = warmed.map_err(|e| e.to_string())?;
            if let Err(error) = warmed {
                tracing::warn!(%error, "every checkpoint and restore looks at the kernel anew");
            }
            Ok(criu)
        }
        Ok(Found::TooOld { criu, needed }) => Err(format!(
            "CRIU {} is too old for this kernel, which needs {needed}; {hint}",
            criu.version()
        )),
        Ok(Found::None) => Err(format!("CRIU is not installed; {hint}")),
        Err(error) => Err(error.to_string()),
    }
}

/// What this machine can give.
pub(crate) fn capabilities(
    network: &Network,
    pool: &Pool,
    criu: &Result<Criu, String>,
) -> Capabilities {
    let mut missing = Vec::new();
    if let PoolKind::Plain { reason } = &pool.kind {
        let why = format!("snapshots need a pool on btrfs: {reason}");
        missing.push((Capability::FilesystemSnapshot, why.clone()));
        missing.push((Capability::Checkpoint, why));
    } else if let Err(why) = criu {
        missing.push((Capability::Checkpoint, why.clone()));
    }
    if let Some(error) = network.unavailable() {
        let why = error.to_string();
        for capability in [
            Capability::Network,
            Capability::EgressCidr,
            Capability::EgressDomain,
        ] {
            missing.push((capability, why.clone()));
        }
    }
    if let Err(why) = &pool.disk_limits {
        missing.push((Capability::DiskLimit, why.clone()));
    }
    Capabilities { missing }
}

/// The cgroup hierarchies, tuned as asked.
pub(crate) fn cgroups(options: &NativeOptions) -> Result<Hierarchies, StartError> {
    let cgroups = Hierarchies::detect().map_err(StartError::Cgroups)?;
    if options.favor_moves
        && let Err(error) = cgroups.favor_moves()
    {
        tracing::info!(%error, "cgroup moves stay slow: the kernel has no favordynmods");
    }
    Ok(cgroups)
}

/// The launcher processes.
pub(crate) fn launchers(options: &NativeOptions) -> Result<Launchers, StartError> {
    Launchers::start(options.launchers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ids_stay_clear_of_the_host_and_of_the_end() {
        let Err(StartError::UidBase { min, max, .. }) = check_uid_base(0) else {
            panic!("0 is the host's root");
        };
        assert!(check_uid_base(min).is_ok());
        assert!(check_uid_base(max).is_ok());
        assert!(check_uid_base(min - 1).is_err());
        assert!(check_uid_base(max + 1).is_err());
        assert!(max.checked_add(SLOT_LAST * idmap::RANGE).is_some());
    }
}
