//! What callers use.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use tokio::sync::RwLock;

use crate::fetch::{self, Records};
use crate::gc::{self, Swept};
use crate::root::{ROOT_MAX, Root};
use crate::{BlobStore, Key, Kind, ManifestId, Result, upload};

/// How much at once, and how patient.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Chunks in transfer at once; each takes up to 2 MiB of memory.
    pub transfers: usize,
    /// How long a chunk without a reference stays, from when that was noticed. An upload must be
    /// done in half of it.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transfers: 8,
            grace: Duration::from_secs(12 * 3600),
        }
    }
}

/// Archives in one store. Cheap to clone; clones share what keeps an upload and a garbage
/// collection apart, so make one per store.
#[derive(Clone)]
pub struct Archive {
    pub(crate) store: Arc<dyn BlobStore>,
    pub(crate) limits: Limits,
    pub(crate) sweeping: Arc<RwLock<()>>,
}

/// What a store did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub id: ManifestId,
    /// Files, folders and so on.
    pub entries: u64,
    /// Bytes of content, holes left out.
    pub bytes: u64,
    /// Chunks it consists of, those of the manifest included.
    pub chunks: u64,
    /// Chunks that were not there yet.
    pub chunks_new: u64,
    /// Bytes that were written for it.
    pub bytes_written: u64,
}

/// An archive in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: ManifestId,
    /// The name that the caller gave it.
    pub label: String,
    pub created_at: SystemTime,
    pub entries: u64,
    pub bytes: u64,
}

/// What a verification or a fetch read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    pub entries: u64,
    pub chunks: u64,
    /// Bytes of content.
    pub bytes: u64,
}

impl Archive {
    /// Archives in `store`.
    pub fn new(store: Arc<dyn BlobStore>, limits: Limits) -> Self {
        let transfers = limits.transfers.max(1);
        Self {
            store,
            limits: Limits {
                transfers,
                ..limits
            },
            sweeping: Arc::default(),
        }
    }

    /// Stores a folder with all that is in it. It must not change meanwhile. When this returns,
    /// the archive is whole and durable; when it fails, there is none.
    ///
    /// Kept: files with their holes, folders, symbolic and hard links, fifos, sockets, devices;
    /// modes, owners as they are on disk, times of modification, and attributes `user.*`,
    /// `trusted.*`, capabilities and access lists. The label is for the caller to find it again.
    ///
    /// # Errors
    /// The folder cannot be read or changes, holds another file system, or the store fails.
    pub async fn store(&self, folder: &Path, label: &str) -> Result<Stored> {
        upload::store(self, folder, label).await
    }

    /// Makes the folder again: `folder` must be empty or not exist. When this returns, all is
    /// durable. On an error the folder is incomplete and the caller removes it.
    ///
    /// # Errors
    /// There is no such archive, it is damaged, or the folder cannot be written.
    pub async fn fetch(&self, id: ManifestId, folder: &Path) -> Result<Verified> {
        fetch::fetch(self, id, folder).await
    }

    /// Reads every chunk of an archive and checks it.
    ///
    /// # Errors
    /// What is missing or damaged.
    pub async fn verify(&self, id: ManifestId) -> Result<Verified> {
        fetch::verify(self, id).await
    }

    /// All archives, in no particular order.
    ///
    /// # Errors
    /// The store fails, or a root is damaged.
    pub async fn list(&self) -> Result<Vec<Listed>> {
        let mut all = Vec::new();
        let mut found = self.store.list(Kind::Manifest);
        while let Some(found) = found.try_next().await? {
            let id = ManifestId(found.key.digest());
            let root = match self.root(id).await {
                Ok(root) => root,
                // Deleted since.
                Err(crate::BlobError::NotFound(_)) => continue,
                Err(error) => return Err(error),
            };
            all.push(Listed {
                id,
                label: root.label,
                created_at: SystemTime::UNIX_EPOCH + Duration::from_secs(root.created_at),
                entries: root.entries,
                bytes: root.bytes,
            });
        }
        Ok(all)
    }

    /// Forgets an archive; deleting one that is not there is `Ok`. Its chunks stay until
    /// [`Archive::gc`] finds that no other one has them.
    ///
    /// # Errors
    /// The store fails.
    pub async fn delete(&self, id: ManifestId) -> Result<()> {
        self.store.delete(Key::Manifest(id)).await
    }

    /// Removes what no archive refers to. What is found without a reference is noted and goes in
    /// a later run, once `grace` has passed: an upload that is under way, on whatever machine, may
    /// be about to refer to it. `now` is the present time. Memory grows with the number of
    /// chunks: 32 bytes each.
    ///
    /// # Errors
    /// The store fails, or an archive cannot be read: then nothing is removed.
    pub async fn gc(&self, now: SystemTime) -> Result<Swept> {
        gc::gc(self, now).await
    }

    pub(crate) async fn root(&self, id: ManifestId) -> Result<Root> {
        let bytes = self.store.get(Key::Manifest(id), ROOT_MAX).await?;
        Root::decode(id, &bytes)
    }

    pub(crate) async fn records(&self, id: ManifestId) -> Result<(Root, Records)> {
        let root = self.root(id).await?;
        let records = Records::new(Arc::clone(&self.store), id, &root.body);
        Ok((root, records))
    }
}
