//! Copies single files, links and pipes with what belongs to them.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, SeekFrom, Stat, Timestamps, XattrFlags, chownat, fchmod,
        fchown, fgetxattr, flistxattr, flistxattr_query, fsetxattr, fstat, futimens, mkfifoat,
        openat, readlinkat, seek, symlinkat, utimensat,
    },
    io::Errno,
    process::{Gid, Uid},
    time::Timespec,
};

use super::tree::Step;

/// The names of all attributes of one file, or the value of one; the kernel allows no more.
const XATTR_MAX: usize = 64 << 10;
const PERMISSION_BITS: u32 = 0o7777;
const SET_ID_BITS: u32 = 0o6000;
/// For us alone, until it is whole.
const OURS: Mode = Mode::RUSR.union(Mode::WUSR);

/// A regular file. Holes stay holes, where file systems tell of them.
pub(super) fn file(step: &Step<'_>, stat: &Stat) -> Result<(), Errno> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let from = openat(step.from, step.name, flags | OFlags::RDONLY, Mode::empty())?;
    if !is(&from, FileType::RegularFile)? {
        return Err(Errno::AGAIN);
    }
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let to = openat(step.to, step.copy, flags | new, OURS)?;
    let (from, to) = (File::from(from), File::from(to));
    content(&from, &to).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    dress(from.as_fd(), to.as_fd(), stat)
}

/// A symbolic link, as a link with the same text.
pub(super) fn link(step: &Step<'_>, stat: &Stat) -> Result<(), Errno> {
    let text = readlinkat(step.from, step.name, Vec::new())?;
    symlinkat(&text, step.to, step.copy)?;
    let (uid, gid) = owner(stat);
    let itself = AtFlags::SYMLINK_NOFOLLOW;
    given(chownat(step.to, step.copy, uid, gid, itself))?;
    utimensat(step.to, step.copy, &times(stat), itself)
}

/// A named pipe; what is in it stays with those who have it open.
pub(super) fn fifo(step: &Step<'_>, stat: &Stat) -> Result<(), Errno> {
    mkfifoat(step.to, step.copy, OURS)?;
    // For both, so that it does not wait for another end.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = openat(step.to, step.copy, flags, Mode::empty())?;
    if !is(&to, FileType::Fifo)? {
        return Err(Errno::AGAIN);
    }
    let given = give(to.as_fd(), stat)?;
    set(to.as_fd(), stat, given)
}

/// Attributes, owner, permissions and times of a file or directory.
pub(super) fn dress(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    // After the owner, whose change takes capabilities away; before the permissions, which an
    // attribute may hold as well.
    let given = give(to, stat)?;
    attributes(from, to)?;
    set(to, stat, given)
}

/// Permissions and times.
fn set(to: BorrowedFd<'_>, stat: &Stat, given: Given) -> Result<(), Errno> {
    let bits = match given {
        Given::Away => PERMISSION_BITS,
        // Nobody is to run it as us.
        Given::Kept => PERMISSION_BITS & !SET_ID_BITS,
    };
    fchmod(to, Mode::from_raw_mode(stat.st_mode & bits))?;
    futimens(to, &times(stat))
}

/// Whose a copy is.
enum Given {
    /// Its owner's.
    Away,
    /// Ours: we may not give files away.
    Kept,
}

fn give(to: BorrowedFd<'_>, stat: &Stat) -> Result<Given, Errno> {
    let (uid, gid) = owner(stat);
    given(fchown(to, uid, gid))
}

fn given(result: Result<(), Errno>) -> Result<Given, Errno> {
    match result {
        Ok(()) => Ok(Given::Away),
        Err(Errno::PERM) => Ok(Given::Kept),
        Err(e) => Err(e),
    }
}

fn is(fd: impl AsFd, kind: FileType) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == kind)
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    (Some(uid), Some(gid))
}

fn times(stat: &Stat) -> Timestamps {
    let at = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds as i64,
    };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn content(from: &File, to: &File) -> io::Result<()> {
    let len = from.metadata()?.len();
    let mut at = 0;
    while at < len {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(_) => at,
        };
        let end = seek(from, SeekFrom::Hole(start)).unwrap_or(len);
        seek(from, SeekFrom::Start(start))?;
        seek(to, SeekFrom::Start(start))?;
        // The kernel copies, or shares, without the bytes coming here, where it can.
        let copied = io::copy(&mut from.take(end.saturating_sub(start)), &mut &*to)?;
        if copied == 0 {
            break;
        }
        at = start + copied;
    }
    // Shorter, if it was cut meanwhile.
    let len = from.metadata()?.len().min(len);
    if to.metadata()?.len() < len {
        to.set_len(len)?;
    }
    Ok(())
}

/// Extended attributes, as far as there are such on the other file system and we may set them.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    if flistxattr_query(from).unwrap_or(0) == 0 {
        return Ok(());
    }
    let mut names = vec![0u8; XATTR_MAX];
    let len = flistxattr(from, &mut names[..])?;
    let names = names.get(..len).unwrap_or_default().split(|b| *b == 0);
    let mut value = vec![0u8; XATTR_MAX];
    for name in names.filter(|name| !name.is_empty()) {
        let copied = fgetxattr(from, name, &mut value[..]).and_then(|len| {
            let value = value.get(..len).unwrap_or_default();
            fsetxattr(to, name, value, XattrFlags::empty())
        });
        match copied {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::NODATA | Errno::INVAL) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
