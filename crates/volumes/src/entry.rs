//! What is known of a file.

use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, Stat};

use crate::path::Inside;
use crate::{Result, VolumeError};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    /// A socket, pipe or device.
    Other,
}

/// One entry, links not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Empty for the volume itself.
    pub name: String,
    /// From the volume's root: `/dir/file`.
    pub path: String,
    pub kind: EntryKind,
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub accessed: SystemTime,
    pub modified: SystemTime,
    pub changed: SystemTime,
    /// The text of a symbolic link.
    pub target: Option<String>,
}

/// The entry called `name` in the directory `dir`, which is at `path` in its volume.
pub(crate) fn entry_at(dir: BorrowedFd<'_>, name: &str, path: &Inside) -> Result<Entry> {
    let shown = path.shown();
    let failed = |error: rustix::io::Errno| VolumeError::of(&shown, error);
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    let mut entry = entry(&stat, path);
    if entry.kind == EntryKind::Symlink {
        let text = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed)?;
        entry.target = Some(text.to_string_lossy().into_owned());
    }
    Ok(entry)
}

pub(crate) fn entry(stat: &Stat, path: &Inside) -> Entry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        _ => EntryKind::Other,
    };
    Entry {
        name: path.names().last().cloned().unwrap_or_default(),
        path: path.shown(),
        kind,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        accessed: time(stat.st_atime, stat.st_atime_nsec),
        modified: time(stat.st_mtime, stat.st_mtime_nsec),
        changed: time(stat.st_ctime, stat.st_ctime_nsec),
        target: None,
    }
}

/// Times before 1970 read as 1970.
fn time(seconds: i64, nanos: u64) -> SystemTime {
    let since = Duration::new(u64::try_from(seconds).unwrap_or(0), 0);
    SystemTime::UNIX_EPOCH + since + Duration::from_nanos(nanos)
}
