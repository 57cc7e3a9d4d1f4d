//! Extended attributes, by a folder and a name in it, never through a symbolic link.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};
use rustix::io::Errno;

use crate::record::Xattr;

/// The most bytes that the kernel gives for a list of names or for a value.
const MAX: usize = 64 << 10;

/// What is kept. Others describe the machine rather than the file (`btrfs.*`, `security.selinux`).
const KEPT: &[&[u8]] = &[
    b"user.",
    b"trusted.",
    b"security.capability",
    b"system.posix_acl_",
];

/// There are no `*xattrat` calls for all kernels; the folder's descriptor makes a path that
/// nobody can redirect.
fn path(folder: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    let folder = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    let name = if name.is_empty() { b"." } else { name };
    folder.join(OsStr::from_bytes(name))
}

/// The attributes of `name` in `folder` that an archive keeps, sorted; of the folder itself for
/// an empty name.
pub(crate) fn read(folder: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<Xattr>, Errno> {
    let path = path(folder, name);
    let mut names = Vec::new();
    match fill(&mut names, |buffer| llistxattr(&path, buffer)) {
        Ok(()) => {}
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let mut all = Vec::new();
    for name in names.split(|byte| *byte == 0) {
        if !KEPT.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let mut value = Vec::new();
        fill(&mut value, |buffer| lgetxattr(&path, name, buffer))?;
        all.push(Xattr(name.to_vec(), value));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

/// Most entries have none: a small buffer first.
fn fill(
    to: &mut Vec<u8>,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
) -> Result<(), Errno> {
    to.resize(256, 0);
    let length = match read(to) {
        Err(Errno::RANGE) => {
            to.resize(MAX, 0);
            read(to)?
        }
        other => other?,
    };
    to.truncate(length);
    Ok(())
}

/// Sets them.
pub(crate) fn write(folder: BorrowedFd<'_>, name: &[u8], all: &[Xattr]) -> Result<(), Errno> {
    if all.is_empty() {
        return Ok(());
    }
    let path = path(folder, name);
    for Xattr(name, value) in all {
        if !KEPT.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(Errno::INVAL);
        }
        lsetxattr(&path, name.as_slice(), value, XattrFlags::empty())?;
    }
    Ok(())
}
