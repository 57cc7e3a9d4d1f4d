//! Writing files: beside their place, then into it, so that a reader sees the old or the new.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

use crate::entry::{Entry, EntryKind};
use crate::path::Inside;
use crate::tree::{Attributes, Parents, Tree};
use crate::{Result, VolumeError};

const FILE_MODE: u32 = 0o644;
/// Left free of the file system: the server's own records are on it too.
const RESERVE: u64 = 256 << 20;
/// After how many written bytes free space is looked at again.
const LOOK_EVERY: u64 = 64 << 20;

/// What to do about a file that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    Yes,
    No,
}

/// A file on its way. Dropped before [`Upload::commit`], nothing of it is left.
#[derive(Debug)]
pub struct Upload {
    file: File,
    incoming: OwnedFd,
    temporary: String,
    dir: OwnedFd,
    path: Inside,
    replace: Replace,
    committed: bool,
    written: u64,
    look_at: u64,
}

impl Upload {
    /// Begins a file at `path` of `tree`; until it is whole it lies in `incoming`.
    pub(crate) fn begin(
        tree: &Tree,
        incoming: OwnedFd,
        path: &str,
        set: Attributes,
        parents: Parents,
        replace: Replace,
    ) -> Result<Self> {
        let set = Tree::checked(set)?;
        let path = Inside::parse(path)?;
        let Some((above, name)) = path.split() else {
            return Err(VolumeError::IsADirectory(path.shown()));
        };
        let dir = match parents {
            Parents::Needed => tree.directory(&above)?,
            Parents::Made => tree.make_directories(&above)?,
        };
        acceptable(&dir, name, &path, replace)?;
        let temporary = crate::volumes::fresh_name()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(FILE_MODE);
        let file = rustix::fs::openat(&incoming, &*temporary, flags, mode);
        let file = file.map_err(|error| VolumeError::of(&path.shown(), error))?;
        let upload = Self {
            file: file.into(),
            incoming,
            temporary,
            dir,
            path,
            replace,
            committed: false,
            written: 0,
            look_at: 0,
        };
        let set = set.with_mode(FILE_MODE);
        set.apply(upload.file.as_fd(), &upload.path.shown())?;
        Ok(upload)
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.written >= self.look_at {
            self.look_at = self.written + LOOK_EVERY;
            let free = rustix::fs::fstatvfs(&self.file);
            let free = free.map_err(|error| VolumeError::of(&self.path.shown(), error))?;
            if free.f_bavail.saturating_mul(free.f_frsize) < RESERVE + LOOK_EVERY {
                return Err(VolumeError::NoSpace);
            }
        }
        let written = self.file.write_all(bytes);
        written.map_err(|error| VolumeError::of(&self.path.shown(), error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Puts the file in its place, durably.
    pub fn commit(mut self, tree: &Tree) -> Result<Entry> {
        let shown = self.path.shown();
        let failed = |error: std::io::Error| VolumeError::of(&shown, error);
        self.file.sync_data().map_err(failed)?;
        let Some((_, name)) = self.path.split() else {
            return Err(VolumeError::IsADirectory(shown));
        };
        acceptable(&self.dir, name, &self.path, self.replace)?;
        let flags = match self.replace {
            Replace::Yes => RenameFlags::empty(),
            Replace::No => RenameFlags::NOREPLACE,
        };
        let moved =
            rustix::fs::renameat_with(&self.incoming, &*self.temporary, &self.dir, name, flags);
        moved.map_err(|error| VolumeError::of(&shown, error))?;
        self.committed = true;
        rustix::fs::fsync(&self.dir).map_err(|error| VolumeError::of(&shown, error))?;
        tree.stat_at(&self.path)
    }
}

/// Whether a file may come to be called `name`.
fn acceptable(dir: &OwnedFd, name: &str, path: &Inside, replace: Replace) -> Result<()> {
    match Tree::kind(dir.as_fd(), name, &path.shown())? {
        None => Ok(()),
        Some(EntryKind::Directory) => Err(VolumeError::IsADirectory(path.shown())),
        Some(_) if replace == Replace::No => Err(VolumeError::Exists(path.shown())),
        Some(EntryKind::File | EntryKind::Symlink | EntryKind::Other) => Ok(()),
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.committed {
            // It is in nobody's way; the next start removes it if this fails.
            let _ = rustix::fs::unlinkat(&self.incoming, &*self.temporary, AtFlags::empty());
        }
    }
}
