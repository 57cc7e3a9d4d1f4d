//! Damage, interruptions and the garbage collection.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use common::{describe, noise};
use futures_util::TryStreamExt;
use futures_util::stream::{BoxStream, StreamExt};
use woodfrog_blob::{
    Archive, BlobError, BlobStore, CHUNK_BYTES, Found, Key, Kind, Limits, ManifestId, ObjectBlobs,
    Result,
};

const GRACE: Duration = Duration::from_secs(3600);

/// A store that fails after so many writes, as if the machine were gone, and whose clock is ours.
struct Failing {
    inner: ObjectBlobs,
    writes_left: AtomicI64,
    clock: Mutex<SystemTime>,
    written: Arc<Mutex<HashMap<Key, SystemTime>>>,
}

impl Failing {
    fn now(&self) -> SystemTime {
        *self.clock.lock().unwrap()
    }
}

fn dated(times: &Mutex<HashMap<Key, SystemTime>>, found: Found) -> Found {
    let modified = times.lock().unwrap()[&found.key];
    Found { modified, ..found }
}

#[async_trait]
impl BlobStore for Failing {
    async fn put(&self, key: Key, bytes: Bytes) -> Result<()> {
        if self.writes_left.fetch_sub(1, Relaxed) <= 0 {
            return Err(BlobError::Backend {
                action: "write".into(),
                source: "the machine is gone".into(),
            });
        }
        self.written.lock().unwrap().insert(key, self.now());
        self.inner.put(key, bytes).await
    }
    async fn get(&self, key: Key, max: usize) -> Result<Bytes> {
        self.inner.get(key, max).await
    }
    async fn head(&self, key: Key) -> Result<Option<Found>> {
        let found = self.inner.head(key).await?;
        Ok(found.map(|found| dated(&self.written, found)))
    }
    fn list(&self, kind: Kind) -> BoxStream<'static, Result<Found>> {
        let written = Arc::clone(&self.written);
        let listed = self.inner.list(kind);
        listed.map_ok(move |found| dated(&written, found)).boxed()
    }
    async fn delete(&self, key: Key) -> Result<()> {
        self.inner.delete(key).await
    }
    async fn sweep_partial(&self, older: Duration) -> Result<u64> {
        self.inner.sweep_partial(older).await
    }
}

struct Lab {
    store: Arc<Failing>,
    archive: Archive,
    tree: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let store = Arc::new(Failing {
            inner: ObjectBlobs::memory(),
            writes_left: AtomicI64::new(i64::MAX),
            clock: Mutex::new(SystemTime::now()),
            written: Arc::default(),
        });
        let limits = Limits {
            transfers: 3,
            grace: GRACE,
        };
        let archive = Archive::new(store.clone(), limits);
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("a"), noise(1, 3 * CHUNK_BYTES)).unwrap();
        fs::write(tree.path().join("b"), "small").unwrap();
        Self {
            store,
            archive,
            tree,
        }
    }

    async fn put(&self) -> ManifestId {
        self.archive.store(self.tree.path(), "x").await.unwrap().id
    }

    async fn chunks(&self) -> usize {
        let chunks = self.store.list(Kind::Chunk);
        chunks.try_collect::<Vec<_>>().await.unwrap().len()
    }

    /// A run of the garbage collection now.
    async fn gc_now(&self) -> u64 {
        self.archive.gc(self.store.now()).await.unwrap().chunks
    }

    /// A run of the garbage collection when another grace period has passed.
    async fn gc(&self) -> u64 {
        *self.store.clock.lock().unwrap() += GRACE + Duration::from_secs(1);
        self.gc_now().await
    }

    /// That `id` gives exactly what is in the folder.
    async fn is_whole(&self, id: ManifestId) {
        let parent = tempfile::tempdir().unwrap();
        let copy = parent.path().join("copy");
        self.archive.fetch(id, &copy).await.unwrap();
        assert_eq!(describe(self.tree.path()), describe(&copy));
    }

    fn change(&self, seed: u64) {
        fs::write(self.tree.path().join("b"), noise(seed, 5000)).unwrap();
        fs::write(self.tree.path().join("c"), noise(seed + 1, 300_000)).unwrap();
    }
}

#[tokio::test]
async fn damage_of_every_object_is_named() {
    let lab = Lab::new();
    let id = lab.put().await;
    let chunks = lab.store.list(Kind::Chunk).map_ok(|found| found.key);
    let mut keys: Vec<Key> = chunks.try_collect().await.unwrap();
    assert_eq!(keys.len(), 5, "three pieces, a bundle, the records");
    keys.push(Key::Manifest(id));
    for key in keys {
        let whole = lab.store.get(key, 2 << 20).await.unwrap();
        let mut foreign = whole.to_vec();
        foreign[3] = 77;
        let damages: [(Bytes, &str); 4] = [
            (whole.slice(..whole.len() - 1), "damaged"),
            (whole.slice(..3), "damaged"),
            (Bytes::new(), "damaged"),
            (
                foreign.into(),
                if matches!(key, Key::Chunk(_)) {
                    "version 77"
                } else {
                    "damaged"
                },
            ),
        ];
        for (damage, word) in damages {
            lab.store.put(key, damage).await.unwrap();
            for error in failures(&lab.archive, id).await {
                assert!(error.contains(word), "{error}");
                assert!(error.contains(&key.to_string()), "{error}");
            }
        }
        lab.store.delete(key).await.unwrap();
        for error in failures(&lab.archive, id).await {
            assert_eq!(error, format!("{key} is not in the archive store"));
        }
        lab.store.put(key, whole).await.unwrap();
    }
    lab.is_whole(id).await;
}

async fn failures(archive: &Archive, id: ManifestId) -> [String; 2] {
    let parent = tempfile::tempdir().unwrap();
    let fetched = archive.fetch(id, &parent.path().join("t")).await;
    let verified = archive.verify(id).await;
    [fetched, verified].map(|result| result.unwrap_err().to_string())
}

/// The power goes after each possible number of writes: there is no archive, the one before is
/// whole, and what was left goes.
#[tokio::test]
async fn interrupted_uploads_leave_what_gc_removes() {
    let lab = Lab::new();
    let before = lab.put().await;
    let copy = tempfile::tempdir().unwrap();
    lab.archive.fetch(before, copy.path()).await.unwrap();
    let kept = lab.chunks().await;
    lab.change(10);
    let mut writes = 0;
    let second = loop {
        lab.store.writes_left.store(writes, Relaxed);
        let stored = lab.archive.store(lab.tree.path(), "second").await;
        lab.store.writes_left.store(i64::MAX, Relaxed);
        match stored {
            Ok(stored) => break stored.id,
            Err(error) => assert!(error.to_string().contains("machine is gone"), "{error}"),
        }
        assert_eq!(lab.archive.list().await.unwrap().len(), 1);
        assert_eq!(lab.gc().await, 0, "condemned first");
        let extra = lab.chunks().await - kept;
        assert_eq!(lab.gc().await, extra as u64);
        assert_eq!(lab.chunks().await, kept);
        writes += 1;
    };
    assert_eq!(writes, 4, "a bundle, a piece, the records, the root");
    lab.is_whole(second).await;
    let again = tempfile::tempdir().unwrap();
    lab.archive.fetch(before, again.path()).await.unwrap();
    assert_eq!(describe(copy.path()), describe(again.path()));
}

#[tokio::test]
async fn deleting_one_archive_leaves_the_others() {
    let lab = Lab::new();
    let first = lab.put().await;
    lab.change(10);
    let second = lab.put().await;
    let all = lab.chunks().await;
    lab.archive.delete(first).await.unwrap();
    lab.archive.delete(first).await.unwrap();
    assert_eq!(lab.gc_now().await + lab.gc().await, 0);
    assert_eq!(lab.gc_now().await, 0);
    assert_eq!(lab.gc().await, 2, "its bundle and its records");
    assert_eq!(lab.chunks().await, all - 2);
    lab.is_whole(second).await;
    lab.archive.delete(second).await.unwrap();
    assert_eq!(lab.gc().await, 0);
    assert_eq!(lab.gc().await, all as u64 - 2);
    assert_eq!(lab.chunks().await, 0);
    let notes = lab.store.list(Kind::Condemned).try_collect::<Vec<_>>();
    assert_eq!(notes.await.unwrap(), []);
}

/// An upload that uses a chunk that was condemned before writes it anew, and one that began
/// before the note may rely on it.
#[tokio::test]
async fn gc_spares_what_an_upload_uses() {
    let lab = Lab::new();
    let first = lab.put().await;
    lab.archive.delete(first).await.unwrap();
    assert_eq!(lab.gc().await, 0);
    let stored = lab.archive.store(lab.tree.path(), "again").await.unwrap();
    assert_eq!(stored.chunks_new, stored.chunks, "all were condemned");
    assert_eq!(lab.gc().await, 0);
    lab.is_whole(stored.id).await;
    // The notes are gone: the next one shares again.
    let third = lab.archive.store(lab.tree.path(), "third").await.unwrap();
    assert_eq!(third.chunks_new, 0);
}

/// Uploads, deletes and runs of the garbage collection at once; at the end all that is listed is
/// whole, and nothing else stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gc_beside_uploads() {
    let lab = Arc::new(Lab::new());
    for round in 0..6u64 {
        // What earlier rounds left is condemned by one run and removed by the next.
        lab.gc().await;
        let workers = (0..4u64).map(|worker| {
            let lab = Arc::clone(&lab);
            tokio::spawn(async move {
                let tree = tempfile::tempdir().unwrap();
                fill(tree.path(), worker % 2, round % 3);
                let stored = lab.archive.store(tree.path(), "x").await.unwrap();
                lab.gc_now().await;
                lab.archive.verify(stored.id).await.unwrap();
                lab.archive.delete(stored.id).await.unwrap();
                lab.archive.store(tree.path(), "y").await.unwrap();
            })
        });
        for worker in futures_util::future::join_all(workers).await {
            worker.unwrap();
        }
        for (number, listed) in lab.archive.list().await.unwrap().iter().enumerate() {
            lab.archive.verify(listed.id).await.unwrap();
            if number % 2 == 0 || round == 5 {
                lab.archive.delete(listed.id).await.unwrap();
            }
        }
    }
    assert!(lab.gc().await + lab.gc().await > 0);
    assert_eq!(lab.chunks().await, 0);
}

fn fill(tree: &Path, one: u64, other: u64) {
    fs::write(tree.join("one"), noise(one, 400_000)).unwrap();
    fs::write(tree.join("other"), noise(other + 100, 400_000)).unwrap();
}

#[tokio::test]
async fn gc_removes_nothing_when_an_archive_cannot_be_read() {
    let lab = Lab::new();
    let first = lab.put().await;
    let damaged = Key::Manifest(first);
    let whole = lab.store.get(damaged, 1 << 20).await.unwrap();
    lab.store.put(damaged, whole.slice(1..)).await.unwrap();
    let all = lab.chunks().await;
    for periods in 1..4 {
        let now = lab.store.now() + GRACE * periods;
        let error = lab.archive.gc(now).await.unwrap_err().to_string();
        assert!(error.contains("another checksum"), "{error}");
    }
    assert_eq!(lab.chunks().await, all);
}

#[tokio::test]
async fn an_upload_that_gc_may_have_overtaken_is_given_up() {
    let lab = Lab::new();
    let limits = Limits {
        transfers: 2,
        grace: Duration::ZERO,
    };
    let archive = Archive::new(lab.store.clone(), limits);
    let error = archive.store(lab.tree.path(), "x").await.unwrap_err();
    assert!(matches!(error, BlobError::TooSlow(_)), "{error}");
    assert_eq!(archive.list().await.unwrap(), []);
}
