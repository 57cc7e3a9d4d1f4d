//! One volume's files.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::entry::{Entry, EntryKind, entry, entry_at};
use crate::path::Inside;
use crate::{Result, VolumeError};

const DIRECTORY_MODE: u32 = 0o755;
/// Bits that may be set. Set-id bits would mean something on the host.
const MODE_BITS: u32 = 0o1777;
/// The highest user or group id: what a sandbox has.
const ID_MAX: u32 = 65_535;

/// What to set of an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Permission bits.
    pub mode: Option<u32>,
}

impl Attributes {
    fn check(&self) -> Result<()> {
        let high = |id: Option<u32>| id.is_some_and(|id| id > ID_MAX);
        if high(self.uid) || high(self.gid) {
            let text = format!("user and group ids are 0 to {ID_MAX}");
            return Err(VolumeError::Invalid(text));
        }
        if self.mode.is_some_and(|mode| mode & !MODE_BITS != 0) {
            let text = format!("a mode is 0 to 0o{MODE_BITS:o}");
            return Err(VolumeError::Invalid(text));
        }
        Ok(())
    }

    /// The mode of something new, whatever mask the process has.
    pub(crate) fn with_mode(self, default: u32) -> Self {
        Self {
            mode: self.mode.or(Some(default)),
            ..self
        }
    }

    /// Sets them on an open file.
    pub(crate) fn apply(&self, file: BorrowedFd<'_>, path: &str) -> Result<()> {
        let failed = |error: Errno| VolumeError::of(path, error);
        if self.uid.is_some() || self.gid.is_some() {
            let uid = self.uid.map(rustix::fs::Uid::from_raw);
            let gid = self.gid.map(rustix::fs::Gid::from_raw);
            rustix::fs::fchown(file, uid, gid).map_err(failed)?;
        }
        if let Some(mode) = self.mode {
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).map_err(failed)?;
        }
        Ok(())
    }
}

/// What to do about directories above that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parents {
    /// Refuse.
    Needed,
    /// Make them; a directory that is there already is fine.
    Made,
}

/// A volume's content.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// Where files lie that are on their way into it and out of it.
    areas: PathBuf,
}

impl Tree {
    pub(crate) fn open(dir: &Path, areas: PathBuf) -> Result<Self> {
        let root = rustix::fs::open(dir, DIRECTORY, Mode::empty());
        let root = root.map_err(|error| VolumeError::of("/", error))?;
        Ok(Self { root, areas })
    }

    pub(crate) fn areas(&self) -> &Path {
        &self.areas
    }

    /// One entry, a link itself.
    pub fn stat(&self, path: &str) -> Result<Entry> {
        self.stat_at(&Inside::parse(path)?)
    }

    pub(crate) fn stat_at(&self, path: &Inside) -> Result<Entry> {
        let Some((above, name)) = path.split() else {
            let stat = rustix::fs::fstat(&self.root);
            let stat = stat.map_err(|error| VolumeError::of("/", error))?;
            return Ok(entry(&stat, path));
        };
        let dir = self.directory(&above)?;
        entry_at(dir.as_fd(), name, path)
    }

    /// Makes a directory.
    pub fn make_dir(&self, path: &str, set: Attributes, parents: Parents) -> Result<Entry> {
        set.check()?;
        let path = Inside::parse(path)?;
        let Some((above, name)) = path.split() else {
            return match parents {
                Parents::Made => self.stat_at(&path),
                Parents::Needed => Err(VolumeError::Exists(path.shown())),
            };
        };
        let dir = match parents {
            Parents::Needed => self.directory(&above)?,
            Parents::Made => self.make_directories(&above)?,
        };
        let mode = Mode::from_raw_mode(DIRECTORY_MODE);
        match rustix::fs::mkdirat(&dir, name, mode) {
            Ok(()) => {
                let made = self.directory(&path)?;
                let set = set.with_mode(DIRECTORY_MODE);
                set.apply(made.as_fd(), &path.shown())?;
                self.stat_at(&path)
            }
            Err(Errno::EXIST) if parents == Parents::Made => {
                self.directory(&path)?;
                self.stat_at(&path)
            }
            Err(error) => Err(VolumeError::of(&path.shown(), error)),
        }
    }

    /// Opens a regular file to be read.
    pub fn read(&self, path: &str) -> Result<(File, Entry)> {
        let path = Inside::parse(path)?;
        // Opening a pipe would wait for its other end.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.resolve(&path, flags)?;
        let stat = rustix::fs::fstat(&file);
        let stat = stat.map_err(|error| VolumeError::of(&path.shown(), error))?;
        let entry = entry(&stat, &path);
        match entry.kind {
            EntryKind::File => Ok((file.into(), entry)),
            EntryKind::Directory => Err(VolumeError::IsADirectory(path.shown())),
            EntryKind::Symlink | EntryKind::Other => {
                let text = format!("path '{}' is not a regular file", path.shown());
                Err(VolumeError::Invalid(text))
            }
        }
    }

    /// Sets attributes of a file or directory.
    pub fn set(&self, path: &str, set: Attributes) -> Result<Entry> {
        set.check()?;
        let path = Inside::parse(path)?;
        match self.stat_at(&path)?.kind {
            EntryKind::File | EntryKind::Directory => {}
            EntryKind::Symlink | EntryKind::Other => {
                let text = format!("path '{}' is no file and no directory", path.shown());
                return Err(VolumeError::Invalid(text));
            }
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let file = self.resolve(&path, flags)?;
        set.apply(file.as_fd(), &path.shown())?;
        self.stat_at(&path)
    }

    /// Takes an entry, with all below it, out of the tree at once and into `to`.
    pub(crate) fn take_out(&self, path: &str, to: BorrowedFd<'_>, name: &str) -> Result<()> {
        let path = Inside::parse(path)?;
        let (dir, last) = self.removable(&path)?;
        let moved = rustix::fs::renameat(&dir, last, to, name);
        moved.map_err(|error| VolumeError::of(&path.shown(), error))
    }

    /// Removes an entry where it is, one after the other of what is below it.
    pub(crate) fn remove_in_place(&self, path: &str) -> Result<()> {
        let path = Inside::parse(path)?;
        let (dir, last) = self.removable(&path)?;
        let failed = |error: std::io::Error| VolumeError::of(&path.shown(), error);
        match rustix::fs::unlinkat(&dir, last, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // By way of the descriptor: the kernel resolved what is above, beneath the volume.
            Err(Errno::ISDIR) => {
                let shown = format!("/proc/self/fd/{}/{last}", dir.as_raw_fd());
                std::fs::remove_dir_all(shown).map_err(failed)
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The directory that an entry is in, and its name there.
    fn removable<'a>(&self, path: &'a Inside) -> Result<(OwnedFd, &'a str)> {
        let Some((above, last)) = path.split() else {
            let text = "the volume's root cannot be removed; delete the volume".to_owned();
            return Err(VolumeError::Invalid(text));
        };
        Ok((self.directory(&above)?, last))
    }

    /// Opens a directory; links to directories of the volume are followed.
    pub(crate) fn directory(&self, path: &Inside) -> Result<OwnedFd> {
        self.resolve(path, DIRECTORY)
    }

    pub(crate) fn make_directories(&self, path: &Inside) -> Result<OwnedFd> {
        let mut at = Inside::parse("/")?;
        let mut dir = self.directory(&at)?;
        for name in path.names() {
            at = at.join(name);
            match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(VolumeError::of(&at.shown(), error)),
            }
            dir = self.directory(&at)?;
        }
        Ok(dir)
    }

    /// The only way by which paths become descriptors.
    fn resolve(&self, path: &Inside, flags: OFlags) -> Result<OwnedFd> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let opened =
            rustix::fs::openat2(&self.root, path.relative(), flags, Mode::empty(), beneath);
        opened.map_err(|error| VolumeError::of(&path.shown(), error))
    }

    /// Whether there is something at `name` in `dir`.
    pub(crate) fn kind(dir: BorrowedFd<'_>, name: &str, shown: &str) -> Result<Option<EntryKind>> {
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(entry(&stat, &Inside::parse(name)?).kind)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(VolumeError::of(shown, error)),
        }
    }

    pub(crate) fn checked(set: Attributes) -> Result<Attributes> {
        set.check().map(|()| set)
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
