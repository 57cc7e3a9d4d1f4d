//! Moves to another file system, where `rename(2)` cannot: a copy beside the target, renamed into
//! place, and then the source removed. Directories that an overlay has from a lower layer are such
//! a move, too.
//!
//! Until the copy is in its place, a failure leaves the source and the target as they were. No
//! symbolic link is followed below the two names. Hard links become files of their own.

use std::{fs, os::fd::AsFd};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags, fstat, openat,
        statat, statx,
    },
    io::Errno,
    path::Arg,
};
use woodfrog_guest_proto::ErrorBody;

use super::{create::beside, remove::remove};
use crate::error::{OpResult, fail, invalid, system};

mod node;
mod tree;

/// Moves what is at `source` to `target`, both absolute, the parents of which exist. Replaces what
/// `rename(2)` replaces.
pub(super) fn relocate(source: &str, target: &str) -> OpResult<()> {
    let moving = format!("moving '{source}' to '{target}'");
    let failed = |e: Errno| system(&moving, e);
    let stat = statat(CWD, source, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if mounted(CWD, source).map_err(failed)? {
        return Err(immovable(source, "a mount point"));
    }
    if kind == FileType::Directory && lies_in(&stat, target).map_err(failed)? {
        return Err(invalid(format!("{moving}: that is inside it")));
    }
    fits(kind, target).map_err(failed)?;
    let copy = Temporary(Some(beside(target)));
    tree::copy(source, copy.path())?;
    copy.put(target).map_err(failed)?;
    remove(source).map_err(|e| {
        let what = format!("'{source}' was copied to '{target}', but not all of it was removed");
        fail(e.code, format!("{what}: {}", e.message))
    })
}

/// A copy that is not in its place yet. It goes if it does not get there.
struct Temporary(Option<String>);

impl Temporary {
    fn path(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    fn put(mut self, target: &str) -> Result<(), Errno> {
        rustix::fs::rename(self.path(), target)?;
        self.0 = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What is left of it has a name that says what it is; the failure is told already.
            let _ = remove(path);
        }
    }
}

/// Whether the directory `source` is that of `target`, or above it, whatever links and mounts are
/// on the way.
fn lies_in(source: &Stat, target: &str) -> Result<bool, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match target.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    };
    let same = |one: &Stat, other: &Stat| (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino);
    let mut dir = openat(CWD, parent, flags, Mode::empty())?;
    let mut here = fstat(&dir)?;
    loop {
        if same(&here, source) {
            return Ok(true);
        }
        dir = openat(&dir, "..", flags, Mode::empty())?;
        let above = fstat(&dir)?;
        if same(&above, &here) {
            return Ok(false);
        }
        here = above;
    }
}

/// Whether `rename(2)` would put something of this kind there: known before it is copied.
fn fits(kind: FileType, target: &str) -> Result<(), Errno> {
    let there = match statat(CWD, target, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e),
    };
    match (kind == FileType::Directory, there == FileType::Directory) {
        (true, false) => Err(Errno::NOTDIR),
        (false, true) => Err(Errno::ISDIR),
        (false, false) => Ok(()),
        (true, true) => match fs::read_dir(target).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Errno::NOTEMPTY),
            Err(e) => Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
        },
    }
}

/// Whether something is mounted there, where the kernel tells. Such a directory cannot be removed,
/// so its content must not be either.
fn mounted(dir: impl AsFd, name: impl Arg) -> Result<bool, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match statx(dir, name, flags, StatxFlags::TYPE) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e),
    }
}

/// What is neither content nor a name for it stays where it is.
fn immovable(path: &str, what: &str) -> ErrorBody {
    let message = format!("path '{path}' is {what}, which cannot go to another file system");
    invalid(message)
}

#[cfg(test)]
mod tests;
