//! Bytes come back as they went in, or not at all.

use std::fs::File;
use std::path::Path;

use futures_util::TryStreamExt;
use sha2::{Digest, Sha256};
use woodfrog_artifacts::{Files, FilesError, Put};

const PLACE: [&str; 3] = ["ws", "rn", "af"];

fn file(dir: &Path, bytes: &[u8]) -> File {
    let path = dir.join("source");
    std::fs::write(&path, bytes).expect("written");
    File::open(path).expect("opened")
}

async fn read(files: &Files, part: std::ops::Range<u64>) -> Vec<u8> {
    let content = files.get(PLACE, part).await.expect("there");
    let parts: Vec<_> = content.try_collect().await.expect("read");
    parts.concat()
}

#[tokio::test]
async fn files_of_every_size_come_back_in_parts() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = Files::open(&dir.path().join("files")).expect("opened");
    let piece = 5 << 20;
    for size in [
        0,
        1,
        1000,
        piece - 1,
        piece,
        piece + 1,
        2 * piece,
        2 * piece + 7,
    ] {
        let pattern = (0..=250_u8).cycle().take(size);
        let bytes: Vec<u8> = pattern.collect();
        let put = files
            .put(PLACE, file(dir.path(), &bytes), size as u64)
            .await;
        let Put::Kept(kept) = put.expect("stored") else {
            panic!("{size} bytes are not too many")
        };
        assert_eq!(kept.size, size as u64);
        assert_eq!(kept.digest, hex::encode(Sha256::digest(&bytes)));
        if size > 0 {
            assert!(read(&files, 0..size as u64).await == bytes, "{size}");
            let half = size / 2;
            assert!(read(&files, half as u64..size as u64).await == bytes[half..]);
        }
    }
}

#[tokio::test]
async fn what_is_too_large_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = Files::open(&dir.path().join("files")).expect("opened");
    for (size, max) in [(2, 1), (6 << 20, 1 << 20), (11 << 20, 10 << 20)] {
        let put = files
            .put(PLACE, file(dir.path(), &vec![1; size]), max)
            .await;
        assert_eq!(put.expect("asked"), Put::TooLarge);
        let got = files.get(PLACE, 0..1).await.err();
        assert!(matches!(got, Some(FilesError::NotFound)), "{got:?}");
    }
    files.delete_workspace("ws").await.expect("removed");
    let bytes = dir.path().join("files/bytes");
    assert_eq!(std::fs::read_dir(bytes).expect("there").count(), 0);
}

#[tokio::test]
async fn a_run_goes_with_all_of_its_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = Files::open(&dir.path().join("files")).expect("opened");
    for place in [PLACE, ["ws", "rn", "af2"], ["ws", "rn2", "af"]] {
        let put = files.put(place, file(dir.path(), b"x"), 1).await;
        assert!(matches!(put, Ok(Put::Kept(_))), "{put:?}");
    }
    files.delete(["ws", "rn", "af2"]).await.expect("removed");
    files
        .delete(["ws", "rn", "af2"])
        .await
        .expect("gone already");
    files.delete_run("ws", "rn").await.expect("removed");
    files.delete_run("ws", "rn").await.expect("gone already");
    assert!(files.get(PLACE, 0..1).await.is_err());
    assert!(files.get(["ws", "rn2", "af"], 0..1).await.is_ok());
}
