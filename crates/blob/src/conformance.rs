//! What every adapter of the port must do. A test hands in a fresh, empty store.
#![expect(clippy::unwrap_used, reason = "a suite of checks")]

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::TryStreamExt;

use crate::{BlobError, BlobStore, Digest, Key, Kind, ManifestId};

/// Clocks of stores may count whole seconds and differ a little.
const CLOCK: Duration = Duration::from_secs(5);

/// Runs every check; panics at the first that fails.
///
/// # Panics
/// The adapter breaks a promise of the port.
pub async fn run(store: &dyn BlobStore) {
    nothing_there(store).await;
    write_and_read(store).await;
    kinds_are_apart(store).await;
    many(store).await;
    at_once(store).await;
    assert_eq!(store.sweep_partial(Duration::ZERO).await.unwrap(), 0);
}

fn chunk(number: u32) -> Key {
    Key::Chunk(Digest::of(&number.to_le_bytes()))
}

async fn keys(store: &dyn BlobStore, kind: Kind) -> BTreeSet<Key> {
    let listed = store.list(kind).map_ok(|found| found.key);
    listed.try_collect().await.unwrap()
}

async fn nothing_there(store: &dyn BlobStore) {
    for kind in [Kind::Chunk, Kind::Manifest, Kind::Condemned] {
        assert_eq!(keys(store, kind).await, BTreeSet::new());
    }
    let error = store.get(chunk(1), 10).await.unwrap_err();
    assert!(matches!(error, BlobError::NotFound(_)), "{error}");
    assert_eq!(store.head(chunk(1)).await.unwrap(), None);
    store.delete(chunk(1)).await.unwrap();
}

async fn write_and_read(store: &dyn BlobStore) {
    let key = chunk(1);
    for content in [&b"first"[..], b"", &[0xff; 70_000], b"last"] {
        store
            .put(key, Bytes::copy_from_slice(content))
            .await
            .unwrap();
        assert_eq!(store.get(key, content.len()).await.unwrap(), content);
        let found = store.head(key).await.unwrap().unwrap();
        assert_eq!((found.key, found.size), (key, content.len() as u64));
        let now = SystemTime::now();
        assert!(found.modified <= now + CLOCK && found.modified + CLOCK >= now);
        let listed: Vec<_> = store.list(Kind::Chunk).try_collect().await.unwrap();
        assert_eq!(listed, [found]);
    }
    let error = store.get(key, 3).await.unwrap_err();
    assert!(matches!(error, BlobError::Corrupt { .. }), "{error}");
    store.delete(key).await.unwrap();
    assert_eq!(store.head(key).await.unwrap(), None);
}

async fn kinds_are_apart(store: &dyn BlobStore) {
    let digest = Digest::of(b"x");
    let all = [
        Key::Chunk(digest),
        Key::Manifest(ManifestId(digest)),
        Key::Condemned(digest),
    ];
    for key in all {
        store.put(key, key.path().into()).await.unwrap();
    }
    for key in all {
        assert_eq!(store.get(key, 1000).await.unwrap(), key.path());
        assert_eq!(keys(store, key.kind()).await, BTreeSet::from([key]));
        store.delete(key).await.unwrap();
        assert_eq!(keys(store, key.kind()).await, BTreeSet::new());
    }
}

async fn many(store: &dyn BlobStore) {
    let all: BTreeSet<_> = (0..25).map(chunk).collect();
    for key in &all {
        store.put(*key, Bytes::from_static(b"1")).await.unwrap();
    }
    assert_eq!(keys(store, Kind::Chunk).await, all);
    for key in &all {
        store.delete(*key).await.unwrap();
    }
    assert_eq!(keys(store, Kind::Chunk).await, BTreeSet::new());
}

/// Writers of one object at once: each read gives one of them whole.
async fn at_once(store: &dyn BlobStore) {
    let key = chunk(7);
    let content = |number: u8| Bytes::from(vec![number; 100_000]);
    let writes = futures_util::future::join_all((0..8).map(|n| store.put(key, content(n))));
    for written in writes.await {
        written.unwrap();
    }
    let read = store.get(key, 100_000).await.unwrap();
    assert!((0..8).any(|n| read == content(n)));
    store.delete(key).await.unwrap();
}
