//! The driver's start: pool, skeleton, launchers, network, and what runs already.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use woodfrog_linux::cgroup::Hierarchies;
use woodfrog_linux::idmap;
use woodfrog_linux::pool::Pool;
use woodfrog_linux::skeleton;
use woodfrog_network::{Cidr, Live, Network, NetworkConfig, Subnet, choose_subnet, default_denied};
use woodfrog_sandbox::{Capabilities, Capability, Egress};
use woodfrog_types::SandboxId;

use crate::egress::wanted;
use crate::error::StartError;
use crate::instance::Instance;
use crate::launchers::Launchers;
use crate::note::Note;
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
    /// Trade slightly dearer forks on the whole machine for creates that do not wait for an RCU
    /// grace period when they join their cgroups (version 1 only).
    pub favor_moves: bool,
}

/// The last slot that has addresses.
const SLOT_LAST: u32 = woodfrog_network::names::MAX_SLOTS - 1;

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
    let subnet = subnet(options)?;
    let parse = |text: &String| {
        text.parse::<Cidr>()
            .map_err(|error| StartError::Network(format!("{text}: {error}")))
    };
    let config = NetworkConfig {
        instance: instance_id(&options.data_dir),
        subnet,
        deny: default_denied(),
        allow: options
            .allow_private
            .iter()
            .map(parse)
            .collect::<Result<_, _>>()?,
        uplinks: Vec::new(),
        dns_upstreams: None,
        nft: None,
    };
    let live: Vec<Live> = notes
        .iter()
        .filter_map(|note| {
            let policy = wanted(&Egress::from(&note.egress)).ok()?.policy;
            Some(Live {
                slot: note.slot,
                policy,
            })
        })
        .collect();
    let network = Network::setup(config, &live).await;
    if let Some(error) = network.unavailable() {
        tracing::warn!(%error, "sandboxes have no network");
    }
    for warning in network.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(network)
}

/// The configured block, else the one of last time, else a free one (then remembered: running
/// sandboxes keep their addresses across a restart).
fn subnet(options: &NativeOptions) -> Result<Subnet, StartError> {
    let bad = |text: &str| StartError::Network(format!("`{text}` is not a usable IPv4 block"));
    let from_text = |text: &str| {
        text.parse::<Cidr>()
            .ok()
            .and_then(Subnet::new)
            .ok_or_else(|| bad(text))
    };
    if let Some(text) = &options.cidr {
        return from_text(text);
    }
    let file = options.data_dir.join("subnet");
    if let Ok(text) = std::fs::read_to_string(&file) {
        return from_text(text.trim());
    }
    let chosen = choose_subnet()
        .map_err(|error| StartError::Network(error.to_string()))?
        .ok_or(StartError::NoSubnet)?;
    std::fs::write(&file, chosen.range().to_string())
        .map_err(|source| StartError::Directory { path: file, source })?;
    Ok(chosen)
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

/// What runs already, by the notes of an earlier server process.
pub(crate) fn running(notes: Vec<Note>) -> HashMap<SandboxId, Instance> {
    let held = notes
        .into_iter()
        .filter_map(|note| match Instance::hold(note) {
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

/// What this machine can give.
pub(crate) fn capabilities(network: &Network, disk_limits: Result<(), String>) -> Capabilities {
    let mut missing = vec![
        (Capability::Pause, "not supported yet".to_owned()),
        (Capability::Checkpoint, "not supported yet".to_owned()),
    ];
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
    if let Err(why) = disk_limits {
        missing.push((Capability::DiskLimit, why));
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
