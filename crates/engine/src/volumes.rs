//! Volumes: files that outlive sandboxes.
//!
//! Whoever has a volume's token may read and write its content; the token is derived from the
//! server's secret and the volume's id, as those of sandboxes are.

use std::sync::Arc;

use woodfrog_core::{names, token};
use woodfrog_types::key::Principal;
use woodfrog_types::secret::Volume;
use woodfrog_types::{Code, Fault, Timestamp, VolumeId};
use woodfrog_volumes::{Tree, VolumeError, Volumes};

use crate::engine::Engine;
use crate::fault;
use crate::inner::Inner;

/// Volumes of one workspace.
const VOLUMES_MAX: usize = 1000;

/// A volume and what opens its content.
#[derive(Debug, Clone)]
pub struct VolumeView {
    pub volume: Volume,
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
    pub async fn volume_create(
        &self,
        principal: &Principal,
        name: &str,
    ) -> Result<VolumeView, Fault> {
        self.inner.accepting()?;
        names::volume_name(name)?;
        if self.volume_list(principal).await?.len() >= VOLUMES_MAX {
            let text = format!("a workspace has at most {VOLUMES_MAX} volumes");
            return Err(Fault::new(Code::QuotaExceeded, text));
        }
        let volume = Volume {
            id: VolumeId::generate(),
            workspace: principal.workspace.clone(),
            name: name.to_owned(),
            created_at: Timestamp::now(),
        };
        let stored = self.inner.store.volume_insert(&volume).await;
        stored.map_err(fault::store)?;
        Ok(self.volume_view(volume))
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
        found
            .map_err(fault::store)?
            .filter(|volume| volume.workspace == principal.workspace)
            .map(|volume| self.volume_view(volume))
            .ok_or_else(|| Fault::new(Code::NotFound, format!("volume '{id}' not found")))
    }

    /// Removes a volume with its content.
    pub async fn volume_delete(&self, principal: &Principal, id: &VolumeId) -> Result<(), Fault> {
        self.inner.accepting()?;
        self.volume_fetch(principal, id).await?;
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
        if found.map_err(fault::store)?.is_none() {
            let text = format!("volume '{id}' not found");
            return Err(Fault::new(Code::NotFound, text));
        }
        let (volumes, id) = (volumes(&self.inner), id.clone());
        blocking(move || {
            let tree = Arc::new(volumes.tree(id.as_str())?);
            Ok(VolumeContent { volumes, tree })
        })
        .await
    }

    fn volume_view(&self, volume: Volume) -> VolumeView {
        let token = token::derive_volume(&self.inner.secret, &volume.id);
        VolumeView { volume, token }
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
    Volumes::new(inner.options.data_dir.join("volumes"))
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
