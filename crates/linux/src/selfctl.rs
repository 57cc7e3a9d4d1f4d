//! What a process sets about itself.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes the calling process undumpable: processes of the same uid without `CAP_SYS_PTRACE` can
/// neither trace it nor read its memory or `/proc/PID` links. `execve` resets this, so a program
/// that wants it says so itself, first thing.
pub fn set_undumpable() -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes a number and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })
}

/// Whether this process was ever found dumpable by [`Dumpable::look`].
static DUMPABLE: AtomicBool = AtomicBool::new(false);

/// Keeps a dumpable process so across something that changes credentials in its memory.
///
/// A child that shares our memory and changes its user makes that memory, and so us, undumpable. A
/// process that was restored from a checkpoint must stay dumpable: its memory belongs to the user
/// namespace of who restored it, and an undumpable one could not be checkpointed again.
pub(crate) struct Dumpable(());

impl Dumpable {
    /// Notes whether this process is dumpable. Once it was, every later `keep` sees to it: others
    /// may be between theirs at the same time.
    pub(crate) fn look() -> Self {
        // SAFETY: PR_GET_DUMPABLE touches no memory.
        if unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) } == 1 {
            DUMPABLE.store(true, Ordering::SeqCst);
        }
        Self(())
    }

    /// Makes the process dumpable again, if it was.
    pub(crate) fn keep(self) {
        if DUMPABLE.load(Ordering::SeqCst) {
            // SAFETY: PR_SET_DUMPABLE takes a number and touches no memory. It cannot fail for 1.
            let _ = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        }
    }
}

/// Makes the calling process the one that orphaned descendants are reparented to.
pub fn set_child_subreaper() -> io::Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes a number and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })
}

/// Sets close-on-exec on every descriptor from `first` on. Closes nothing: owned descriptors of
/// this process stay valid.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: CLOSE_RANGE_CLOEXEC only changes flags of descriptors.
    let rc = unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    check(rc)
}

/// Makes the calling process ignore the given signals until it execs or says otherwise.
pub fn ignore_signals(signals: &[i32]) -> io::Result<()> {
    for &signal in signals {
        // SAFETY: SIG_IGN is a valid disposition and no handler of ours is involved.
        if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Takes over a descriptor that this process was started with, by the number agreed on. Once per
/// number; it will not be inherited further.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes a number and fails on a descriptor that is not open.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and whoever started this process left it to the one who asks.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn check(rc: i32) -> io::Result<()> {
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
