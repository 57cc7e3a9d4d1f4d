//! Snapshots and the archive: bringing them there and back, and what is left there that nothing
//! refers to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use woodfrog_sandbox::{DriverError, SnapshotHealth};
use woodfrog_types::snapshot::{ArchiveId, Snapshot, SnapshotPlace, SnapshotState};
use woodfrog_types::{Code, Fault, SnapshotId, Timestamp};

use crate::archive::{Archive, ArchiveError, Kept};
use crate::fault;
use crate::inner::Inner;

/// Snapshots on their way to the archive at once; more wait.
const UPLOADS_MAX: usize = 2;
/// Snapshots on their way back at once; more wait.
const DOWNLOADS_MAX: usize = 4;
/// The longest wait for the first collection after a start.
const FIRST_COLLECTION: Duration = Duration::from_secs(600);
/// Something without a record is given up at this age: the upload of another server that has not
/// recorded it yet is younger.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);

/// The engine's way to the archive.
pub(crate) struct Attic {
    archive: Option<Arc<dyn Archive>>,
    /// Told apart in the archive from what other servers keep there.
    scope: String,
    /// Others that share the store find here what this server brings.
    shared: AtomicBool,
    uploads: Semaphore,
    downloads: Semaphore,
    /// One comes back once, however many want it.
    coming: Mutex<HashMap<SnapshotId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Attic {
    pub(crate) fn new(archive: Option<Arc<dyn Archive>>, scope: String) -> Self {
        Self {
            archive,
            scope,
            shared: AtomicBool::new(false),
            uploads: Semaphore::new(UPLOADS_MAX),
            downloads: Semaphore::new(DOWNLOADS_MAX),
            coming: Mutex::default(),
        }
    }

    pub(crate) fn is_there(&self) -> bool {
        self.archive.is_some()
    }

    pub(crate) fn archive(&self) -> Result<&Arc<dyn Archive>, Fault> {
        self.archive.as_ref().ok_or_else(|| {
            Fault::new(
                Code::Unsupported,
                "archiving is not supported: this server has no archive",
            )
        })
    }

    fn label(&self, snapshot: &SnapshotId) -> String {
        format!("{}/{snapshot}", self.scope)
    }

    /// No snapshot's: collections leave it alone.
    pub(crate) fn layer_label(&self, layer: &str) -> String {
        format!("{}/layer/{layer}", self.scope)
    }

    /// Whether the servers that share the store have one archive.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_there() && self.shared.load(Ordering::Relaxed)
    }

    pub(crate) fn set_shared(&self) {
        self.shared.store(true, Ordering::Relaxed);
    }

    fn coming(&self, id: &SnapshotId) -> Arc<tokio::sync::Mutex<()>> {
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        coming.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(coming.entry(id.clone()).or_default())
    }
}

/// A snapshot that is whole in the archive.
pub(crate) struct Uploaded {
    pub(crate) archive: ArchiveId,
    pub(crate) bytes: u64,
    pub(crate) written_bytes: u64,
}

/// Brings a snapshot to the archive and reads it back there. It stays on this machine; nothing is
/// recorded.
pub(crate) async fn upload(inner: &Inner, id: &SnapshotId) -> Result<Uploaded, Fault> {
    let archive = inner.attic.archive()?;
    let turn = inner.attic.uploads.acquire().await;
    let _turn = turn.map_err(|_| fault::stopping())?;
    let (snapshot, _pin) = super::shelf::take(inner, id).await?;
    // It was brought back from there, and has not changed since: snapshots never do.
    if let Some(kept) = snapshot.place.archive()
        && let Ok(bytes) = archive.verify(kept).await
    {
        return Ok(Uploaded {
            archive: kept.clone(),
            bytes,
            written_bytes: 0,
        });
    }
    let folder = inner.driver.snapshot_export(id).await;
    let folder = folder.map_err(fault::driver)?;
    let stored = archive.store(&folder, &inner.attic.label(id)).await;
    let Kept {
        id: kept,
        bytes,
        written_bytes,
    } = stored.map_err(archive_fault)?;
    if let Err(error) = archive.verify(&kept).await {
        forget(inner, &kept).await;
        return Err(archive_fault(error));
    }
    Ok(Uploaded {
        archive: kept,
        bytes,
        written_bytes,
    })
}

/// Removes what this machine has of a snapshot that is in the archive, once nothing is made from
/// it any more.
pub(crate) async fn clear_local(inner: &Inner, id: &SnapshotId) {
    let _nobody = inner.pins.alone(id).await;
    let place = match inner.store.snapshot_fetch(id).await {
        Ok(known) => known.map(|known| known.place),
        Err(error) => {
            tracing::warn!(snapshot = %id, %error, "a snapshot cannot be looked at; the next start tidies up");
            return;
        }
    };
    // Somebody may have brought it back in the meantime.
    if !matches!(place, Some(SnapshotPlace::Archive { .. })) {
        return;
    }
    if let Err(error) = inner.driver.snapshot_remove(id).await {
        tracing::warn!(snapshot = %id, %error, "what was archived could not be removed here; the next start tries again");
    }
}

/// Sees to it that a snapshot is on this machine; the caller keeps it from being removed. The
/// record as it is then, and the bytes that came.
pub(crate) async fn bring_back(
    inner: &Inner,
    snapshot: Snapshot,
) -> Result<(Snapshot, u64), Fault> {
    let SnapshotPlace::Archive { .. } = snapshot.place else {
        return Ok((snapshot, 0));
    };
    let lock = inner.attic.coming(&snapshot.id);
    let _alone = lock.lock().await;
    let known = inner.store.snapshot_fetch(&snapshot.id).await;
    let snapshot = known
        .map_err(fault::store)?
        .ok_or_else(|| super::snapshots::not_found(snapshot.id.as_str()))?;
    let SnapshotPlace::Archive { archive: kept } = snapshot.place.clone() else {
        return Ok((snapshot, 0));
    };
    let limit = inner.options.archive_timeout;
    let bytes = tokio::time::timeout(limit, download(inner, &snapshot.id, &kept))
        .await
        .unwrap_or_else(|_| {
            Err(Fault::new(
                Code::DeadlineExceeded,
                format!(
                    "the snapshot {} did not come from the archive within {} s",
                    snapshot.id,
                    limit.as_secs()
                ),
            ))
        });
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(fault) => {
            // The half of it; what is in the archive stays.
            if let Err(error) = inner.driver.snapshot_remove(&snapshot.id).await {
                tracing::warn!(snapshot = %snapshot.id, %error, "half a snapshot could not be removed; the next attempt tries again");
            }
            return Err(fault);
        }
    };
    let here = Snapshot {
        place: SnapshotPlace::Both { archive: kept },
        generation: snapshot.generation + 1,
        ..snapshot
    };
    let stored = inner.store.snapshot_update(&here).await;
    stored.map_err(fault::store)?;
    Ok((here, bytes))
}

async fn download(inner: &Inner, id: &SnapshotId, kept: &ArchiveId) -> Result<u64, Fault> {
    let archive = inner.attic.archive()?;
    let turn = inner.attic.downloads.acquire().await;
    let _turn = turn.map_err(|_| fault::stopping())?;
    let folder = match inner.driver.snapshot_import_begin(id).await {
        // A server before came so far, and did not record it.
        Err(DriverError::AlreadyExists { .. }) => {
            if matches!(
                inner.driver.snapshot_verify(id).await,
                Ok(SnapshotHealth::Good)
            ) {
                return Ok(0);
            }
            let removed = inner.driver.snapshot_remove(id).await;
            removed.map_err(fault::driver)?;
            inner.driver.snapshot_import_begin(id).await
        }
        begun => begun,
    };
    let folder = folder.map_err(fault::driver)?;
    let bytes = archive.fetch(kept, &folder).await.map_err(archive_fault)?;
    let whole = inner.driver.snapshot_import_finish(id).await;
    whole.map_err(fault::driver)?;
    Ok(bytes)
}

/// Reads what the archive has of a snapshot.
pub(crate) async fn verify(inner: &Inner, kept: &ArchiveId) -> Result<SnapshotState, Fault> {
    match inner.attic.archive()?.verify(kept).await {
        Ok(_) => Ok(SnapshotState::Ready),
        Err(ArchiveError::Unusable(detail)) => Ok(SnapshotState::Damaged { detail }),
        Err(error) => Err(archive_fault(error)),
    }
}

/// Removes something from the archive. What cannot be removed now has no record any more, and goes
/// with a collection.
pub(crate) async fn forget(inner: &Inner, kept: &ArchiveId) {
    let Ok(archive) = inner.attic.archive() else {
        tracing::warn!(archive = %kept, "it stays in the archive, which this server was started without");
        return;
    };
    if let Err(error) = archive.delete(kept).await {
        tracing::warn!(archive = %kept, %error, "it could not be removed from the archive; a collection does it");
    }
}

/// Removes from the archive what is of this server's store and has no record, and content that
/// nothing refers to. The bytes of that.
pub(crate) async fn collect(inner: &Inner, now: Timestamp) -> Result<u64, Fault> {
    let Ok(archive) = inner.attic.archive() else {
        return Ok(0);
    };
    let prefix = format!("{}/", inner.attic.scope);
    for kept in archive.list().await.map_err(archive_fault)? {
        let Some(id) = kept.label.strip_prefix(&prefix) else {
            continue;
        };
        if now.since(kept.created_at) < ORPHAN_AGE {
            continue;
        }
        let Ok(id) = id.parse::<SnapshotId>() else {
            continue;
        };
        let known = inner.store.snapshot_fetch(&id).await;
        let known = known.map_err(fault::store)?;
        let wanted = known.is_some_and(|known| known.place.archive() == Some(&kept.id));
        if !wanted {
            archive.delete(&kept.id).await.map_err(archive_fault)?;
            tracing::info!(snapshot = %id, archive = %kept.id, "removed from the archive: nothing refers to it");
        }
    }
    archive.collect().await.map_err(archive_fault)
}

/// Collects now and then, until the server stops.
pub(crate) async fn watch(inner: Arc<Inner>) {
    let interval = inner.options.archive_gc_interval;
    if interval.is_zero() || !inner.attic.is_there() {
        return;
    }
    let mut pause = interval.min(FIRST_COLLECTION);
    loop {
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = interval;
        let collected = tokio::select! {
            () = inner.stopping.cancelled() => return,
            collected = collect(&inner, Timestamp::now()) => collected,
        };
        match collected {
            Ok(0) => {}
            Ok(bytes) => tracing::info!(bytes, "removed from the archive: nothing refers to it"),
            Err(fault) => {
                tracing::warn!(
                    error = &fault as &dyn std::error::Error,
                    "the archive could not be tidied; again later"
                );
            }
        }
    }
}

/// A failed call of the archive.
pub(crate) fn archive_fault(error: ArchiveError) -> Fault {
    match error {
        ArchiveError::Unusable(why) => Fault::new(
            Code::SnapshotUnusable,
            format!("what the archive has cannot be used: {why}"),
        ),
        error @ ArchiveError::Unavailable(_) => {
            Fault::new(Code::Unavailable, error.to_string()).because(error)
        }
        error @ ArchiveError::Folder(_) => Fault::internal(error),
    }
}
