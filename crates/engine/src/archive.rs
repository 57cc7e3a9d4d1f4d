//! The port to the archive: where snapshots are kept that left the machine.

use std::path::Path;

use async_trait::async_trait;
use woodfrog_types::Timestamp;
use woodfrog_types::snapshot::ArchiveId;

/// Keeps folders as a whole, under names of its own. Shared by servers: what a label names is the
/// caller's business.
#[async_trait]
pub trait Archive: Send + Sync + 'static {
    /// Keeps a folder, which must not change meanwhile. When this returns `Ok` it is kept whole
    /// and durably; on an error, or if the future is dropped, there is nothing under a name.
    async fn store(&self, folder: &Path, label: &str) -> Result<Kept, ArchiveError>;

    /// Reads all of it back and compares it with what was stored; the bytes of its content.
    async fn verify(&self, id: &ArchiveId) -> Result<u64, ArchiveError>;

    /// Makes the folder again in `folder`, which is empty; the bytes of its content. On an error
    /// the folder is incomplete.
    async fn fetch(&self, id: &ArchiveId, folder: &Path) -> Result<u64, ArchiveError>;

    /// Forgets it; what is not there is `Ok`.
    async fn delete(&self, id: &ArchiveId) -> Result<(), ArchiveError>;

    /// All that is kept, of whatever server.
    async fn list(&self) -> Result<Vec<Listed>, ArchiveError>;

    /// Removes content that nothing refers to any more, once that is sure; the bytes of it.
    async fn collect(&self) -> Result<u64, ArchiveError>;
}

/// A folder that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub id: ArchiveId,
    /// Bytes of its content.
    pub bytes: u64,
    /// Bytes that were not there yet and had to be written.
    pub written_bytes: u64,
}

/// Something that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: ArchiveId,
    pub label: String,
    pub created_at: Timestamp,
}

/// A failed call of the archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is not there, or not what was stored.
    #[error("{0}")]
    Unusable(String),
    /// It cannot be reached now, or refuses.
    #[error("the archive cannot be used: {0}")]
    Unavailable(String),
    /// The folder on this machine cannot be read or written.
    #[error("{0}")]
    Folder(String),
}
