//! The directory an archive is unpacked into. Every name is resolved from its descriptor, and the
//! last component is never followed, so nothing outside can be reached.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::process::{Gid, Uid};
use tar::EntryType;

use super::archive::{Archive, Entry};
use super::{MAX_ID, UnpackError, UnpackStats, Whiteouts};
use crate::blocking::Cancelled;
use crate::vfs;

/// Components of one path at most.
const MAX_DEPTH: usize = 512;
const COPY_BUFFER: usize = 128 * 1024;

pub(super) struct Tree {
    root: OwnedFd,
    whiteouts: Whiteouts,
    stats: UnpackStats,
    /// Set at the end, since writing into a directory changes them.
    dir_times: BTreeMap<Vec<u8>, (i64, i64)>,
    /// The directory written to last, with its path: archives list a directory's files together.
    parent: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
}

/// A checked path: the directory part and the last component. `name` is empty for the root.
struct Target {
    parent: Vec<u8>,
    name: Vec<u8>,
}

impl Tree {
    pub(super) fn open(dir: &Path, whiteouts: Whiteouts) -> Result<Self, UnpackError> {
        Ok(Self {
            root: vfs::open_dir(dir)?,
            whiteouts,
            stats: UnpackStats::default(),
            dir_times: BTreeMap::new(),
            parent: None,
            buffer: vec![0; COPY_BUFFER],
        })
    }

    /// Unpacks one entry; a file's data comes from `data`.
    pub(super) fn write<R: Read>(
        &mut self,
        entry: &Entry,
        data: &mut Archive<R>,
        cancelled: &Cancelled,
    ) -> Result<(), UnpackError> {
        let target = check_path(&entry.path)?;
        for id in [entry.uid, entry.gid] {
            if id > MAX_ID {
                return Err(UnpackError::IdTooLarge {
                    path: shown(&entry.path),
                    id,
                });
            }
        }
        if matches!(entry.kind, EntryType::Char | EntryType::Block) {
            self.stats.skipped_devices += 1;
            return Ok(());
        }
        if target.name.is_empty() {
            return self.write_root(entry);
        }
        let parent = self
            .parent(&target.parent)
            .map_err(write_error(&entry.path))?;
        let done = if self.whiteouts == Whiteouts::Oci && target.name.starts_with(b".wh.") {
            hide(parent.as_fd(), &target.name)
        } else {
            self.create(parent.as_fd(), &target, entry, data, cancelled)
        };
        self.parent = Some((target.parent, parent));
        match done {
            Ok(()) => self.stats.entries += 1,
            Err(UnpackError::Io(error)) => return Err(write_error(&entry.path)(error)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Sets what had to wait until everything was written.
    pub(super) fn finish(mut self) -> Result<UnpackStats, UnpackError> {
        // Children first: nothing below changes a directory after its own turn.
        for (path, time) in std::mem::take(&mut self.dir_times).iter().rev() {
            // It may have been replaced by something else later in the archive.
            if let Ok(dir) = vfs::open_dir_in_root(&self.root, vfs::os(path)) {
                vfs::set_mtime(&dir, ".", *time).map_err(write_error(path))?;
            }
        }
        Ok(self.stats)
    }

    fn write_root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != EntryType::Directory {
            return Err(refused(&entry.path, "would replace the root directory"));
        }
        let root = self.root.try_clone()?;
        self.dress(root.as_fd(), entry)?;
        self.dir_times.insert(Vec::new(), entry.mtime);
        self.stats.entries += 1;
        Ok(())
    }

    /// Opens (and makes, where missing) the directory an entry goes into.
    fn parent(&mut self, path: &[u8]) -> io::Result<OwnedFd> {
        if let Some((_, fd)) = self.parent.take_if(|(known, _)| known == path) {
            return Ok(fd);
        }
        match vfs::open_dir_in_root(&self.root, vfs::os(path)) {
            // Perhaps a whiteout is in the way: looked at component by component.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            done => return done,
        }
        let mut dir = self.root.try_clone()?;
        let mut end = 0;
        for name in path.split(|&b| b == b'/') {
            end += name.len() + usize::from(end > 0);
            dir = match vfs::open_dir_in_root(&self.root, vfs::os(&path[..end])) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make_dir(dir.as_fd(), name)?
                }
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    match vfs::stat_at(&dir, name)? {
                        Some(stat) if vfs::is_whiteout(&stat) => make_dir(dir.as_fd(), name)?,
                        _ => return Err(error),
                    }
                }
                done => done?,
            };
        }
        Ok(dir)
    }

    fn create<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        target: &Target,
        entry: &Entry,
        data: &mut Archive<R>,
        cancelled: &Cancelled,
    ) -> Result<(), UnpackError> {
        let name = target.name.as_slice();
        if entry.kind == EntryType::Directory {
            let dir = make_dir(parent, name)?;
            self.dress(dir.as_fd(), entry)?;
            self.dir_times
                .insert(join(&target.parent, name), entry.mtime);
            return Ok(());
        }
        // A hard link to itself must not remove its only name.
        let linked = match entry.kind {
            EntryType::Link => match self.link_source(entry)? {
                (dir, source) if same(&dir, &source, parent, name)? => return Ok(()),
                found => Some(found),
            },
            _ => None,
        };
        clear(parent, name, &entry.path)?;
        match entry.kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.write_file(parent, name, entry, data, cancelled)?;
                vfs::set_mtime(parent, name, entry.mtime)?;
            }
            EntryType::Symlink => {
                check_link(entry)?;
                rustix::fs::symlinkat(vfs::os(&entry.link), parent, name)
                    .map_err(io::Error::from)?;
                let (uid, gid) = owner(entry);
                rustix::fs::chownat(
                    parent,
                    name,
                    Some(uid),
                    Some(gid),
                    AtFlags::SYMLINK_NOFOLLOW,
                )
                .map_err(io::Error::from)?;
                vfs::set_mtime(parent, name, entry.mtime)?;
            }
            EntryType::Link => {
                if let Some((dir, source)) = linked {
                    rustix::fs::linkat(dir, source.as_slice(), parent, name, AtFlags::empty())
                        .map_err(io::Error::from)?;
                }
            }
            EntryType::Fifo => {
                let mode = vfs::mode_of(entry.mode);
                rustix::fs::mknodat(parent, name, FileType::Fifo, mode, 0)
                    .map_err(io::Error::from)?;
                let (uid, gid) = owner(entry);
                rustix::fs::chownat(
                    parent,
                    name,
                    Some(uid),
                    Some(gid),
                    AtFlags::SYMLINK_NOFOLLOW,
                )
                .map_err(io::Error::from)?;
                // Just made, in a directory nobody else writes to: it is the fifo, not a link.
                rustix::fs::chmodat(parent, name, mode, AtFlags::empty())
                    .map_err(io::Error::from)?;
                vfs::set_mtime(parent, name, entry.mtime)?;
            }
            _ => return Err(refused(&entry.path, "has a type that is not supported")),
        }
        Ok(())
    }

    fn write_file<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        data: &mut Archive<R>,
        cancelled: &Cancelled,
    ) -> Result<(), UnpackError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(io::Error::from)?;
        let mut file = File::from(fd);
        loop {
            if cancelled.is_set() {
                return Err(UnpackError::Cancelled);
            }
            let got = data.read(&mut self.buffer)?;
            if got == 0 {
                break;
            }
            file.write_all(&self.buffer[..got])?;
        }
        self.stats.bytes += entry.size;
        self.dress(file.as_fd(), entry)
    }

    /// Owner, attributes and mode of an open file, in the order in which they survive each other.
    fn dress(&mut self, fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), UnpackError> {
        let (uid, gid) = owner(entry);
        rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(io::Error::from)?;
        rustix::fs::fchmod(fd, vfs::mode_of(entry.mode)).map_err(io::Error::from)?;
        for (name, value) in &entry.xattrs {
            if !xattr_allowed(name, value) {
                self.stats.skipped_xattrs += 1;
                continue;
            }
            let none = rustix::fs::XattrFlags::empty();
            rustix::fs::fsetxattr(fd, name.as_str(), value, none).map_err(io::Error::from)?;
        }
        Ok(())
    }

    /// The directory and name of a hard link's source, which must be in this archive.
    fn link_source(&self, entry: &Entry) -> Result<(OwnedFd, Vec<u8>), UnpackError> {
        let source = check_path(&entry.link)
            .map_err(|_| refused(&entry.path, "is a hard link out of the archive"))?;
        let missing = || {
            refused(
                &entry.path,
                "is a hard link to a file that the archive lacks",
            )
        };
        let dir =
            vfs::open_dir_in_root(&self.root, vfs::os(&source.parent)).map_err(|_| missing())?;
        match vfs::stat_at(&dir, source.name.as_slice()) {
            Ok(Some(stat)) if vfs::is_whiteout(&stat) => Err(missing()),
            Ok(Some(stat)) if vfs::kind(&stat) != FileType::Directory => Ok((dir, source.name)),
            _ => Err(missing()),
        }
    }
}

/// Carries out `.wh.` entries. A name that this very archive brings is not hidden: deletions
/// concern the layers below.
fn hide(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), UnpackError> {
    if name == b".wh..wh..opq" {
        return Ok(vfs::set_opaque(parent)?);
    }
    if name.starts_with(b".wh..wh.") {
        // Bookkeeping of other union filesystems.
        return Ok(());
    }
    let hidden = &name[b".wh.".len()..];
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(refused(name, "is a whiteout without a name"));
    }
    match vfs::stat_at(parent, hidden)? {
        None => Ok(vfs::make_whiteout(parent, hidden)?),
        Some(stat) if vfs::kind(&stat) == FileType::Directory => {
            Ok(vfs::set_opaque(vfs::open_subdir(parent, hidden)?)?)
        }
        Some(_) => Ok(()),
    }
}

/// Opens the directory `name`, made or put in the place of a file where needed. One that takes
/// the place of a whiteout is opaque: what it hid stays hidden.
fn make_dir(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let mut opaque = false;
    match vfs::stat_at(parent, name)? {
        Some(stat) if vfs::kind(&stat) == FileType::Directory => {
            return vfs::open_subdir(parent, name);
        }
        Some(stat) => {
            opaque = vfs::is_whiteout(&stat);
            rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
        }
        None => {}
    }
    rustix::fs::mkdirat(parent, name, vfs::mode_of(0o755))?;
    let dir = vfs::open_subdir(parent, name)?;
    rustix::fs::fchmod(&dir, vfs::mode_of(0o755))?;
    if opaque {
        vfs::set_opaque(&dir)?;
    }
    Ok(dir)
}

fn clear(parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
    match vfs::stat_at(parent, name)? {
        None => Ok(()),
        Some(stat) if vfs::kind(&stat) == FileType::Directory => {
            rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
                .map_err(|_| refused(path, "would replace a directory that is not empty"))
        }
        Some(_) => {
            Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(io::Error::from)?)
        }
    }
}

fn same(dir: &OwnedFd, source: &[u8], parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    let (a, b) = (vfs::stat_at(dir, source)?, vfs::stat_at(parent, name)?);
    Ok(matches!((a, b), (Some(a), Some(b)) if a.st_ino == b.st_ino && a.st_dev == b.st_dev))
}

/// Leading slashes and `.` are dropped; `..` and NUL are refused.
fn check_path(path: &[u8]) -> Result<Target, UnpackError> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(refused(path, "leads out of the archive")),
            name if name.len() > 255 => return Err(refused(path, "has a name that is too long")),
            name if name.contains(&0) => return Err(refused(path, "has a NUL in its name")),
            name => parts.push(name),
        }
    }
    if parts.len() > MAX_DEPTH || path.len() > 4095 {
        return Err(refused(path, "has a path that is too long"));
    }
    let name = parts.pop().unwrap_or_default().to_vec();
    Ok(Target {
        parent: parts.join(&b'/'),
        name,
    })
}

fn check_link(entry: &Entry) -> Result<(), UnpackError> {
    if entry.link.is_empty() || entry.link.len() > 4095 || entry.link.contains(&0) {
        return Err(refused(
            &entry.path,
            "is a symlink with an impossible target",
        ));
    }
    Ok(())
}

/// `user.*` and file capabilities of the plain kind (or bound to root). Nothing else: an archive
/// must not speak to overlayfs (`trusted.*`) or to the host's security modules.
fn xattr_allowed(name: &str, value: &[u8]) -> bool {
    const VERSION_2: u8 = 2;
    const VERSION_3: u8 = 3;
    if let Some(rest) = name.strip_prefix("user.") {
        return !rest.is_empty() && name.len() <= 255 && !name.contains('\0');
    }
    name == "security.capability"
        && match (value.len(), value.get(3)) {
            (20, Some(&VERSION_2)) => true,
            (24, Some(&VERSION_3)) => value[20..] == [0; 4],
            _ => false,
        }
}

fn owner(entry: &Entry) -> (Uid, Gid) {
    let id = |id: u64| u32::try_from(id.min(MAX_ID)).unwrap_or(0);
    (Uid::from_raw(id(entry.uid)), Gid::from_raw(id(entry.gid)))
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        name.to_vec()
    } else {
        [parent, b"/", name].concat()
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned()
}

fn refused(path: &[u8], problem: &'static str) -> UnpackError {
    UnpackError::Entry {
        path: shown(path),
        problem,
    }
}

fn write_error(path: &[u8]) -> impl FnOnce(io::Error) -> UnpackError {
    move |source| UnpackError::Write {
        path: shown(path),
        source,
    }
}
