//! The adapters, against the suite of the port.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod s3;

use woodfrog_blob::{BlobStore, Digest, Key, ObjectBlobs, conformance};

#[tokio::test]
async fn memory() {
    conformance::run(&ObjectBlobs::memory()).await;
}

#[tokio::test]
async fn directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = ObjectBlobs::directory(&dir.path().join("a/b")).unwrap();
    conformance::run(&store).await;
}

/// Another instance, as after a restart, sees what the first one wrote, and what an interrupted
/// write left is not seen, and swept.
#[tokio::test]
async fn a_directory_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    let key = Key::Chunk(Digest::of(b"1"));
    let first = ObjectBlobs::open(&url, []).unwrap();
    first.put(key, "whole".into()).await.unwrap();
    let half = dir.path().join(format!("{}#1", key.path()));
    std::fs::write(&half, "hal").unwrap();

    let again = ObjectBlobs::open(&url, []).unwrap();
    assert_eq!(again.get(key, 10).await.unwrap(), "whole");
    let hour = std::time::Duration::from_secs(3600);
    assert_eq!(again.sweep_partial(hour).await.unwrap(), 0);
    let none = std::time::Duration::ZERO;
    assert_eq!(again.sweep_partial(none).await.unwrap(), 1);
    assert!(!half.exists());
    assert_eq!(again.get(key, 10).await.unwrap(), "whole");
}

#[tokio::test]
async fn s3() {
    let server = s3::Server::start().await;
    for url in ["s3://bucket", "s3://bucket/some/prefix"] {
        let store = ObjectBlobs::open(url, server.options()).unwrap();
        conformance::run(&store).await;
    }
    assert!(server.pages() > 3, "lists of several pages were read");
}

#[test]
fn urls_that_name_no_store() {
    for url in ["", "ftp://x", "archive", "file://relative"] {
        let error = ObjectBlobs::open(url, []).err().unwrap().to_string();
        assert!(error.starts_with("archive.url: "), "{error}");
    }
}
