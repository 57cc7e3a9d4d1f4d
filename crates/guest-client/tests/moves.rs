//! Moves between file systems, through a real guest.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use common::TestGuest;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use tempfile::TempDir;
use woodfrog_guest_client::proto::*;

const ATTRIBUTE: &str = "user.test.kept";

/// A directory on another file system than the guest's files, if this machine has one.
fn elsewhere(guest: &TestGuest) -> Option<TempDir> {
    let dir = tempfile::tempdir_in("/dev/shm").ok()?;
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    if device(dir.path()) == device(&guest.home()) {
        return None;
    }
    Some(dir)
}

macro_rules! elsewhere_or_skip {
    ($guest:expr) => {
        match elsewhere($guest) {
            Some(dir) => dir,
            None => {
                eprintln!("skipped: /dev/shm is no other file system than that of the test");
                return;
            }
        }
    };
}

async fn moved(guest: &TestGuest, from: &Path, to: &Path) -> Result<EntryInfo, ErrorCode> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let request = MoveRequest {
        from: PathRequest {
            path: text(from),
            user: Some("user".to_owned()),
            xattr_prefix: Some("user.test.".to_owned()),
        },
        to: text(to),
    };
    let answer = guest.client.rename(request).await;
    answer.map_err(|e| e.code().unwrap_or_else(|| panic!("not a refusal: {e:?}")))
}

/// A name with mode, owner, time of the last change and content or target.
type Found = (PathBuf, u32, (u32, u32), i64, Vec<u8>);

/// Everything below.
fn tree(top: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let mut content = Vec::new();
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|one| one.unwrap().path()));
        } else if meta.is_symlink() {
            content = fs::read_link(&path).unwrap().to_str().unwrap().into();
        } else if meta.is_file() {
            content = fs::read(&path).unwrap();
        }
        let name = path.strip_prefix(top).unwrap().to_owned();
        let changed = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
        found.push((
            name,
            meta.mode(),
            (meta.uid(), meta.gid()),
            changed,
            content,
        ));
    }
    found.sort();
    found
}

fn names(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|one| one.unwrap().file_name().into()).collect()
}

#[tokio::test]
async fn a_directory_goes_to_another_file_system_and_back() {
    let guest = TestGuest::start().await;
    let other = elsewhere_or_skip!(&guest);
    let from = other.path().join("from");
    fs::create_dir_all(from.join("a/b")).unwrap();
    fs::write(from.join("a/b/file"), "x".repeat(300_000)).unwrap();
    fs::set_permissions(from.join("a/b/file"), fs::Permissions::from_mode(0o640)).unwrap();
    chown(from.join("a/b/file"), Some(54321), Some(54322)).unwrap();
    fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o2750)).unwrap();
    // Links out of the tree are not followed.
    fs::write(guest.home().join("kept"), "kept").unwrap();
    symlink(guest.home(), from.join("link")).unwrap();
    symlink("nowhere", from.join("a/dangling")).unwrap();
    let value = b"kept";
    let tagged = setxattr(from.join("a"), ATTRIBUTE, value, XattrFlags::empty()).is_ok();
    let before = tree(&from);

    // Its parents are made.
    let to = guest.home().join("new/place/to");
    let entry = moved(&guest, &from, &to).await.unwrap();
    assert_eq!(
        (entry.path.as_str(), entry.kind),
        (to.to_str().unwrap(), EntryKind::Directory)
    );
    assert_eq!(tree(&to), before);
    assert!(names(other.path()).is_empty());
    assert_eq!(names(to.parent().unwrap()), [Path::new("to")]);
    let back = other.path().join("back");
    moved(&guest, &to, &back).await.unwrap();
    assert_eq!(tree(&back), before);
    assert!(names(to.parent().unwrap()).is_empty());
    assert_eq!(fs::read(guest.home().join("kept")).unwrap(), b"kept");
    if tagged {
        let mut found = [0u8; 16];
        // Unless the file system on the way has none.
        if let Ok(len) = getxattr(back.join("a"), ATTRIBUTE, &mut found[..]) {
            assert_eq!(&found[..len], value);
        }
    }
}

#[tokio::test]
async fn a_file_replaces_a_file_elsewhere_and_carries_its_metadata() {
    let guest = TestGuest::start().await;
    let other = elsewhere_or_skip!(&guest);
    let (from, to) = (guest.home().join("from"), other.path().join("to"));
    fs::write(&from, "new").unwrap();
    fs::write(&to, "old").unwrap();
    // Metadata of the place, if it can have such.
    let takes = setxattr(&to, ATTRIBUTE, b"old", XattrFlags::empty()).is_ok();
    let has = setxattr(&from, ATTRIBUTE, b"new", XattrFlags::empty()).is_ok();
    let entry = moved(&guest, &from, &to).await.unwrap();
    assert_eq!(fs::read(&to).unwrap(), b"new");
    assert!(!from.exists());
    let kept = entry.metadata.get("kept").map(String::as_str);
    assert_eq!(kept, (takes && has).then_some("new"));
}

#[tokio::test]
async fn what_cannot_go_elsewhere_stays_whole() {
    let guest = TestGuest::start().await;
    let other = elsewhere_or_skip!(&guest);
    let from = guest.home().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("file"), "here").unwrap();
    let socket = UnixListener::bind(from.join("socket")).unwrap();
    let before = tree(&from);
    let to = other.path().join("to");
    assert_eq!(
        moved(&guest, &from, &to).await.unwrap_err(),
        ErrorCode::InvalidArgument
    );
    assert_eq!(tree(&from), before);
    assert!(names(other.path()).is_empty());
    drop(socket);
    fs::remove_file(from.join("socket")).unwrap();
    // In the way is what rename(2) does not replace.
    fs::create_dir_all(to.join("full")).unwrap();
    assert_eq!(
        moved(&guest, &from, &to).await.unwrap_err(),
        ErrorCode::AlreadyExists
    );
    assert_eq!(fs::read(from.join("file")).unwrap(), b"here");
    assert_eq!(names(other.path()), [Path::new("to")]);
}
