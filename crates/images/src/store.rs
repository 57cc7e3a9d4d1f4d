//! The layer store: immutable directories, made under a temporary name and renamed into place.

mod content;
mod copy;
mod info;
mod uses;

use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::blocking::{self, Cancelled};
use crate::digest::Digest;
use crate::progress::Progress;
use crate::unpack::{Limits, Owners, UnpackError, UnpackStats, Whiteouts, unpack_into};
use crate::vfs;

use info::LayerInfo;
pub use info::LayerOrigin;
use uses::Uses;

const TMP_PREFIX: &str = ".tmp-";
const INFO_DIR: &str = ".info";

/// A layer in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub digest: Digest,
    /// Bytes of file contents, hard links counted once.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Device nodes that the archive held and the layer does not.
    pub skipped_devices: u64,
}

/// Why the store did not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("layer store at {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no layer {0} in the store")]
    Unknown(Digest),
    #[error("cannot unpack a layer")]
    Unpack(#[from] UnpackError),
    #[error("archive has digest {actual}, not the one that was promised")]
    WrongDigest { actual: Digest },
    #[error("layer content is not acceptable: {0}")]
    Content(String),
    #[error("layer store")]
    Io(#[from] io::Error),
}

/// Layers under one directory, `<dir>/<digest>/`, readable by root alone. One process at a time
/// may have a directory open as a store (opening sweeps unfinished work). Clones are cheap.
#[derive(Clone, Debug)]
pub struct LayerStore {
    dir: Arc<PathBuf>,
    uses: Arc<Uses>,
}

/// An unfinished directory in the store; removed when dropped.
#[derive(Debug)]
pub(crate) struct Workspace {
    dir: tempfile::TempDir,
}

impl Workspace {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl LayerStore {
    /// Opens the store at `dir`, made if missing, and removes what a crash left unfinished.
    pub async fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let dir = dir.into();
        blocking::run(move |_| {
            open_dir(&dir).map_err(|source| StoreError::Open {
                path: dir.clone(),
                source,
            })?;
            Ok(Self {
                dir: Arc::new(dir),
                uses: Arc::default(),
            })
        })
        .await
    }

    /// Unpacks a tar archive (plain, gzip or zstd) as an OCI layer. The digest is that of the
    /// uncompressed archive, as in OCI's `diff_ids`. Nothing stays in the store on an error.
    pub async fn unpack_tar(
        &self,
        reader: impl Read + Send + 'static,
        limits: Limits,
        whiteouts: Whiteouts,
        progress: Progress,
    ) -> Result<Layer, StoreError> {
        let store = self.clone();
        blocking::run(move |cancelled| {
            store.unpack_blocking(reader, limits, whiteouts, &progress, &cancelled)
        })
        .await
    }

    /// Moves a prepared directory, for example the overlay upper of a finished build, into the
    /// store; it is gone afterwards. Across filesystems (or btrfs subvolumes) it is copied with
    /// shared extents where possible and then removed. Named by `key`, or by its content.
    /// Refused: device nodes other than whiteouts, sockets, ids above 65535.
    pub async fn commit_dir(&self, path: &Path, key: Option<Digest>) -> Result<Layer, StoreError> {
        let (store, path) = (self.clone(), path.to_owned());
        blocking::run(move |_| store.commit_blocking(&path, key)).await
    }

    /// Whether the layer is there, completely. That is a use of it.
    pub fn exists(&self, digest: &Digest) -> bool {
        let path = self.dir.join(digest.as_str());
        self.uses.note(digest, || path.is_dir())
    }

    /// The layer's directory. Nobody may write there.
    pub fn path(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        let path = self.dir.join(digest.as_str());
        if self.exists(digest) {
            Ok(path)
        } else {
            Err(StoreError::Unknown(digest.clone()))
        }
    }

    /// The directories of an image's layers, in the order given.
    pub fn paths(&self, layers: &[Digest]) -> Result<Vec<PathBuf>, StoreError> {
        layers.iter().map(|digest| self.path(digest)).collect()
    }

    /// The present moment in the order of uses: layers that are found, given out or made from now
    /// on are used at this moment or later.
    pub fn moment(&self) -> u64 {
        self.uses.moment()
    }

    /// Begins a new moment: what was used until now was used before it.
    pub fn next_moment(&self) -> u64 {
        self.uses.next_moment()
    }

    /// Removes a layer unless it was used at the moment `since` or later; says whether. The caller
    /// answers for nothing using it since before. An unknown one is no error.
    pub async fn remove_unused(&self, digest: &Digest, since: u64) -> Result<bool, StoreError> {
        let (store, digest) = (self.clone(), digest.clone());
        blocking::run(move |_| {
            // Out of sight at once; the rest may take its time or be swept later.
            let doomed = store.workspace()?;
            let layer = store.dir.join(digest.as_str());
            // What is known of it goes under the same lock: it may be made anew right after.
            let away = || {
                std::fs::rename(&layer, doomed.path().join("layer"))?;
                info::remove(&store.info_dir(), &digest)
            };
            match store.uses.unless_used(&digest, since, away) {
                None => return Ok(false),
                Some(Ok(())) => {}
                Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Some(Err(error)) => return Err(error.into()),
            }
            doomed.dir.close()?;
            Ok(true)
        })
        .await
    }

    /// All layers with their sizes, in no particular order.
    pub async fn list(&self) -> Result<Vec<Layer>, StoreError> {
        let store = self.clone();
        blocking::run(move |_| {
            let mut layers = Vec::new();
            for entry in std::fs::read_dir(store.dir.as_path())? {
                let name = entry?.file_name();
                if let Some(digest) = name.to_str().and_then(|name| name.parse().ok()) {
                    layers.push(store.layer(&digest)?);
                }
            }
            Ok(layers)
        })
        .await
    }

    /// When a layer came to be, as far as is known.
    pub fn made_at(&self, digest: &Digest) -> Option<std::time::SystemTime> {
        let info = std::fs::metadata(self.info_dir().join(digest.as_str()));
        info.and_then(|info| info.modified()).ok()
    }

    /// What is known of one layer.
    pub(crate) fn layer(&self, digest: &Digest) -> Result<Layer, StoreError> {
        let info = match info::load(&self.info_dir(), digest)? {
            Some(info) => info,
            None => {
                let (_, content) = content::scan(&self.dir.join(digest.as_str()))?;
                LayerInfo {
                    origin: LayerOrigin::Directory,
                    stats: content,
                }
            }
        };
        Ok(info.layer(digest))
    }

    /// Where a layer came from; `None` when it is not there or not known.
    pub fn origin(&self, digest: &Digest) -> Option<LayerOrigin> {
        let known = info::load(&self.info_dir(), digest).ok().flatten();
        known
            .filter(|_| self.exists(digest))
            .map(|info| info.origin)
    }

    pub(crate) fn unpack_blocking(
        &self,
        reader: impl Read,
        limits: Limits,
        whiteouts: Whiteouts,
        progress: &Progress,
        cancelled: &Cancelled,
    ) -> Result<Layer, StoreError> {
        self.unpack_expected(reader, limits, whiteouts, None, progress, cancelled)
    }

    /// As `unpack_blocking`; an archive with another digest than `expected` is not stored.
    pub(crate) fn unpack_expected(
        &self,
        reader: impl Read,
        limits: Limits,
        whiteouts: Whiteouts,
        expected: Option<&Digest>,
        progress: &Progress,
        cancelled: &Cancelled,
    ) -> Result<Layer, StoreError> {
        let tmp = self.workspace()?;
        let root = tmp.path().join("layer");
        make_root(&root)?;
        let (hasher, stats) = unpack_into(
            &root,
            reader,
            limits,
            (whiteouts, Owners::Archive),
            progress,
            cancelled,
        )?;
        let digest = Digest::from_hasher(hasher);
        if expected.is_some_and(|expected| *expected != digest) {
            return Err(StoreError::WrongDigest { actual: digest });
        }
        self.publish(
            &root,
            &digest,
            LayerInfo {
                origin: LayerOrigin::Archive,
                stats,
            },
        )
    }

    pub(crate) fn commit_blocking(
        &self,
        path: &Path,
        key: Option<Digest>,
    ) -> Result<Layer, StoreError> {
        let (content, stats) = content::scan(path)?;
        let digest = key.unwrap_or(content);
        let info = LayerInfo {
            origin: LayerOrigin::Directory,
            stats,
        };
        if self.exists(&digest) {
            std::fs::remove_dir_all(path)?;
            return self.layer(&digest);
        }
        let tmp = self.workspace()?;
        let root = tmp.path().join("layer");
        match std::fs::rename(path, &root) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                copy::copy_tree(path, &root)?;
                let layer = self.publish(&root, &digest, info)?;
                std::fs::remove_dir_all(path)?;
                Ok(layer)
            }
            Err(error) => Err(error.into()),
            Ok(()) => self.publish(&root, &digest, info),
        }
    }

    /// A fresh directory on the store's filesystem, swept at the next opening if we die.
    pub(crate) fn workspace(&self) -> io::Result<Workspace> {
        let dir = tempfile::Builder::new()
            .prefix(TMP_PREFIX)
            .tempdir_in(self.dir.as_path())?;
        Ok(Workspace { dir })
    }

    fn publish(&self, root: &Path, digest: &Digest, info: LayerInfo) -> Result<Layer, StoreError> {
        let dir = vfs::open_dir(&self.dir)?;
        if self.exists(digest) {
            return self.layer(digest);
        }
        info::save(&self.info_dir(), digest, &info)?;
        // Everything must be on disk before the name that promises it is.
        vfs::sync_filesystem(&dir)?;
        let mut renamed = Ok(());
        self.uses.note(digest, || {
            renamed = std::fs::rename(root, self.dir.join(digest.as_str()));
            renamed.is_ok()
        });
        match renamed {
            Ok(()) => {}
            // Somebody else was faster with the same layer.
            Err(_) if self.exists(digest) => return self.layer(digest),
            Err(error) => return Err(error.into()),
        }
        rustix::fs::fsync(&dir).map_err(io::Error::from)?;
        Ok(info.layer(digest))
    }

    fn info_dir(&self) -> PathBuf {
        self.dir.join(INFO_DIR)
    }
}

impl LayerInfo {
    fn layer(&self, digest: &Digest) -> Layer {
        let UnpackStats {
            bytes,
            entries,
            skipped_devices,
            ..
        } = self.stats;
        Layer {
            digest: digest.clone(),
            bytes,
            entries,
            skipped_devices,
        }
    }
}

/// A layer's root directory, with the mode that `/` has.
pub(crate) fn make_root(path: &Path) -> io::Result<()> {
    std::fs::create_dir(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

fn open_dir(dir: &Path) -> io::Result<()> {
    // Closed to everybody else: layers hold setuid programs owned by the real root.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir.join(INFO_DIR))?;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TMP_PREFIX) {
            tracing::info!(path = %entry.path().display(), "removing an unfinished layer");
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}
