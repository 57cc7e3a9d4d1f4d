//! From the store to a folder: records and chunks are read ahead, one thread writes.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::archive::{Archive, Verified};
use crate::record::{LINE_MAX, Record};
use crate::write::Writer;
use crate::{BlobError, BlobStore, Digest, Key, ManifestId, Result, chunk};

/// Records read ahead; chunks read ahead are bounded by `Limits::transfers`.
const AHEAD: usize = 1024;

/// The content of a chunk, checked.
pub(crate) async fn content(store: &dyn BlobStore, digest: Digest) -> Result<Bytes> {
    let stored = store.get(Key::Chunk(digest), chunk::STORED_MAX).await?;
    // A few hundred microseconds at most, not worth another thread.
    chunk::decode(digest, &stored)
}

/// The records of a manifest, in order.
pub(crate) struct Records {
    store: Arc<dyn BlobStore>,
    id: ManifestId,
    body: VecDeque<Digest>,
    /// What was read; `at`: how much of it was given.
    lines: Vec<u8>,
    at: usize,
}

impl Records {
    pub(crate) fn new(store: Arc<dyn BlobStore>, id: ManifestId, body: &[Digest]) -> Self {
        Self {
            store,
            id,
            body: body.iter().copied().collect(),
            lines: Vec::new(),
            at: 0,
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Record>> {
        loop {
            let rest = &self.lines[self.at..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let record = Record::read(&rest[..end]);
                self.at += end + 1;
                return record.map(Some);
            }
            if rest.len() > LINE_MAX {
                return Err(self.corrupt("a record is too long"));
            }
            let Some(digest) = self.body.pop_front() else {
                let cut = !rest.is_empty();
                return if cut {
                    Err(self.corrupt("its last record is cut short"))
                } else {
                    Ok(None)
                };
            };
            let more = content(self.store.as_ref(), digest).await?;
            self.lines.drain(..self.at);
            self.at = 0;
            self.lines.extend_from_slice(&more);
        }
    }

    fn corrupt(&self, why: &str) -> BlobError {
        BlobError::corrupt(Key::Manifest(self.id).to_string(), why)
    }
}

/// A record, and the chunk it needs, which is on its way.
type Item = Result<(Record, Option<Coming>)>;

struct Coming {
    task: JoinHandle<Result<Bytes>>,
    /// Held until the chunk was used: bounds memory.
    permit: OwnedSemaphorePermit,
}

fn read_ahead(archive: &Archive, mut records: Records) -> mpsc::Receiver<Item> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let store = Arc::clone(&archive.store);
    let slots = Arc::new(Semaphore::new(archive.limits.transfers));
    tokio::spawn(async move {
        while let Some(item) = next_item(&store, &slots, &mut records).await.transpose() {
            let failed = item.is_err();
            if sender.send(item).await.is_err() || failed {
                break;
            }
        }
    });
    receiver
}

async fn next_item(
    store: &Arc<dyn BlobStore>,
    slots: &Arc<Semaphore>,
    records: &mut Records,
) -> Result<Option<(Record, Option<Coming>)>> {
    let Some(record) = records.next().await? else {
        return Ok(None);
    };
    let digest = match &record {
        Record::Bundle(digest) => *digest,
        Record::Piece { chunk, .. } => *chunk,
        Record::Entry(_) => return Ok(Some((record, None))),
    };
    // The semaphore is never closed.
    let Ok(permit) = Arc::clone(slots).acquire_owned().await else {
        return Ok(None);
    };
    let store = Arc::clone(store);
    let task = tokio::spawn(async move { content(store.as_ref(), digest).await });
    Ok(Some((record, Some(Coming { task, permit }))))
}

impl Coming {
    async fn arrive(self) -> Result<(Bytes, OwnedSemaphorePermit)> {
        let content = self.task.await;
        let content = content.map_err(|error| BlobError::ended("read", error))??;
        Ok((content, self.permit))
    }
}

/// See [`Archive::fetch`].
pub(crate) async fn fetch(archive: &Archive, id: ManifestId, folder: &Path) -> Result<Verified> {
    let (root, records) = archive.records(id).await?;
    let mut items = read_ahead(archive, records);
    let folder = folder.to_path_buf();
    let runtime = Handle::current();
    let work = move || {
        let mut writer = Writer::new(&folder)?;
        let mut done = Verified::default();
        while let Some(item) = items.blocking_recv() {
            let (record, coming) = item?;
            let coming = coming.map(|coming| runtime.block_on(coming.arrive()));
            let content = coming.transpose()?.map(|(content, _permit)| content);
            count(&mut done, &record, content.as_ref());
            writer.record(record, content)?;
        }
        writer.finish()?;
        Ok(done)
    };
    let written = spawn_blocking(work).await;
    let done = written.map_err(|error| BlobError::ended("write", error))??;
    complete(id, root.entries, done)
}

/// See [`Archive::verify`].
pub(crate) async fn verify(archive: &Archive, id: ManifestId) -> Result<Verified> {
    let (root, records) = archive.records(id).await?;
    let mut items = read_ahead(archive, records);
    let mut done = Verified::default();
    while let Some(item) = items.recv().await {
        let (record, coming) = item?;
        let content = match coming {
            Some(coming) => Some(coming.arrive().await?.0),
            None => None,
        };
        count(&mut done, &record, content.as_ref());
    }
    complete(id, root.entries, done)
}

fn count(done: &mut Verified, record: &Record, content: Option<&Bytes>) {
    match record {
        Record::Entry(_) => done.entries += 1,
        Record::Bundle(_) | Record::Piece { .. } => {
            done.chunks += 1;
            done.bytes += content.map_or(0, |content| content.len() as u64);
        }
    }
}

fn complete(id: ManifestId, entries: u64, done: Verified) -> Result<Verified> {
    if done.entries == entries {
        return Ok(done);
    }
    let why = format!("it has {} entries instead of {entries}", done.entries);
    Err(BlobError::corrupt(Key::Manifest(id).to_string(), why))
}
