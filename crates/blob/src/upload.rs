//! From a folder to the store: one thread reads and hashes, a bounded number of tasks transfer.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use futures_util::TryStreamExt;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use crate::archive::{Archive, Stored};
use crate::pack::{Packer, Sink};
use crate::root::Root;
use crate::walk::walk;
use crate::{BlobError, Digest, Key, Kind, Result, chunk};

type Piece = (Digest, Vec<u8>);

#[derive(Default)]
struct Counters {
    chunks: AtomicU64,
    new: AtomicU64,
    written: AtomicU64,
}

/// Stores `folder`; see [`Archive::store`].
pub(crate) async fn store(archive: &Archive, folder: &Path, label: &str) -> Result<Stored> {
    let start = Instant::now();
    let upload = Arc::new(Upload {
        archive: archive.clone(),
        condemned: archive
            .store
            .list(Kind::Condemned)
            .map_ok(|found| found.key.digest())
            .try_collect()
            .await?,
        counters: Counters::default(),
    });
    let (sender, receiver) = mpsc::channel(archive.limits.transfers);
    let (folder, label) = (folder.to_path_buf(), label.to_owned());
    let reader = spawn_blocking(move || read(&folder, &label, sender));
    let sent = transfer(&upload, receiver).await;
    // A failed transfer has closed the channel, which ends the reader.
    let read = reader.await.map_err(|e| BlobError::ended("read", e))?;
    sent?;
    let root = read?;
    let (id, bytes) = root.encode()?;
    // Chunks that were there already are safe from the garbage collection for this long only.
    let allowed = archive.limits.grace / 2;
    if start.elapsed() > allowed {
        return Err(BlobError::TooSlow(allowed));
    }
    let counters = &upload.counters;
    let stored = Stored {
        id,
        entries: root.entries,
        bytes: root.bytes,
        chunks: counters.chunks.load(Relaxed),
        chunks_new: counters.new.load(Relaxed),
        bytes_written: counters.written.load(Relaxed) + bytes.len() as u64,
    };
    archive.store.put(Key::Manifest(id), bytes).await?;
    Ok(stored)
}

/// Sends what it reads; fails when nobody takes it any more.
struct Outlet(mpsc::Sender<Piece>);

impl Sink for Outlet {
    fn chunk(&mut self, digest: Digest, content: Vec<u8>) -> Result<()> {
        let sent = self.0.blocking_send((digest, content));
        sent.map_err(|_| BlobError::Source {
            path: PathBuf::new(),
            why: "the transfer ended".into(),
        })
    }
}

fn read(folder: &Path, label: &str, sender: mpsc::Sender<Piece>) -> Result<Root> {
    let mut packer = Packer::new(Outlet(sender));
    walk(folder, &mut packer)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let nonce = getrandom::u64().map_err(|error| BlobError::Backend {
        action: "get a random number".into(),
        source: error.into(),
    })?;
    let mut root = Root::new(label, nonce, now);
    (root.entries, root.bytes) = (packer.entries, packer.bytes);
    root.body = packer.finish()?;
    Ok(root)
}

async fn transfer(upload: &Arc<Upload>, mut receiver: mpsc::Receiver<Piece>) -> Result<()> {
    let mut tasks = JoinSet::new();
    while let Some((digest, content)) = receiver.recv().await {
        while tasks.len() >= upload.archive.limits.transfers {
            ended(tasks.join_next().await)?;
        }
        let upload = Arc::clone(upload);
        tasks.spawn(async move { upload.chunk(digest, content).await });
    }
    while let Some(task) = tasks.join_next().await {
        ended(Some(task))?;
    }
    Ok(())
}

fn ended(task: Option<std::result::Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match task {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(BlobError::ended("transfer", error)),
        None => Ok(()),
    }
}

struct Upload {
    archive: Archive,
    /// Chunks that may go at any moment: they are written anew.
    condemned: HashSet<Digest>,
    counters: Counters,
}

impl Upload {
    async fn chunk(&self, digest: Digest, content: Vec<u8>) -> Result<()> {
        let key = Key::Chunk(digest);
        let store = &self.archive.store;
        self.counters.chunks.fetch_add(1, Relaxed);
        if !self.condemned.contains(&digest) && store.head(key).await?.is_some() {
            return Ok(());
        }
        let stored = spawn_blocking(move || chunk::encode(&content)).await;
        let stored = stored.map_err(|error| BlobError::ended("compress", error))?;
        self.counters.new.fetch_add(1, Relaxed);
        self.counters
            .written
            .fetch_add(stored.len() as u64, Relaxed);
        // Not between the last look of the garbage collection and its delete.
        let _no_sweep = self.archive.sweeping.read().await;
        store.put(key, stored).await
    }
}
