//! Small pieces over the `*at` calls that the store, the unpacker and the builders share.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, Timespec, Timestamps,
};

pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";
/// Extended attributes read per file at most (the kernel's own limit for the list).
const MAX_XATTR_LIST: usize = 64 * 1024;

const DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Opens a directory that the caller of this crate named.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, DIR, Mode::empty())?)
}

/// Opens the directory `name` in `dir`; a symlink there is an error.
pub(crate) fn open_subdir(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        dir,
        name,
        DIR | OFlags::NOFOLLOW,
        Mode::empty(),
    )?)
}

/// Opens the directory `path` as if `root` were `/`: symlinks are followed, never out of it.
pub(crate) fn open_dir_in_root(root: impl AsFd, path: &OsStr) -> io::Result<OwnedFd> {
    let path = if path.is_empty() {
        OsStr::new(".")
    } else {
        path
    };
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(root, path, DIR, Mode::empty(), inside)?)
}

/// Opens the directory `path` beneath `root`; any symlink on the way is an error.
pub(crate) fn open_dir_beneath(root: impl AsFd, path: &OsStr) -> io::Result<OwnedFd> {
    let path = if path.is_empty() {
        OsStr::new(".")
    } else {
        path
    };
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(
        root,
        path,
        DIR,
        Mode::empty(),
        beneath,
    )?)
}

/// Opens the regular file `path` as if `root` were `/`, for reading. Never blocks on a fifo.
pub(crate) fn open_file_in_root(root: impl AsFd, path: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    regular(rustix::fs::openat2(
        root,
        path,
        flags,
        Mode::empty(),
        inside,
    )?)
}

/// Opens the regular file `name` in `dir`; a symlink there is an error.
pub(crate) fn open_file(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<File> {
    let flags =
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    regular(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

fn regular(fd: OwnedFd) -> io::Result<File> {
    let stat = rustix::fs::fstat(&fd)?;
    if kind(&stat) != FileType::RegularFile {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok(File::from(fd))
}

/// `None` when nothing is there; symlinks are not followed.
pub(crate) fn stat_at(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn mode_of(bits: u32) -> Mode {
    Mode::from_raw_mode(bits & 0o7777)
}

/// Makes `name` hide whatever layers below have there.
pub(crate) fn make_whiteout(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<()> {
    Ok(rustix::fs::mknodat(
        dir,
        name,
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )?)
}

pub(crate) fn set_opaque(dir: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(
        dir,
        OPAQUE,
        b"y",
        rustix::fs::XattrFlags::empty(),
    )?)
}

pub(crate) fn is_opaque(dir: impl AsFd) -> io::Result<bool> {
    let mut value = [0_u8; 1];
    match rustix::fs::fgetxattr(dir, OPAQUE, &mut value) {
        Ok(len) => Ok(len == 1 && value[0] == b'y'),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(rustix::io::Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sets the modification time of `name` (not of what it points to); seconds may be negative.
pub(crate) fn set_mtime(
    dir: impl AsFd,
    name: impl rustix::path::Arg,
    (sec, nsec): (i64, i64),
) -> io::Result<()> {
    let time = Timespec {
        tv_sec: sec,
        tv_nsec: nsec,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        dir,
        name,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Names in a directory, sorted, without `.` and `..`.
pub(crate) fn names(dir: impl AsFd) -> io::Result<Vec<CString>> {
    // A fresh description, so that a position left by an earlier listing does not matter.
    let dir = rustix::fs::openat(dir, ".", DIR, Mode::empty())?;
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut list = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = list.next() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Extended attributes of an open file or directory, sorted by name.
pub(crate) fn xattrs(fd: impl AsFd) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let mut list = vec![0_u8; MAX_XATTR_LIST];
    let len = match rustix::fs::flistxattr(&fd, &mut list) {
        Ok(len) => len,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    let mut value = vec![0_u8; MAX_XATTR_LIST];
    for name in list[..len].split_inclusive(|&b| b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let len = rustix::fs::fgetxattr(&fd, name, &mut value)?;
        found.push((name.to_owned(), value[..len].to_vec()));
    }
    found.sort_unstable();
    Ok(found)
}

pub(crate) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// Makes everything written so far to `dir`'s filesystem durable.
pub(crate) fn sync_filesystem(dir: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(dir)?)
}
