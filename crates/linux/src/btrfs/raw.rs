//! The kernel's structs (`linux/btrfs.h`).

use std::cell::UnsafeCell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::name_bytes;

const MAGIC: u64 = 0x94;
const WRITE: u64 = 1;
const READ: u64 = 2;

/// A request whose argument is a `T`; the size is part of the number.
pub(super) struct Request<T>(u64, std::marker::PhantomData<T>);

const fn request<T>(direction: u64, number: u64) -> Request<T> {
    let code = direction << 30 | (size_of::<T>() as u64) << 16 | MAGIC << 8 | number;
    Request(code, std::marker::PhantomData)
}

pub(super) const SUBVOL_CREATE: Request<VolumeArgs> = request(WRITE, 14);
pub(super) const SNAP_DESTROY: Request<VolumeArgs> = request(WRITE, 15);
pub(super) const SNAP_CREATE_V2: Request<VolumeArgsV2> = request(WRITE, 23);
pub(super) const CLONE_RANGE: Request<CloneRange> = request(WRITE, 13);
/// `BTRFS_SUBVOL_RDONLY`.
pub(super) const READ_ONLY: u64 = 2;
pub(super) const QUOTA_CTL: Request<QuotaCtl> = request(READ | WRITE, 40);
pub(super) const QGROUP_LIMIT: Request<QgroupLimit> = request(READ, 43);
pub(super) const INO_LOOKUP: Request<LookupArgs> = request(READ | WRITE, 18);
pub(super) const TREE_SEARCH: Request<SearchArgs> = request(READ | WRITE, 17);

/// Makes the call. Answers are written through cells of the argument.
pub(super) fn ioctl<T>(fd: BorrowedFd<'_>, request: Request<T>, args: &T) -> io::Result<()> {
    let args = std::ptr::from_ref(args);
    // SAFETY: the request's number says how many bytes of `T` the kernel reads and writes; the
    // types for requests that write keep what is written in an `UnsafeCell`, but for QuotaCtl,
    // whose command used here writes nothing back that differs.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), request.0 as _, args) };
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `struct file_clone_range`.
#[repr(C)]
pub(super) struct CloneRange {
    pub(super) from: i64,
    pub(super) from_at: u64,
    pub(super) len: u64,
    pub(super) to_at: u64,
}

#[repr(C)]
pub(super) struct VolumeArgs {
    fd: i64,
    name: [u8; 4088],
}

impl VolumeArgs {
    pub(super) fn new(fd: i64, name: &OsStr) -> io::Result<Self> {
        Ok(Self {
            fd,
            name: name_bytes(name)?,
        })
    }
}

#[repr(C)]
pub(super) struct VolumeArgsV2 {
    fd: i64,
    transid: UnsafeCell<u64>,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

impl VolumeArgsV2 {
    pub(super) fn new(fd: i64, name: &OsStr, flags: u64) -> io::Result<Self> {
        let transid = UnsafeCell::new(0);
        Ok(Self {
            fd,
            transid,
            flags,
            unused: [0; 4],
            name: name_bytes(name)?,
        })
    }
}

#[repr(C)]
pub(super) struct QuotaCtl {
    pub(super) cmd: u64,
    pub(super) status: u64,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct QgroupLimit {
    pub(super) qgroupid: u64,
    pub(super) flags: u64,
    pub(super) max_referenced: u64,
    pub(super) max_exclusive: u64,
    pub(super) reserved: [u64; 2],
}

#[repr(C)]
pub(super) struct LookupArgs {
    tree: UnsafeCell<u64>,
    object: UnsafeCell<u64>,
    name: UnsafeCell<[u8; 4080]>,
}

impl LookupArgs {
    /// Asks for the tree that the descriptor is in, by way of its root directory.
    pub(super) fn of_subvolume() -> Self {
        const ROOT_DIRECTORY: u64 = 256;
        Self {
            tree: UnsafeCell::new(0),
            object: UnsafeCell::new(ROOT_DIRECTORY),
            name: UnsafeCell::new([0; 4080]),
        }
    }

    pub(super) fn tree(&self) -> u64 {
        // SAFETY: a copy of a plain number; no reference into the cell exists.
        unsafe { *self.tree.get() }
    }
}

/// `btrfs_ioctl_search_args`: the key, then a buffer.
#[repr(C)]
pub(super) struct SearchArgs {
    key: UnsafeCell<SearchKey>,
    buffer: UnsafeCell<[u8; 4096 - size_of::<SearchKey>()]>,
}

#[repr(C)]
struct SearchKey {
    tree: u64,
    object: [u64; 2],
    offset: [u64; 2],
    transaction: [u64; 2],
    kind: [u32; 2],
    items: u32,
    unused: [u32; 9],
}

impl SearchArgs {
    /// Asks for the usage item of the quota group of subvolume `tree`.
    pub(super) fn for_quota(tree: u64) -> Self {
        const QUOTA_TREE: u64 = 8;
        const QGROUP_INFO: u32 = 242;
        let key = SearchKey {
            tree: QUOTA_TREE,
            object: [0, 0],
            offset: [tree, tree],
            transaction: [0, u64::MAX],
            kind: [QGROUP_INFO, QGROUP_INFO],
            items: 1,
            unused: [0; 9],
        };
        Self {
            key: UnsafeCell::new(key),
            buffer: UnsafeCell::new([0; _]),
        }
    }
}

/// The referenced bytes in the item found, if one was.
pub(super) fn quota_item(search: &SearchArgs) -> Option<u64> {
    /// Header: transaction, object, offset (8 bytes each), kind, length (4 each).
    const HEADER: usize = 32;
    // SAFETY: copies; no reference into the cells exists.
    let (items, buffer) = unsafe { ((*search.key.get()).items, *search.buffer.get()) };
    if items == 0 {
        return None;
    }
    // Item: generation, then referenced.
    let bytes = buffer.get(HEADER + 8..HEADER + 16)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

const _: () = {
    assert!(size_of::<VolumeArgs>() == 4096);
    assert!(size_of::<VolumeArgsV2>() == 4096);
    assert!(size_of::<LookupArgs>() == 4096);
    assert!(size_of::<SearchKey>() == 104);
    assert!(size_of::<SearchArgs>() == 4096);
    assert!(size_of::<QgroupLimit>() == 48);
};
