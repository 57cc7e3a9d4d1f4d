//! Trees to store, and what can be seen of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Path → everything about it that an archive keeps, as text. Inodes are numbered by their first
/// name, so that hard links compare.
pub(crate) fn describe(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    visit(root, root, &mut all);
    let mut first = BTreeMap::new();
    for (path, (inode, text)) in &mut all {
        let name = first.entry(*inode).or_insert_with(|| path.clone());
        write!(text, " same as {}", name.escape_ascii()).unwrap();
    }
    all.into_iter()
        .map(|(path, (_, text))| (path, text))
        .collect()
}

fn visit(root: &Path, path: &Path, all: &mut BTreeMap<Vec<u8>, (u64, String)>) {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let mut text = format!(
        "{:o} {}:{} {}.{:09}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec()
    );
    if kind.is_file() {
        let content = fs::read(path).unwrap();
        write!(text, " {} {}", content.len(), blake3::hash(&content)).unwrap();
    } else if kind.is_symlink() {
        write!(text, " -> {:?}", fs::read_link(path).unwrap()).unwrap();
    } else if kind.is_char_device() || kind.is_block_device() {
        write!(text, " device {:x}", meta.rdev()).unwrap();
    }
    for name in attributes(path) {
        let mut value = vec![0; 70_000];
        let length = rustix::fs::lgetxattr(path, name.as_slice(), &mut value[..]).unwrap();
        let hash = blake3::hash(&value[..length]);
        write!(text, " {}={hash}", name.escape_ascii()).unwrap();
    }
    let below = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
    let nlink = if kind.is_dir() { 1 } else { meta.nlink() };
    write!(text, " names {nlink}").unwrap();
    all.insert(below.to_vec(), (meta.ino(), text));
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            visit(root, &entry.unwrap().path(), all);
        }
    }
}

fn attributes(path: &Path) -> Vec<Vec<u8>> {
    let mut names = vec![0; 70_000];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut names: Vec<_> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"security.selinux"))
        .map(<[u8]>::to_vec)
        .collect();
    names.sort();
    names
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
