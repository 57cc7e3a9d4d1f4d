//! Root filesystems and images from elsewhere.

pub(crate) mod layout;
pub(crate) mod oci;
pub(crate) mod registry;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::blocking;
use crate::config::{Image, ImageConfig};
use crate::digest::Digest;
use crate::progress::Progress;
use crate::store::{LayerStore, StoreError};
use crate::unpack::{Limits, Whiteouts};

/// Layers of one image at most: overlayfs stacks have a limit of 500.
pub(crate) const MAX_LAYERS: usize = 300;

/// Why an import failed.
#[derive(Debug, Error)]
pub enum ImportError {
    #[error("cannot read `{what}`")]
    Read {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("not an OCI layout or `docker save` archive: {0}")]
    NotAnImage(&'static str),
    #[error("image is malformed: {0}")]
    Malformed(String),
    #[error("image has nothing for platform {wanted} (it has: {found})")]
    Platform { wanted: String, found: String },
    #[error("`{what}` does not match its digest: expected {expected}, got {actual}")]
    DigestMismatch {
        what: String,
        expected: String,
        actual: String,
    },
    #[error("image layer of type `{0}` is not supported")]
    LayerType(String),
    #[error("image has {0} layers, more than 300")]
    TooManyLayers(usize),
    #[error("image reference `{reference}` is not valid: {reason}")]
    Reference { reference: String, reason: String },
    #[error("registry refused or failed: {context}")]
    Registry {
        context: String,
        #[source]
        source: oci_client::errors::OciDistributionError,
    },
    #[error("layer store")]
    Store(#[from] StoreError),
    #[error("import")]
    Io(#[from] io::Error),
}

/// What an image must run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    /// As Go and OCI call it: `amd64`, `arm64`.
    pub architecture: String,
}

impl Default for Platform {
    fn default() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// Imports a root filesystem archive (plain, gzip or zstd) as a template of one layer. It carries
/// no configuration: root, and the usual PATH.
pub async fn import_rootfs_tar(
    store: &LayerStore,
    reader: impl Read + Send + 'static,
    limits: Limits,
    progress: Progress,
) -> Result<Image, ImportError> {
    let layer = store
        .unpack_tar(reader, limits, Whiteouts::Literal, progress)
        .await?;
    let mut config = ImageConfig::default();
    config.set_env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    Ok(Image::new(vec![layer.digest], config))
}

/// Imports an OCI image layout (or a `docker save` archive) from a directory or a tar file.
pub async fn import_oci_layout(
    store: &LayerStore,
    path: &Path,
    platform: Platform,
    limits: Limits,
    progress: Progress,
) -> Result<Image, ImportError> {
    let (store, path): (_, PathBuf) = (store.clone(), path.to_owned());
    blocking::run(move |cancelled| {
        layout::import(&store, &path, &platform, limits, &progress, &cancelled)
    })
    .await
}

/// Compares the layer that was unpacked with the digest that the image's configuration promised.
pub(crate) fn check_diff_id(
    what: &str,
    promised: &Digest,
    actual: &Digest,
) -> Result<(), ImportError> {
    if promised == actual {
        return Ok(());
    }
    let (expected, actual) = (promised.to_oci(), actual.to_oci());
    Err(ImportError::DigestMismatch {
        what: what.to_owned(),
        expected,
        actual,
    })
}
