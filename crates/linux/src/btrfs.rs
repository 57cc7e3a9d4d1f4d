//! Subvolumes and simple quotas of btrfs, by its ioctls.
//!
//! Numbers and structures are those of `include/uapi/linux/btrfs.h`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

/// `BTRFS_SUPER_MAGIC`.
pub const MAGIC: i64 = 0x9123_683E;

const SUBVOL_CREATE: libc::c_ulong = 0x5000_940e;
const SNAP_DESTROY: libc::c_ulong = 0x5000_940f;
const SNAP_CREATE_V2: libc::c_ulong = 0x5000_9417;
const QUOTA_CTL: libc::c_ulong = 0xc010_9428;
const QGROUP_LIMIT: libc::c_ulong = 0x8030_942b;
const INO_LOOKUP: libc::c_ulong = 0xd000_9412;
const TREE_SEARCH: libc::c_ulong = 0xd000_9411;

/// `BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA`, kernel 6.7.
const ENABLE_SIMPLE_QUOTA: u64 = 4;
const LIMIT_MAX_REFERENCED: u64 = 1;
const FIRST_FREE_OBJECTID: u64 = 256;
const QUOTA_TREE: u64 = 8;
const QGROUP_INFO_KEY: u32 = 242;
const SUBVOL_RDONLY: u64 = 2;

#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}

#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

#[repr(C)]
struct QuotaCtl {
    cmd: u64,
    status: u64,
}

#[repr(C)]
struct QgroupLimit {
    qgroupid: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

#[repr(C)]
struct InoLookup {
    treeid: u64,
    objectid: u64,
    name: [u8; 4080],
}

#[repr(C)]
struct SearchKey {
    tree_id: u64,
    min_objectid: u64,
    max_objectid: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    nr_items: u32,
    unused: u32,
    unused_more: [u64; 4],
}

#[repr(C)]
struct SearchArgs {
    key: SearchKey,
    buf: [u8; 3992],
}

fn ioctl<T>(fd: impl AsFd, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: each caller passes the structure that its request reads and writes, of that size.
    let rc = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn fill(name: &OsStr, into: &mut [u8]) -> io::Result<()> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > 255 || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a subvolume name"));
    }
    into[..bytes.len()].copy_from_slice(bytes);
    Ok(())
}

/// Makes an empty subvolume in the directory `parent`.
pub fn subvolume_create(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    let mut args = VolArgs { fd: 0, name: [0; 4088] };
    fill(name, &mut args.name)?;
    ioctl(parent, SUBVOL_CREATE, &mut args)
}

/// Removes a subvolume with everything in it; its space is freed in the background.
pub fn subvolume_delete(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    let mut args = VolArgs { fd: 0, name: [0; 4088] };
    fill(name, &mut args.name)?;
    ioctl(parent, SNAP_DESTROY, &mut args)
}

/// Whether a snapshot can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

/// Snapshots the subvolume `source` as `name` in the directory `parent`.
pub fn subvolume_snapshot(
    parent: impl AsFd,
    name: &OsStr,
    source: impl AsFd,
    access: Access,
) -> io::Result<()> {
    let flags = match access {
        Access::ReadOnly => SUBVOL_RDONLY,
        Access::ReadWrite => 0,
    };
    let fd = i64::from(source.as_fd().as_raw_fd());
    let mut args = VolArgsV2 { fd, transid: 0, flags, unused: [0; 4], name: [0; 4040] };
    fill(name, &mut args.name)?;
    ioctl(parent, SNAP_CREATE_V2, &mut args)
}

/// Switches simple quotas on for the file system of `fd`. Already on is fine.
pub fn quota_enable(fd: impl AsFd) -> io::Result<()> {
    let mut args = QuotaCtl { cmd: ENABLE_SIMPLE_QUOTA, status: 0 };
    match ioctl(fd, QUOTA_CTL, &mut args) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

/// Limits what the subvolume of `fd` may hold. Writes over it fail with `EDQUOT`.
pub fn limit(subvolume: impl AsFd, bytes: u64) -> io::Result<()> {
    let mut args = QgroupLimit {
        qgroupid: 0,
        flags: LIMIT_MAX_REFERENCED,
        max_referenced: bytes,
        max_exclusive: 0,
        reserved_referenced: 0,
        reserved_exclusive: 0,
    };
    ioctl(subvolume, QGROUP_LIMIT, &mut args)
}

/// Bytes that the subvolume of `fd` holds, by its quota; `None` if it has none.
pub fn usage(subvolume: impl AsFd) -> io::Result<Option<u64>> {
    let mut lookup = InoLookup { treeid: 0, objectid: FIRST_FREE_OBJECTID, name: [0; 4080] };
    ioctl(subvolume.as_fd(), INO_LOOKUP, &mut lookup)?;
    let mut search = SearchArgs {
        key: SearchKey {
            tree_id: QUOTA_TREE,
            min_objectid: 0,
            max_objectid: 0,
            min_offset: lookup.treeid,
            max_offset: lookup.treeid,
            min_transid: 0,
            max_transid: u64::MAX,
            min_type: QGROUP_INFO_KEY,
            max_type: QGROUP_INFO_KEY,
            nr_items: 1,
            unused: 0,
            unused_more: [0; 4],
        },
        buf: [0; 3992],
    };
    match ioctl(subvolume, TREE_SEARCH, &mut search) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        result => result?,
    }
    if search.key.nr_items == 0 {
        return Ok(None);
    }
    // A header of 32 bytes, then generation and referenced bytes, both little-endian.
    let referenced: [u8; 8] = search.buf[40..48].try_into().map_err(io::Error::other)?;
    Ok(Some(u64::from_le_bytes(referenced)))
}
