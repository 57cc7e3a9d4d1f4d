//! What was stored comes back, whatever it was.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use common::{describe, noise};
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, XattrFlags, chownat, lsetxattr, mknodat};
use woodfrog_blob::{Archive, CHUNK_BYTES, Limits, ObjectBlobs};

fn archive() -> Archive {
    Archive::new(Arc::new(ObjectBlobs::memory()), Limits::default())
}

/// Stores `tree`, fetches it, and compares.
async fn check(archive: &Archive, tree: &Path) {
    let stored = archive.store(tree, "a label").await.unwrap();
    let parent = tempfile::tempdir().unwrap();
    let copy = parent.path().join("copy");
    let fetched = archive.fetch(stored.id, &copy).await.unwrap();
    assert_eq!(describe(tree), describe(&copy));
    assert_eq!(
        (fetched.entries, fetched.bytes),
        (stored.entries, stored.bytes)
    );
    assert_eq!(archive.verify(stored.id).await.unwrap(), fetched);
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn every_type_of_file() {
    let tree = tempfile::tempdir().unwrap();
    let at = |name: &str| tree.path().join(name);
    fs::create_dir_all(at("folder/empty")).unwrap();
    fs::write(at("folder/small"), "small").unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("large"), noise(1, 3 * CHUNK_BYTES + 17)).unwrap();
    fs::write(tree.path().join(OsStr::from_bytes(b"\xff\n%2f\"")), "odd").unwrap();
    symlink("/etc/passwd", at("link")).unwrap();
    symlink("nowhere", at("folder/dangling")).unwrap();
    fs::hard_link(at("large"), at("another name")).unwrap();
    fs::hard_link(at("link"), at("folder/same link")).unwrap();
    fs::set_permissions(at("folder/small"), fs::Permissions::from_mode(0o4511)).unwrap();
    fs::set_permissions(at("folder/empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, at("fifo"), FileType::Fifo, mode, 0).unwrap();
    mknodat(CWD, at("socket"), FileType::Socket, mode, 0).unwrap();
    for (name, value) in [("user.a", &b""[..]), ("user.b", &[0, 255, 10])] {
        lsetxattr(at("large"), name, value, XattrFlags::empty()).unwrap();
        lsetxattr(at("folder"), name, value, XattrFlags::empty()).unwrap();
    }
    check(&archive(), tree.path()).await;
}

/// As an overlay leaves them: whiteouts that share an inode, opaque and moved folders, owners of
/// the sandbox, capabilities.
#[tokio::test]
async fn the_upper_layer_of_an_overlay() {
    if !is_root() {
        eprintln!("not root: devices, owners and trusted attributes are not tested");
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    let at = |name: &str| tree.path().join(name);
    fs::create_dir_all(at("u/opaque")).unwrap();
    fs::create_dir_all(at("u/moved")).unwrap();
    let set = |name: &str, attribute: &str, value: &[u8]| {
        lsetxattr(at(name), attribute, value, XattrFlags::empty()).unwrap();
    };
    set("u/opaque", "trusted.overlay.opaque", b"y");
    set("u/moved", "trusted.overlay.redirect", b"/etc/old");
    mknodat(
        CWD,
        at("u/gone"),
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )
    .unwrap();
    fs::hard_link(at("u/gone"), at("u/opaque/gone too")).unwrap();
    let device = rustix::fs::makedev(7, 300);
    mknodat(CWD, at("u/disk"), FileType::BlockDevice, Mode::RUSR, device).unwrap();
    fs::write(at("u/ping"), "program").unwrap();
    for (name, id) in [("u/ping", 1000), ("u/opaque", 65536), ("u/gone", 3)] {
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id + 1));
        chownat(
            CWD,
            at(name),
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .unwrap();
    }
    set("u/ping", "trusted.overlay.origin", &noise(3, 29));
    set(
        "u/ping",
        "security.capability",
        b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    );
    fs::set_permissions(at("u/opaque"), fs::Permissions::from_mode(0o000)).unwrap();
    check(&archive(), tree.path()).await;
    assert_eq!(fs::metadata(at("u/gone")).unwrap().nlink(), 2);
}

/// A sparse file of 2 GiB costs what it has, in memory and in the store, and stays sparse.
#[tokio::test]
async fn holes_stay_holes() {
    let tree = tempfile::tempdir().unwrap();
    let file = fs::File::create(tree.path().join("sparse")).unwrap();
    file.set_len(2 << 30).unwrap();
    for place in [5u64 << 20, (1 << 30) - 4096, (2 << 30) - 1] {
        file.write_all_at(b"x", place).unwrap();
    }
    fs::write(tree.path().join("zeros"), vec![0; 3 << 20]).unwrap();
    fs::write(tree.path().join("few zeros"), [0; 100]).unwrap();
    let archive = archive();
    let stored = archive.store(tree.path(), "").await.unwrap();
    assert!(stored.bytes <= 3 << 20, "{stored:?}");
    assert!(stored.bytes_written < 10_000, "{stored:?}");
    let parent = tempfile::tempdir().unwrap();
    let copy = parent.path().join("copy");
    archive.fetch(stored.id, &copy).await.unwrap();
    let blocks = |name: &str| fs::metadata(copy.join(name)).unwrap().blocks();
    assert!(blocks("sparse") <= 3 * 8 + 8, "{}", blocks("sparse"));
    assert_eq!(blocks("zeros"), 0);
    assert_eq!(describe(tree.path()), describe(&copy));
}

/// What is the same is stored once, also when files come and go between others.
#[tokio::test]
async fn unchanged_content_is_shared() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("memory"), noise(1, 8 * CHUNK_BYTES)).unwrap();
    for number in 0..2000u64 {
        let file = tree.path().join(format!("file {number:04}"));
        fs::write(file, noise(number + 10, 2000)).unwrap();
    }
    let archive = archive();
    let first = archive.store(tree.path(), "first").await.unwrap();
    assert_eq!(first.chunks, first.chunks_new);
    let same = archive.store(tree.path(), "again").await.unwrap();
    assert_eq!(same.chunks_new, 0);
    assert_ne!(same.id, first.id);

    let memory = fs::File::options()
        .write(true)
        .open(tree.path().join("memory"));
    memory.unwrap().write_all_at(b"changed", 3 << 20).unwrap();
    fs::write(tree.path().join("file 1000a"), noise(5, 3000)).unwrap();
    let second = archive.store(tree.path(), "second").await.unwrap();
    assert!(second.bytes_written < first.bytes_written / 4, "{second:?}");
    let labels = archive.list().await.unwrap();
    let mut labels: Vec<_> = labels.into_iter().map(|listed| listed.label).collect();
    labels.sort();
    assert_eq!(labels, ["again", "first", "second"]);
}

#[tokio::test]
async fn what_cannot_be_stored_is_said() {
    let archive = archive();
    let gone = archive.store(Path::new("/nonexistent/x"), "").await;
    let error = gone.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/x: No such file"), "{error}");
    let tree = tempfile::tempdir().unwrap();
    let mut deep = tree.path().to_path_buf();
    for _ in 0..260 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    let error = archive
        .store(tree.path(), "")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("nested more than 256"), "{error}");
    assert_eq!(archive.list().await.unwrap(), []);
}

/// A file or folder of a random tree.
#[derive(Debug, Clone)]
enum Made {
    File {
        seed: u64,
        length: usize,
        hole: bool,
    },
    Folder(Vec<(Vec<u8>, Made)>),
    Symlink(Vec<u8>),
    Link,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("not in a name", |byte| *byte != 0 && *byte != b'/');
    prop::collection::vec(byte, 1..20)
        .prop_filter("not a name", |name| name != b"." && name != b"..")
}

fn made() -> impl Strategy<Value = Made> {
    let length = prop_oneof![
        0usize..100,
        Just(CHUNK_BYTES),
        (255usize << 10)..(258 << 10),
        (CHUNK_BYTES - 5000)..(2 * CHUNK_BYTES + 5000)
    ];
    let leaf = prop_oneof![
        4 => (any::<u64>(), length, any::<bool>())
            .prop_map(|(seed, length, hole)| Made::File { seed, length, hole }),
        1 => name().prop_map(Made::Symlink),
        1 => Just(Made::Link),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop::collection::vec((name(), inner), 0..6).prop_map(Made::Folder)
    })
}

fn make(made: &Made, path: &Path, first_file: &mut Option<std::path::PathBuf>) {
    match made {
        Made::File { seed, length, hole } => {
            let file = fs::File::create(path).unwrap();
            file.set_len(*length as u64).unwrap();
            let from = if *hole { length / 2 } else { 0 };
            let content = noise(*seed, length - from);
            file.write_all_at(&content, from as u64).unwrap();
            file.set_permissions(fs::Permissions::from_mode(0o600 | (*seed % 64) as u32))
                .unwrap();
            first_file.get_or_insert_with(|| path.to_path_buf());
        }
        Made::Folder(inner) => {
            fs::create_dir(path).unwrap();
            for (name, made) in inner {
                let below = path.join(OsStr::from_bytes(name));
                if fs::symlink_metadata(&below).is_err() {
                    make(made, &below, first_file);
                }
            }
        }
        Made::Symlink(target) => symlink(OsStr::from_bytes(target), path).unwrap(),
        Made::Link => {
            if let Some(first) = first_file {
                fs::hard_link(first, path).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_trees(trees in prop::collection::vec((name(), made()), 0..8)) {
        let parent = tempfile::tempdir().unwrap();
        let tree = parent.path().join("tree");
        make(&Made::Folder(trees), &tree, &mut None);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(check(&archive(), &tree));
    }
}
