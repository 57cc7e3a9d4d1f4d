//! System calls without a wrapper elsewhere.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

mod vfork;

pub(crate) use vfork::{clone3_in, new_namespaces};

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// libc's constant does not fit its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x4;

fn mount_setattr(mount: RawFd, attr: &MountAttr) -> io::Result<()> {
    // SAFETY: an empty NUL-terminated path, and a struct of the size given, which is only read.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

pub(crate) fn idmap_mount(mount: BorrowedFd<'_>, userns: RawFd) -> io::Result<()> {
    let attr = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        userns_fd: userns as u64,
    };
    mount_setattr(mount.as_raw_fd(), &attr)
}

/// Sets mount attributes. Async-signal-safe; gives the errno.
pub(crate) fn set_mount_raw(mount: BorrowedFd<'_>, set: u64) -> Result<(), i32> {
    let attr = MountAttr {
        set,
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    mount_setattr(mount.as_raw_fd(), &attr).map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))
}

/// One write, as files of /proc and cgroups want it.
pub(crate) fn write_file(path: &str, bytes: &[u8]) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, open};
    let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, bytes))?;
    if written == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// A child in a new user namespace that waits to be killed.
pub(crate) fn fork_into_user_namespace() -> io::Result<Pid> {
    // SAFETY: like fork (no shared memory); the child makes one system call over and over.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::CLONE_NEWUSER | libc::SIGCHLD,
            0usize,
            0usize,
            0usize,
            0usize,
        )
    };
    if pid == 0 {
        // Dies with its parent, should that be killed before it kills the child.
        // SAFETY: numbers only.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
        loop {
            // SAFETY: no arguments.
            unsafe { libc::pause() };
        }
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(pid as i32).expect("clone returns a positive pid"))
}

/// What `clone3` made.
pub(crate) enum Forked {
    /// We are the child.
    Child,
    /// We are the parent.
    Parent {
        /// The child.
        pid: Pid,
        /// Its descriptor.
        pidfd: OwnedFd,
    },
}

/// Like fork, with namespaces and, where given, into a cgroup v2 directory.
///
/// # Safety
/// The process must be single-threaded, or the child keep to async-signal-safe calls.
pub(crate) unsafe fn clone3(flags: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    // SAFETY: the caller's promise.
    unsafe { clone3_raw(flags, cgroup) }.map_err(io::Error::from_raw_os_error)
}

/// The same, async-signal-safe; gives the errno. With `CLONE_PARENT` the child's signal is that of
/// the calling process.
///
/// # Safety
/// As for [`clone3`].
unsafe fn clone3_raw(flags: i32, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked, i32> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags as u32 as u64 | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    if flags & libc::CLONE_PARENT == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: a struct of the size given; no shared memory, so the child returns on its copy of
    // this stack; the caller's promise covers the rest.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    match pid {
        0 => Ok(Forked::Child),
        pid if pid < 0 => Err(crate::spawn::errno()),
        pid => Ok(Forked::Parent {
            pid: Pid::from_raw(pid as i32).expect("clone returns a positive pid"),
            // SAFETY: CLONE_PIDFD stored a fresh descriptor of ours.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}
