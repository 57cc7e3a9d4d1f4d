//! Volumes in sandboxes: which ones a new sandbox sees, and who sees one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use woodfrog_core::mounts;
use woodfrog_sandbox::VolumeSpec;
use woodfrog_types::key::Principal;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::page::PageRequest;
use woodfrog_types::sandbox::SandboxFilter;
use woodfrog_types::secret::{Volume, VolumeMount, WantedMount};
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Code, Fault, SandboxId, VolumeId, WorkspaceId};

use crate::engine::Engine;
use crate::fault;
use crate::inner::Inner;
use crate::sandbox::copies::From;
use crate::sandbox::launch::Origin;

/// As many sandboxes are named to whoever may not remove a volume.
const NAMED_MAX: usize = 5;

/// Volumes that sandboxes are being made with: those are not removed before the sandboxes are
/// recorded, which keeps them from then on.
#[derive(Default)]
pub(crate) struct VolumePins(Mutex<HashMap<VolumeId, Arc<RwLock<()>>>>);

/// Keeps a volume until it is dropped.
pub(crate) type Pin = OwnedRwLockReadGuard<()>;

impl VolumePins {
    fn of(&self, id: &VolumeId) -> Arc<RwLock<()>> {
        let mut pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pins.retain(|_, pin| Arc::strong_count(pin) > 1);
        Arc::clone(pins.entry(id.clone()).or_default())
    }

    async fn pin(&self, id: &VolumeId) -> Pin {
        self.of(id).read_owned().await
    }

    /// Until it is dropped no sandbox is made with it; refused while one is.
    pub(super) fn alone(&self, volume: &Volume) -> Result<OwnedRwLockWriteGuard<()>, Fault> {
        let alone = self.of(&volume.id).try_write_owned();
        alone.map_err(|_| in_use(volume, "a sandbox that is being made"))
    }
}

impl Engine {
    /// The volumes of a new sandbox, with what keeps them until its record is there.
    pub(crate) async fn volumes_of(
        &self,
        principal: &Principal,
        wanted: &[WantedMount],
        source: &From,
    ) -> Result<(Vec<VolumeMount>, Vec<Pin>), Fault> {
        let mounts = match wanted.is_empty() {
            true => source.volumes.clone(),
            false => self.named(principal, &mounts::check(wanted)?).await?,
        };
        let with_memory = match &source.origin {
            Origin::Layers { .. } => false,
            Origin::Snapshot { content, .. } => *content == SnapshotContent::Memory,
        };
        if with_memory && !same(&mounts, &source.volumes) {
            return Err(Fault::invalid(
                "volumes",
                "a sandbox made from a snapshot with memory has the volumes of its source",
            ));
        }
        let mut pins = Vec::with_capacity(mounts.len());
        for mount in &mounts {
            pins.push(self.inner.volume_pins.pin(&mount.volume).await);
            self.still_there(&principal.workspace, mount).await?;
        }
        Ok((mounts, pins))
    }

    async fn named(
        &self,
        principal: &Principal,
        wanted: &[WantedMount],
    ) -> Result<Vec<VolumeMount>, Fault> {
        let known = self.volume_list(principal).await?;
        let mount = |wanted: &WantedMount| {
            let found = known.iter().find(|volume| volume.name == wanted.name);
            let found = found.ok_or_else(|| {
                let text = format!("volume '{}' not found", wanted.name);
                Fault::invalid("volumes", text)
            })?;
            Ok(VolumeMount {
                volume: found.id.clone(),
                name: found.name.clone(),
                path: wanted.path.clone(),
            })
        };
        wanted.iter().map(mount).collect()
    }

    /// It may have been removed since its name was looked up, or since the snapshot was taken.
    async fn still_there(&self, workspace: &WorkspaceId, mount: &VolumeMount) -> Result<(), Fault> {
        let found = self.inner.store.volume_fetch(&mount.volume).await;
        match found.map_err(fault::store)? {
            Some(volume) if volume.workspace == *workspace => Ok(()),
            Some(_) | None => {
                let text = format!("volume '{}' not found: it was removed", mount.name);
                Err(Fault::invalid("volumes", text))
            }
        }
    }

    /// Refuses to go on while a sandbox, awake or asleep, has the volume.
    pub(super) async fn check_unused(&self, volume: &Volume) -> Result<(), Fault> {
        let users = self.users(volume).await?;
        if users.is_empty() {
            return Ok(());
        }
        let named: Vec<&str> = users.iter().take(NAMED_MAX).map(AsRef::as_ref).collect();
        let more = match users.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(in_use(volume, &format!("{}{more}", named.join(", "))))
    }

    async fn users(&self, volume: &Volume) -> Result<Vec<SandboxId>, Fault> {
        let (store, mut users) = (&self.inner.store, Vec::new());
        let all = SandboxFilter::default();
        let mut page = PageRequest {
            limit: PAGE_ITEMS_MAX,
            cursor: None,
        };
        loop {
            let listed = store.sandbox_list(&volume.workspace, &all, &page).await;
            let listed = listed.map_err(fault::store)?;
            let has = |sandbox: &woodfrog_types::sandbox::Sandbox| {
                sandbox.volumes.iter().any(|one| one.volume == volume.id)
            };
            let found = listed.items.into_iter().filter(has);
            users.extend(found.map(|sandbox| sandbox.id));
            match listed.next {
                Some(cursor) => page.cursor = Some(cursor),
                None => return Ok(users),
            }
        }
    }
}

fn in_use(volume: &Volume, whose: &str) -> Fault {
    let text = format!("volume '{}' is mounted in: {whose}", volume.name);
    Fault::new(Code::Conflict, text)
}

fn same(one: &[VolumeMount], other: &[VolumeMount]) -> bool {
    one.len() == other.len() && one.iter().all(|mount| other.contains(mount))
}

/// The driver's view of a sandbox's volumes.
pub(crate) fn specs(inner: &Inner, mounts: &[VolumeMount]) -> Vec<VolumeSpec> {
    let volumes = super::volumes(inner);
    let spec = |mount: &VolumeMount| VolumeSpec {
        volume: mount.volume.clone(),
        name: mount.name.clone(),
        source: volumes.path(mount.volume.as_str()),
        path: mount.path.clone(),
    };
    mounts.iter().map(spec).collect()
}
