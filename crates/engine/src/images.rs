//! The port of image sources: where layers lie and how new ones come into being.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use woodfrog_types::Timestamp;
use woodfrog_types::template::BuiltImage;

/// A failed call of an image source.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The source or the instruction is wrong; the sentence is for the one who gave it.
    #[error("{0}")]
    Rejected(String),
    /// The machine or the network failed.
    #[error("{what} failed")]
    Failed {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Takes lines about progress, for people. Never blocks.
pub type ProgressSink = Arc<dyn Fn(String) + Send + Sync>;

/// Where an imported image comes from.
#[derive(Debug, Clone)]
pub enum ImportSource {
    /// A tar archive of a root file system on the server's machine.
    RootfsTar(PathBuf),
    /// A directory (or tar of one) in the OCI image layout.
    OciLayout(PathBuf),
    /// An image in a registry: `debian:12`.
    Registry {
        reference: String,
        username: Option<String>,
        password: Option<String>,
    },
}

/// Files that a COPY step brings.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    /// The uploaded archive.
    pub archive: PathBuf,
    /// What the step is applied to, bottom first.
    pub layers: Vec<String>,
    pub src: String,
    pub dst: String,
    /// Owner of what is copied; `user` if unset.
    pub owner: Option<String>,
    pub mode: Option<u32>,
    /// The build's present user.
    pub user: String,
    /// What relative destinations count from.
    pub workdir: Option<String>,
}

/// A layer on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerOnDisk {
    pub name: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// When it was made here; the epoch if nobody knows.
    pub made_at: Timestamp,
}

/// Makes and finds layers. Layers are named by digest and never change.
#[async_trait]
pub trait Images: Send + Sync + 'static {
    /// The directories of these layers, in the order given. Fails if one is missing.
    fn paths(&self, layers: &[String]) -> Result<Vec<PathBuf>, ImageError>;

    /// The server's own base image, made on the machine if it is not there.
    async fn base(&self, progress: ProgressSink) -> Result<BuiltImage, ImageError>;

    /// Brings an image from outside, with what E2B clients expect in it added.
    async fn import(
        &self,
        source: ImportSource,
        progress: ProgressSink,
    ) -> Result<BuiltImage, ImageError>;

    /// Moves what a stopped build sandbox wrote into the store; returns the layer's digest.
    async fn commit(&self, upper: &Path) -> Result<String, ImageError>;

    /// Takes over a folder as the layer of this digest, which came from another server; the folder
    /// is gone afterwards.
    async fn adopt(&self, folder: &Path, layer: &str) -> Result<(), ImageError> {
        let text = format!("{layer} in {} cannot be taken over", folder.display());
        Err(ImageError::Rejected(text))
    }

    /// Makes the layer of a COPY step.
    async fn copy(&self, request: CopyRequest) -> Result<String, ImageError>;

    /// All layers on this machine. That is no use of them.
    async fn list(&self) -> Result<Vec<LayerOnDisk>, ImageError> {
        Ok(Vec::new())
    }

    /// The present moment in the order of uses: layers that are found, given out or made from now
    /// on are used at this moment or later.
    fn moment(&self) -> u64 {
        0
    }

    /// Begins a new moment: what was used until now was used before it.
    fn next_moment(&self) -> u64 {
        0
    }

    /// Removes a layer, at once as others see it, unless it was used at the moment `since` or later;
    /// says whether it did. One that is not there is not removed.
    async fn remove_unused(&self, _layer: &str, _since: u64) -> Result<bool, ImageError> {
        Ok(false)
    }
}
