//! Subvolumes and their quotas, by ioctl.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

mod raw;

use raw::{
    LookupArgs, QgroupLimit, QuotaCtl, SearchArgs, VolumeArgs, VolumeArgsV2, ioctl, quota_item,
};

const SUPER_MAGIC: i64 = 0x9123_683e;
/// `btrfs_ioctl_quota_ctl_args.cmd`: simple quotas, which count at allocation (kernel 6.7).
const ENABLE_SIMPLE_QUOTA: u64 = 4;
/// Quota groups, which count by back references.
const ENABLE_QUOTA: u64 = 1;
const LIMIT_MAX_REFERENCED: u64 = 1;

/// Whether `path` is on btrfs.
pub fn is_btrfs(path: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statfs(path)?.f_type as i64 & 0xffff_ffff == SUPER_MAGIC)
}

/// Makes an empty subvolume at `path`, which must not exist. Owned by the caller, mode 0755.
pub fn create_subvolume(path: &Path) -> io::Result<()> {
    let (parent, name) = split(path)?;
    let args = VolumeArgs::new(-1, name)?;
    ioctl(parent.as_fd(), raw::SUBVOL_CREATE, &args)
}

/// Makes a writable snapshot of the subvolume `source` at `path`, which must not exist.
pub fn snapshot(source: &Path, path: &Path) -> io::Result<()> {
    snapshot_with(source, path, 0)
}

/// Makes a snapshot of the subvolume `source` at `path` that nobody can change. When this returns
/// it is on disk as a whole: its name, and all that was written to `source` before.
pub fn snapshot_read_only(source: &Path, path: &Path) -> io::Result<()> {
    snapshot_with(source, path, raw::READ_ONLY)
}

fn snapshot_with(source: &Path, path: &Path, flags: u64) -> io::Result<()> {
    let source = File::open(source)?;
    let (parent, name) = split(path)?;
    let args = VolumeArgsV2::new(i64::from(source.as_raw_fd()), name, flags)?;
    ioctl(parent.as_fd(), raw::SNAP_CREATE_V2, &args)
}

/// Makes a range of `to` the same blocks as a range of `from`, without copying them. All numbers
/// are multiples of the block size, but for a range that ends with its file.
pub fn share_range(from: &File, from_at: u64, len: u64, to: &File, to_at: u64) -> io::Result<()> {
    let args = raw::CloneRange {
        from: i64::from(from.as_raw_fd()),
        from_at,
        len,
        to_at,
    };
    ioctl(to.as_fd(), raw::CLONE_RANGE, &args)
}

/// Removes the subvolume at `path` with all that is in it (but not subvolumes in it). Its space
/// comes back later.
pub fn delete_subvolume(path: &Path) -> io::Result<()> {
    let (parent, name) = split(path)?;
    let args = VolumeArgs::new(0, name)?;
    ioctl(parent.as_fd(), raw::SNAP_DESTROY, &args)
}

/// Turns on quotas for the whole file system that `path` is on: simple ones, or quota groups where
/// the kernel (before 6.7) has no others. Leaves on what is on already, of either kind.
pub fn enable_quotas(path: &Path) -> io::Result<()> {
    match switch_quotas(path, ENABLE_SIMPLE_QUOTA) {
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::EINVAL | libc::ENOTTY | libc::EOPNOTSUPP)
            ) =>
        {
            enable_quota_groups(path)
        }
        other => other,
    }
}

/// Turns on quota groups: slower than simple quotas, and in every kernel.
pub fn enable_quota_groups(path: &Path) -> io::Result<()> {
    switch_quotas(path, ENABLE_QUOTA)
}

fn switch_quotas(path: &Path, cmd: u64) -> io::Result<()> {
    let dir = File::open(path)?;
    match ioctl(dir.as_fd(), raw::QUOTA_CTL, &QuotaCtl { cmd, status: 0 }) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// Limits how much the subvolume at `path` refers to. Writes beyond it give `EDQUOT`. A snapshot
/// has no limit until it is given one.
pub fn limit(path: &Path, bytes: u64) -> io::Result<()> {
    let dir = File::open(path)?;
    // Quota group 0 stands for that of the subvolume the descriptor is in.
    let args = QgroupLimit {
        qgroupid: 0,
        flags: LIMIT_MAX_REFERENCED,
        max_referenced: bytes,
        ..QgroupLimit::default()
    };
    ioctl(dir.as_fd(), raw::QGROUP_LIMIT, &args)
}

/// What the subvolume at `path` is charged for, in bytes, as of the last commit of the file
/// system (at most 30 s ago; `sync` makes one).
pub fn used(path: &Path) -> io::Result<u64> {
    let dir = File::open(path)?;
    let lookup = LookupArgs::of_subvolume();
    ioctl(dir.as_fd(), raw::INO_LOOKUP, &lookup)?;
    let search = SearchArgs::for_quota(lookup.tree());
    ioctl(dir.as_fd(), raw::TREE_SEARCH, &search)?;
    quota_item(&search)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no quota group for the subvolume"))
}

fn split(path: &Path) -> io::Result<(File, &OsStr)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not a path to a subvolume");
    let parent = path.parent().ok_or_else(invalid)?;
    Ok((File::open(parent)?, path.file_name().ok_or_else(invalid)?))
}

fn name_bytes<const N: usize>(name: &OsStr) -> io::Result<[u8; N]> {
    let bytes = name.as_bytes();
    if bytes.len() > 255 || bytes.contains(&0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a name of a subvolume",
        ));
    }
    let mut field = [0; N];
    field[..bytes.len()].copy_from_slice(bytes);
    Ok(field)
}
