//! How processes ended, also those that are not our children.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Exit {
    /// From a wait status.
    pub(crate) fn from_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Exit::Signal(libc::WTERMSIG(status))
        } else {
            Exit::Code(libc::WEXITSTATUS(status))
        }
    }
}

/// `struct pidfd_info`, first published size.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ids: [u32; 8],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)` with the 64 bytes of the first version.
const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;

/// How the process behind `pidfd` ended, once it has been reaped by whoever is its parent.
/// `Ok(None)` while it has not. Needs kernel 6.15 (`Unsupported` before).
pub fn exit_of(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    const { assert!(size_of::<PidfdInfo>() == 64) };
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the request's size is that of the struct, which the kernel reads and writes.
    let rc = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    if rc < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOTTY | libc::EINVAL) => Err(io::ErrorKind::Unsupported.into()),
            Some(libc::ESRCH) => Ok(None),
            _ => Err(error),
        };
    }
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then(|| Exit::from_status(info.exit_code)))
}
