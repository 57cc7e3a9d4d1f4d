//! The archive of snapshots: the engine's port over `blob`.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use woodfrog_blob::{BlobError, Limits, ManifestId, ObjectBlobs};
use woodfrog_engine::archive::{Archive, ArchiveError, Kept, Listed};
use woodfrog_types::Timestamp;
use woodfrog_types::snapshot::ArchiveId;

/// The archive that `archive.url` names.
pub(crate) fn open(url: Option<&str>) -> Result<Option<Arc<dyn Archive>>, BlobError> {
    let Some(url) = url else {
        return Ok(None);
    };
    let blobs = ObjectBlobs::open(url, std::env::vars())?;
    let archive = woodfrog_blob::Archive::new(Arc::new(blobs), Limits::default());
    Ok(Some(Arc::new(BlobArchive(archive))))
}

struct BlobArchive(woodfrog_blob::Archive);

fn parse(id: &ArchiveId) -> Result<ManifestId, ArchiveError> {
    let digest = id.0.parse();
    digest
        .map(ManifestId)
        .map_err(|_| ArchiveError::Unusable(format!("`{id}` is no archive's name")))
}

fn failed(error: BlobError) -> ArchiveError {
    match error {
        error
        @ (BlobError::NotFound(_) | BlobError::Corrupt { .. } | BlobError::Foreign { .. }) => {
            ArchiveError::Unusable(error.to_string())
        }
        error @ (BlobError::Source { .. } | BlobError::Target { .. }) => {
            ArchiveError::Folder(error.to_string())
        }
        error @ (BlobError::Backend { .. } | BlobError::TooSlow(_) | BlobError::Setting(_)) => {
            ArchiveError::Unavailable(error.to_string())
        }
    }
}

#[async_trait]
impl Archive for BlobArchive {
    async fn store(&self, folder: &Path, label: &str) -> Result<Kept, ArchiveError> {
        let stored = self.0.store(folder, label).await.map_err(failed)?;
        Ok(Kept {
            id: ArchiveId(stored.id.to_string()),
            bytes: stored.bytes,
            written_bytes: stored.bytes_written,
        })
    }

    async fn verify(&self, id: &ArchiveId) -> Result<u64, ArchiveError> {
        let verified = self.0.verify(parse(id)?).await.map_err(failed)?;
        Ok(verified.bytes)
    }

    async fn fetch(&self, id: &ArchiveId, folder: &Path) -> Result<u64, ArchiveError> {
        let fetched = self.0.fetch(parse(id)?, folder).await.map_err(failed)?;
        Ok(fetched.bytes)
    }

    async fn delete(&self, id: &ArchiveId) -> Result<(), ArchiveError> {
        self.0.delete(parse(id)?).await.map_err(failed)
    }

    async fn list(&self) -> Result<Vec<Listed>, ArchiveError> {
        let listed = self.0.list().await.map_err(failed)?;
        let one = |kept: woodfrog_blob::Listed| {
            let since = kept.created_at.duration_since(SystemTime::UNIX_EPOCH);
            let millis = since.unwrap_or_default().as_millis();
            Listed {
                id: ArchiveId(kept.id.to_string()),
                label: kept.label,
                created_at: Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)),
            }
        };
        Ok(listed.into_iter().map(one).collect())
    }

    async fn collect(&self) -> Result<u64, ArchiveError> {
        let swept = self.0.gc(SystemTime::now()).await.map_err(failed)?;
        Ok(swept.bytes)
    }
}
