use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, mkfifoat};
use woodfrog_guest_proto::ErrorCode;

use super::{relocate, tree::MAX_DEPTH};

/// A directory for one test, gone at its end.
struct Base(PathBuf);

impl Base {
    fn new(name: &str) -> Self {
        let pid = std::process::id();
        let dir = std::env::temp_dir().join(format!("wf-relocate-{name}-{pid}"));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What is directly in it.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let name = |entry: fs::DirEntry| entry.file_name().to_str().unwrap().to_owned();
        let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn moved(from: &Path, to: &Path) -> Result<(), ErrorCode> {
    relocate(from.to_str().unwrap(), to.to_str().unwrap()).map_err(|e| e.code)
}

/// What a copy must have: kind, permissions, owner, size and time of the last change.
fn looks(path: &Path) -> (u32, u32, u32, u64, i64, i64) {
    let meta = fs::symlink_metadata(path).unwrap();
    // The size of a directory is the file system's own business.
    let size = if meta.is_dir() { 0 } else { meta.size() };
    let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
    (mode, uid, gid, size, meta.mtime(), meta.mtime_nsec())
}

#[test]
fn a_tree_is_the_same_in_its_new_place() {
    let base = Base::new("tree");
    let (from, to) = (base.path("from"), base.path("to"));
    let outside = base.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    fs::create_dir_all(from.join("a/b/c")).unwrap();
    fs::create_dir(from.join("empty")).unwrap();
    fs::write(from.join("a/b/c/file"), "content").unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"\xff odd\n");
    fs::write(from.join(odd), "odd").unwrap();
    let sparse = fs::File::create(from.join("sparse")).unwrap();
    sparse.set_len(4 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 2 << 20).unwrap();
    symlink(&outside, from.join("link")).unwrap();
    symlink("nowhere", from.join("a/dangling")).unwrap();
    mkfifoat(CWD, from.join("pipe"), Mode::RUSR).unwrap();
    let mode = |name: &str, mode| {
        fs::set_permissions(from.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("a/b/c/file", 0o640);
    mode("empty", 0o1770);
    mode("a/b", 0o750);
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_234_567_890_123_456);
    sparse.set_modified(long_ago).unwrap();
    drop(sparse);
    let names = ["", "a", "a/b", "a/b/c", "a/b/c/file", "empty", "sparse"];
    let names = names.into_iter().chain(["link", "a/dangling", "pipe"]);
    let before: Vec<_> = names.clone().map(|name| looks(&from.join(name))).collect();

    moved(&from, &to).unwrap();
    let after: Vec<_> = names.map(|name| looks(&to.join(name))).collect();
    assert_eq!(after, before);
    assert_eq!(fs::read(to.join("a/b/c/file")).unwrap(), b"content");
    assert_eq!(fs::read(to.join(odd)).unwrap(), b"odd");
    assert_eq!(fs::read_link(to.join("link")).unwrap(), outside);
    let content = fs::read(to.join("sparse")).unwrap();
    let expected = |at: usize| match at.checked_sub(2 << 20) {
        Some(at) => b"middle".get(at).copied().unwrap_or(0),
        None => 0,
    };
    assert!((0..content.len()).all(|at| content[at] == expected(at)));
    assert_eq!(fs::read(outside.join("kept")).unwrap(), b"kept");
    assert_eq!(base.names(), ["outside", "to"]);
}

#[test]
fn what_rename_replaces_is_replaced() {
    let base = Base::new("replaced");
    let (file, other) = (base.path("file"), base.path("other"));
    let (empty, full) = (base.path("empty"), base.path("full"));
    fs::create_dir(&empty).unwrap();
    fs::create_dir_all(full.join("in")).unwrap();
    fs::write(&file, "new").unwrap();
    fs::write(&other, "old").unwrap();
    assert_eq!(moved(&file, &full), Err(ErrorCode::IsADirectory));
    assert_eq!(moved(&full, &file), Err(ErrorCode::NotADirectory));
    assert_eq!(moved(&empty, &full), Err(ErrorCode::AlreadyExists));
    assert_eq!(base.names(), ["empty", "file", "full", "other"]);
    moved(&file, &other).unwrap();
    assert_eq!(fs::read(&other).unwrap(), b"new");
    moved(&full, &empty).unwrap();
    assert!(empty.join("in").is_dir());
    assert_eq!(base.names(), ["empty", "other"]);
    // A link is replaced, and not what it leads to.
    let link = base.path("link");
    symlink(&empty, &link).unwrap();
    moved(&other, &link).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
    assert_eq!(base.names(), ["empty", "link"]);
}

#[test]
fn a_failure_leaves_everything_as_it_was() {
    let base = Base::new("failure");
    let (from, to) = (base.path("from"), base.path("to"));
    let deep = (0..MAX_DEPTH + 1).fold(from.join("deep"), |dir, _| dir.join("d"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(from.join("file"), "here").unwrap();
    assert_eq!(moved(&from, &to), Err(ErrorCode::InvalidArgument));
    let inside = from.join("deep/to");
    assert_eq!(moved(&from, &inside), Err(ErrorCode::InvalidArgument));
    assert_eq!(moved(&from, &from), Err(ErrorCode::AlreadyExists));
    assert!(deep.is_dir());
    fs::remove_dir_all(from.join("deep")).unwrap();
    let socket = UnixListener::bind(from.join("socket")).unwrap();
    assert_eq!(moved(&from, &to), Err(ErrorCode::InvalidArgument));
    let alone = from.join("socket");
    assert_eq!(moved(&alone, &to), Err(ErrorCode::InvalidArgument));
    drop(socket);
    assert_eq!(fs::read(from.join("file")).unwrap(), b"here");
    assert_eq!(base.names(), ["from"]);
    let missing = base.path("missing");
    assert_eq!(moved(&missing, &to), Err(ErrorCode::NotFound));
    assert_eq!(base.names(), ["from"]);
}

#[test]
fn what_is_mounted_stays() {
    let base = Base::new("mounted");
    // Whatever went wrong, the device in it would stay.
    let refused = relocate("/dev/pts", base.path("to").to_str().unwrap()).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidArgument);
    assert!(refused.message.contains("mount point"), "{refused:?}");
    assert!(base.names().is_empty());
}
