//! Removing chunks without a reference, on any machine, while others upload.
//!
//! A chunk goes in two runs: the first one notes it as condemned, a later one removes it when the
//! note is older than the grace period, no archive refers to it, and it was not written anew. An
//! upload reads the notes at its start and writes condemned chunks anew; others it may rely on for
//! the grace period, since a note that it did not see is younger than the upload itself, and it
//! has to be done in half of that time.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;

use crate::archive::Archive;
use crate::record::Record;
use crate::{BlobError, Digest, Found, Key, Kind, ManifestId, Result};

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Chunks that were removed.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks without a reference that a later run will remove.
    pub waiting: u64,
    /// Files that interrupted writes had left.
    pub partial: u64,
}

/// See [`Archive::gc`].
pub(crate) async fn gc(archive: &Archive, now: SystemTime) -> Result<Swept> {
    // The notes first: an archive made by an upload that did not see an old one is in the list
    // that is read after it.
    let notes: HashMap<Digest, SystemTime> = archive
        .store
        .list(Kind::Condemned)
        .map_ok(|found| (found.key.digest(), found.modified))
        .try_collect()
        .await?;
    let used = mark(archive).await?;
    let mut swept = Swept::default();
    let mut seen = HashSet::new();
    let mut chunks = archive.store.list(Kind::Chunk);
    while let Some(chunk) = chunks.try_next().await? {
        let digest = chunk.key.digest();
        if notes.contains_key(&digest) {
            seen.insert(digest);
        }
        let run = Run { archive, now };
        match (used.contains(&digest), notes.get(&digest)) {
            (true, Some(_)) => archive.store.delete(Key::Condemned(digest)).await?,
            (true, None) => {}
            (false, None) => run.condemn(&chunk, &mut swept).await?,
            (false, Some(noted)) => run.remove(&chunk, *noted, &mut swept).await?,
        }
    }
    // Notes about chunks that are gone: a run was interrupted between the two.
    for digest in notes.keys().filter(|digest| !seen.contains(*digest)) {
        archive.store.delete(Key::Condemned(*digest)).await?;
    }
    swept.partial = archive.store.sweep_partial(archive.limits.grace).await?;
    Ok(swept)
}

struct Run<'a> {
    archive: &'a Archive,
    now: SystemTime,
}

impl Run<'_> {
    fn is_old(&self, since: SystemTime) -> bool {
        let age: Duration = self.now.duration_since(since).unwrap_or_default();
        age > self.archive.limits.grace
    }

    /// A young one may belong to an upload.
    async fn condemn(&self, chunk: &Found, swept: &mut Swept) -> Result<()> {
        if self.is_old(chunk.modified) {
            let note = Key::Condemned(chunk.key.digest());
            self.archive.store.put(note, bytes::Bytes::new()).await?;
        }
        swept.waiting += 1;
        Ok(())
    }

    async fn remove(&self, chunk: &Found, noted: SystemTime, swept: &mut Swept) -> Result<()> {
        if !self.is_old(noted) {
            swept.waiting += 1;
            return Ok(());
        }
        let store = &self.archive.store;
        let _no_upload = self.archive.sweeping.write().await;
        // It may have been written anew since it was listed.
        let latest = store.head(chunk.key).await?;
        if latest.is_some_and(|latest| self.is_old(latest.modified)) {
            store.delete(chunk.key).await?;
            swept.chunks += 1;
            swept.bytes += chunk.size;
        } else {
            swept.waiting += 1;
        }
        store.delete(Key::Condemned(chunk.key.digest())).await
    }
}

/// Every chunk that an archive refers to.
async fn mark(archive: &Archive) -> Result<HashSet<Digest>> {
    let mut used = HashSet::new();
    let mut roots = archive.store.list(Kind::Manifest);
    while let Some(root) = roots.try_next().await? {
        let key = root.key;
        let id = ManifestId(key.digest());
        let (root, mut records) = match archive.records(id).await {
            // Deleted since.
            Err(BlobError::NotFound(_)) => continue,
            other => other?,
        };
        used.extend(root.body);
        loop {
            match records.next().await {
                Ok(Some(Record::Bundle(chunk) | Record::Piece { chunk, .. })) => {
                    used.insert(chunk);
                }
                Ok(Some(Record::Entry(_))) => {}
                Ok(None) => break,
                // Deleted since, and swept by another run.
                Err(BlobError::NotFound(_)) if archive.store.head(key).await?.is_none() => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(used)
}
