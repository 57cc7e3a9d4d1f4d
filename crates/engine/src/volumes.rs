//! Volumes: files that outlive sandboxes.
//!
//! Whoever has a volume's token may read and write its content; the token is derived from the
//! server's secret and the volume's id, as those of sandboxes are.
//!
//! A new volume has a limit wherever the pool has quotas. Those made before there were any, and those
//! of servers without quotas, have none.

use std::sync::Arc;

use woodfrog_core::{names, token};
use woodfrog_sandbox::Capability;
use woodfrog_store::cursor::{self, List};
use woodfrog_types::key::Principal;
use woodfrog_types::limits::VOLUME_BYTES_MIN;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::secret::Volume;
use woodfrog_types::workspace::Role;
use woodfrog_types::{Code, Fault, Timestamp, VolumeId};
use woodfrog_volumes::{Tree, VolumeError, Volumes};

use crate::engine::Engine;
use crate::fault;
use crate::inner::Inner;

mod mounts;

pub(crate) use mounts::{Pin, VolumePins, specs};

/// Volumes of one workspace.
const VOLUMES_MAX: usize = 1000;

/// A volume, what it takes, and what opens its content.
#[derive(Debug, Clone)]
pub struct VolumeView {
    pub volume: Volume,
    /// Bytes, as of half a minute ago at most; `None`: it has no limit, and nobody counts.
    pub used: Option<u64>,
    /// Valid as long as the volume is there.
    pub token: String,
}

/// The content of one volume.
#[derive(Debug, Clone)]
pub struct VolumeContent {
    volumes: Volumes,
    tree: Arc<Tree>,
}

impl VolumeContent {
    /// Does something with the content on a thread that may wait for a disk.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Volumes, &Tree) -> woodfrog_volumes::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let Self { volumes, tree } = self.clone();
        blocking(move || work(&volumes, &tree)).await
    }
}

impl Engine {
    /// Makes a volume that holds `size` bytes, or as many as the server gives.
    pub async fn volume_create(
        &self,
        principal: &Principal,
        name: &str,
        size: Option<u64>,
    ) -> Result<VolumeView, Fault> {
        self.inner.accepting()?;
        names::volume_name(name)?;
        let limit = limit(&self.inner, size)?;
        if self.volume_list(principal).await?.len() >= VOLUMES_MAX {
            let text = format!("a workspace has at most {VOLUMES_MAX} volumes");
            return Err(Fault::new(Code::QuotaExceeded, text));
        }
        let volume = Volume {
            id: VolumeId::generate(),
            workspace: principal.workspace.clone(),
            name: name.to_owned(),
            size_bytes: limit,
            created_at: Timestamp::now(),
        };
        // The content first, so that a volume without any is one that was lost. What a crash leaves
        // of it, the next start removes.
        let (volumes, id) = (volumes(&self.inner), volume.id.clone());
        let (kept, made) = (volumes.clone(), id.clone());
        blocking(move || kept.create(made.as_str(), limit)).await?;
        let stored = self.inner.store.volume_insert(&volume).await;
        if let Err(error) = stored {
            blocking(move || volumes.delete(id.as_str())).await?;
            return Err(fault::store(error));
        }
        self.volume_view(volume).await
    }

    /// A part of [`Engine::volume_list`], without tokens.
    pub async fn volume_page(
        &self,
        principal: &Principal,
        page: &PageRequest,
    ) -> Result<Page<VolumeView>, Fault> {
        let after = match &page.cursor {
            None => None,
            Some(cursor) => {
                let after = cursor::decode(List::Volumes, cursor);
                Some(after.map_err(fault::store)?)
            }
        };
        let key = |volume: &Volume| (volume.name.clone(), volume.id.to_string());
        let mut items = self.volume_list(principal).await?;
        items.retain(|volume| after.as_ref().is_none_or(|after| key(volume) > *after));
        let more = items.len() > cursor::page_items(page);
        items.truncate(cursor::page_items(page));
        let next = items.last().filter(|_| more);
        let next = next.map(|last| cursor::encode(List::Volumes, &last.name, last.id.as_str()));
        let volumes = volumes(&self.inner);
        let view = move |volume: Volume| VolumeView {
            used: volumes.used(volume.id.as_str()),
            volume,
            token: String::new(),
        };
        let items = blocking(move || Ok(items.into_iter().map(view).collect())).await?;
        Ok(Page { items, next })
    }

    /// One of the workspace's volumes, by id or name.
    pub async fn volume_find(
        &self,
        principal: &Principal,
        reference: &str,
    ) -> Result<VolumeView, Fault> {
        let all = self.volume_list(principal).await?;
        let named = all.into_iter().find(|volume| volume.name == reference);
        let id = match named {
            Some(volume) => volume.id,
            None => reference.parse().map_err(|_| {
                let shown: String = reference.chars().take(64).collect();
                Fault::new(Code::NotFound, format!("volume '{shown}' not found"))
            })?,
        };
        self.volume_fetch(principal, &id).await
    }

    /// The workspace's volumes, by name.
    pub async fn volume_list(&self, principal: &Principal) -> Result<Vec<Volume>, Fault> {
        let listed = self.inner.store.volume_list(Some(&principal.workspace));
        listed.await.map_err(fault::store)
    }

    /// One of the workspace's volumes.
    pub async fn volume_fetch(
        &self,
        principal: &Principal,
        id: &VolumeId,
    ) -> Result<VolumeView, Fault> {
        let found = self.inner.store.volume_fetch(id).await;
        let found = found.map_err(fault::store)?;
        let own = found.filter(|volume| volume.workspace == principal.workspace);
        let own =
            own.ok_or_else(|| Fault::new(Code::NotFound, format!("volume '{id}' not found")))?;
        let mut view = self.volume_view(own).await?;
        // With the token one could write.
        if principal.role == Role::Viewer {
            view.token = String::new();
        }
        Ok(view)
    }

    /// Removes a volume with its content. `Conflict` while a sandbox has it, awake or asleep.
    pub async fn volume_delete(&self, principal: &Principal, id: &VolumeId) -> Result<(), Fault> {
        self.inner.accepting()?;
        let volume = self.volume_fetch(principal, id).await?.volume;
        let _alone = self.inner.volume_pins.alone(&volume)?;
        self.check_unused(&volume).await?;
        // The row first: what a crash leaves of the content, the next start removes.
        let removed = self.inner.store.volume_remove(id).await;
        removed.map_err(fault::store)?;
        let (volumes, id) = (volumes(&self.inner), id.clone());
        blocking(move || volumes.delete(id.as_str())).await
    }

    /// The content of a volume, for who has its token. `Unauthenticated` also if there is no such
    /// volume.
    pub async fn volume_content(
        &self,
        id: &VolumeId,
        presented: &str,
    ) -> Result<VolumeContent, Fault> {
        let expected = token::derive_volume(&self.inner.secret, id);
        if !token::same(presented, &expected) {
            return Err(Fault::new(
                Code::Unauthenticated,
                "the volume's token is missing or not valid",
            ));
        }
        self.inner.accepting()?;
        let found = self.inner.store.volume_fetch(id).await;
        let volume = found.map_err(fault::store)?.ok_or_else(|| {
            let text = format!("volume '{id}' not found");
            Fault::new(Code::NotFound, text)
        })?;
        let volumes = volumes(&self.inner);
        blocking(move || {
            let tree = volumes.tree(volume.id.as_str(), volume.size_bytes)?;
            let tree = Arc::new(tree);
            Ok(VolumeContent { volumes, tree })
        })
        .await
    }

    async fn volume_view(&self, volume: Volume) -> Result<VolumeView, Fault> {
        let token = token::derive_volume(&self.inner.secret, &volume.id);
        let volumes = volumes(&self.inner);
        let view = move || {
            let used = volumes.used(volume.id.as_str());
            Ok(VolumeView {
                volume,
                used,
                token,
            })
        };
        blocking(view).await
    }
}

/// The limit of a new volume: what is asked for, else the server's default. `None`: it has none,
/// for this machine cannot limit anything.
fn limit(inner: &Inner, wanted: Option<u64>) -> Result<Option<u64>, Fault> {
    let max = inner.options.volume_bytes_max;
    if wanted.is_some_and(|wanted| !(VOLUME_BYTES_MIN..=max).contains(&wanted)) {
        let text = format!("a volume holds {VOLUME_BYTES_MIN} to {max} bytes");
        return Err(Fault::invalid("size_bytes", text));
    }
    let missing = match inner.options.volume_places {
        Some(_) => inner
            .driver
            .capabilities()
            .why_missing(Capability::DiskLimit),
        None => Some("this server has nowhere to keep them"),
    };
    match (missing, wanted) {
        (None, wanted) => Ok(Some(wanted.unwrap_or(inner.options.volume_bytes))),
        (Some(_), None) => Ok(None),
        (Some(why), Some(_)) => {
            let text = format!("volumes have no limits on this server: {why}");
            Err(Fault::new(Code::Unsupported, text))
        }
    }
}

/// Removes what a server before left of volumes that are gone.
pub(crate) async fn tidy(inner: &Inner) -> Result<(), Fault> {
    let known = inner.store.volume_list(None).await.map_err(fault::store)?;
    let known = known.iter().map(|volume| volume.id.to_string()).collect();
    let volumes = volumes(inner);
    blocking(move || volumes.tidy(&known)).await
}

fn volumes(inner: &Inner) -> Volumes {
    let data_dir = &inner.options.data_dir;
    let volumes = Volumes::new(data_dir.join("volumes"));
    match &inner.options.volume_places {
        Some(places) => volumes.with_places(data_dir.join("pool/volumes"), Arc::clone(places)),
        None => volumes,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> woodfrog_volumes::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(Fault::internal)?.map_err(refused)
}

fn refused(error: VolumeError) -> Fault {
    let text = error.to_string();
    match error {
        VolumeError::Invalid(_) | VolumeError::NotADirectory(_) | VolumeError::IsADirectory(_) => {
            Fault::invalid("path", text)
        }
        VolumeError::NotFound(_) => Fault::new(Code::FileNotFound, text),
        VolumeError::Exists(_) => Fault::new(Code::AlreadyExists, text),
        VolumeError::NoSpace => Fault::new(Code::NoSpace, text),
        VolumeError::Io { .. } => Fault::internal(error),
    }
}
