//! Short-lived children that share our memory and descriptors while the calling thread waits:
//! the way into a user namespace for a process that has threads, or that has to come back.
//!
//! The rules are those of `spawn`: every signal is blocked, the child allocates nothing, takes no
//! lock and makes raw system calls only.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

use super::{Forked, clone3_raw};
use crate::netns::OwnedPair;
use crate::spawn::{SignalsBlocked, Stack, errno};

/// Shared memory and descriptors; the thread sleeps until the child ends.
const VISIT: c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES;

/// Runs `entry` in such a child and reaps it.
///
/// # Safety
/// `entry` keeps the rules above, and `arg` is what it takes.
unsafe fn visit(
    flags: c_int,
    entry: extern "C" fn(*mut c_void) -> c_int,
    arg: *mut c_void,
) -> io::Result<()> {
    let stack = Stack::new()?;
    let pid = {
        let _signals = SignalsBlocked::new()?;
        // SAFETY: CLONE_VFORK keeps this thread, and so the stack and what `arg` points to, as
        // they are until the child is gone; the caller's promise covers the rest.
        unsafe { libc::clone(entry, stack.top(), VISIT | flags, arg) }
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // It has ended. (With a signal of 0 only `__WALL` finds it, so that nobody else takes it.)
    // SAFETY: our own child.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) } < 0
        && errno() == libc::EINTR
    {}
    Ok(())
}

/// What the child of [`new_namespaces`] leaves.
struct Opened {
    network: RawFd,
    user: RawFd,
    errno: i32,
}

/// A user namespace and a network namespace of its own, both empty.
pub(crate) fn new_namespaces() -> io::Result<OwnedPair> {
    let mut opened = Opened {
        network: -1,
        user: -1,
        errno: 0,
    };
    // SAFETY: `open_own` keeps the rules and takes an `Opened`.
    unsafe {
        visit(
            libc::CLONE_NEWUSER | libc::CLONE_NEWNET,
            open_own,
            (&raw mut opened).cast(),
        )?;
    }
    // SAFETY: written by the child, behind the compiler's back; the descriptors are in our table,
    // for the child shared it, and nobody else's.
    unsafe {
        let opened = (&raw const opened).read_volatile();
        let take = |fd: RawFd| (fd >= 0).then(|| OwnedFd::from_raw_fd(fd));
        match (take(opened.network), take(opened.user)) {
            (Some(network), Some(user)) => Ok(OwnedPair { network, user }),
            _ => Err(io::Error::from_raw_os_error(opened.errno)),
        }
    }
}

extern "C" fn open_own(arg: *mut c_void) -> c_int {
    // SAFETY: `new_namespaces` passes an `Opened` and waits.
    let opened = unsafe { &mut *arg.cast::<Opened>() };
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: constant paths; the child ends here.
    unsafe {
        opened.network = libc::open(c"/proc/self/ns/net".as_ptr(), flags);
        opened.user = libc::open(c"/proc/self/ns/user".as_ptr(), flags);
        opened.errno = errno();
        libc::_exit(0)
    }
}

/// What the child of [`clone3_in`] needs and leaves.
struct Inside<'a> {
    user: RawFd,
    network: RawFd,
    flags: i32,
    cgroup: Option<BorrowedFd<'a>>,
    child: &'a mut dyn FnMut(),
    pid: i32,
    pidfd: RawFd,
    errno: i32,
}

/// Like `clone3`, into a user namespace and a network namespace that exist. `child` runs in the
/// new process, on a copy of our memory; the process is our own child.
///
/// # Safety
/// As for `clone3`; in the child only `child` may be relied on.
pub(crate) unsafe fn clone3_in(
    pair: (BorrowedFd<'_>, BorrowedFd<'_>),
    flags: i32,
    cgroup: Option<BorrowedFd<'_>>,
    child: &mut dyn FnMut(),
) -> io::Result<(Pid, OwnedFd)> {
    let mut inside = Inside {
        user: pair.1.as_raw_fd(),
        network: pair.0.as_raw_fd(),
        flags,
        cgroup,
        child,
        pid: -1,
        pidfd: -1,
        errno: 0,
    };
    // The new process takes over the signal of the child it is cloned from, which is SIGCHLD.
    // SAFETY: `enter_and_clone` keeps the rules and takes an `Inside`.
    unsafe { visit(libc::SIGCHLD, enter_and_clone, (&raw mut inside).cast())? };
    // SAFETY: written by the child, behind the compiler's back.
    let (pid, pidfd, errno) = unsafe {
        (
            (&raw const inside.pid).read_volatile(),
            (&raw const inside.pidfd).read_volatile(),
            (&raw const inside.errno).read_volatile(),
        )
    };
    match Pid::from_raw(pid.max(0)) {
        // SAFETY: clone3 stored a fresh descriptor in the table that the child shared.
        Some(pid) => Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        None => Err(io::Error::from_raw_os_error(errno)),
    }
}

extern "C" fn enter_and_clone(arg: *mut c_void) -> c_int {
    // SAFETY: `clone3_in` passes an `Inside` and waits.
    let inside = unsafe { &mut *arg.cast::<Inside<'_>>() };
    // SAFETY: these concern this child alone: it shares neither its credentials nor its
    // namespaces. The new process goes on with copies of memory and descriptors.
    unsafe {
        if libc::setns(inside.user, libc::CLONE_NEWUSER) < 0
            || libc::setns(inside.network, libc::CLONE_NEWNET) < 0
        {
            inside.errno = errno();
            libc::_exit(0);
        }
        match clone3_raw(inside.flags | libc::CLONE_PARENT, inside.cgroup) {
            Ok(Forked::Child) => (inside.child)(),
            Ok(Forked::Parent { pid, pidfd }) => {
                use std::os::fd::IntoRawFd;
                inside.pid = pid.as_raw_nonzero().get();
                inside.pidfd = pidfd.into_raw_fd();
            }
            Err(errno) => inside.errno = errno,
        }
        libc::_exit(0)
    }
}
