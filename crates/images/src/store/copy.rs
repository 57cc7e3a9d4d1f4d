//! Copies a layer's tree faithfully, sharing extents with the source where the filesystem can.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::process::{Gid, Uid};

use super::content::kept;
use crate::vfs;

struct Copy {
    root: OwnedFd,
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// Makes `to`, a copy of the directory `from`: owners, modes, times, attributes, hard links and
/// whiteouts included. The source was checked before (no devices, no sockets, bounded depth).
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    super::make_root(to)?;
    let (source, root) = (vfs::open_dir(from)?, vfs::open_dir(to)?);
    let target = root.try_clone()?;
    let mut copy = Copy {
        root,
        links: HashMap::new(),
    };
    copy.dir(source.as_fd(), target.as_fd(), &mut Vec::new())
}

impl Copy {
    fn dir(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &mut Vec<u8>,
    ) -> io::Result<()> {
        for name in vfs::names(from)? {
            let before = path.len();
            if before > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            let stat =
                vfs::stat_at(from, &name)?.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            if !self.linked(&stat, to, name.as_bytes(), path)? {
                self.one(from, to, name.as_bytes(), &stat, path)?;
            }
            path.truncate(before);
        }
        let stat = rustix::fs::fstat(from)?;
        dress(from, to, &stat)?;
        vfs::set_mtime(to, ".", mtime(&stat))
    }

    fn one(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        path: &mut Vec<u8>,
    ) -> io::Result<()> {
        match vfs::kind(stat) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let (source, target) = (vfs::open_subdir(from, name)?, vfs::open_subdir(to, name)?);
                return self.dir(source.as_fd(), target.as_fd(), path);
            }
            FileType::RegularFile => {
                let source = vfs::open_file(from, name)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let target = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
                let mut target = File::from(target);
                if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
                    io::copy(&mut &source, &mut target)?;
                }
                dress(source.as_fd(), target.as_fd(), stat)?;
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&link, to, name)?;
                chown_link(to, name, stat)?;
            }
            FileType::Fifo => {
                rustix::fs::mknodat(to, name, FileType::Fifo, vfs::mode_of(stat.st_mode), 0)?;
                chown_link(to, name, stat)?;
                rustix::fs::chmodat(to, name, vfs::mode_of(stat.st_mode), AtFlags::empty())?;
            }
            _ => vfs::make_whiteout(to, name)?,
        }
        vfs::set_mtime(to, name, mtime(stat))
    }

    fn linked(
        &mut self,
        stat: &Stat,
        to: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> io::Result<bool> {
        if stat.st_nlink < 2 || vfs::kind(stat) == FileType::Directory || vfs::is_whiteout(stat) {
            return Ok(false);
        }
        match self.links.get(&(stat.st_dev, stat.st_ino)) {
            Some(first) => {
                rustix::fs::linkat(&self.root, first.as_slice(), to, name, AtFlags::empty())?;
                Ok(true)
            }
            None => {
                self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
                Ok(false)
            }
        }
    }
}

fn dress(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    rustix::fs::fchown(
        to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    rustix::fs::fchmod(to, vfs::mode_of(stat.st_mode))?;
    for (name, value) in vfs::xattrs(from)? {
        if kept(name.as_bytes()) {
            rustix::fs::fsetxattr(to, &name, &value, rustix::fs::XattrFlags::empty())?;
        }
    }
    Ok(())
}

fn chown_link(to: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(rustix::fs::chownat(
        to,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn mtime(stat: &Stat) -> (i64, i64) {
    (
        stat.st_mtime,
        i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
    )
}
