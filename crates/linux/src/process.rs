//! Processes named so that a reused pid is never mistaken for them.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

mod exit;

pub use exit::{Exit, exit_of};

/// A process that can be told from any other, also by a later program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Its pid on the host.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub starttime: u64,
    /// The inode of its pid namespace.
    pub pidns_inode: u64,
}

impl Identity {
    /// Reads the identity of a process that cannot vanish meanwhile (a child not yet reaped).
    pub fn read(pid: u32) -> io::Result<Self> {
        let starttime = starttime(pid)?;
        let pidns_inode = fs::metadata(format!("/proc/{pid}/ns/pid"))?.ino();
        Ok(Self {
            pid,
            starttime,
            pidns_inode,
        })
    }

    /// A descriptor for the process, if it still is the one that was meant. `None` if it is gone.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Read after opening: what is read now is about the process held by the descriptor, or
        // about none.
        match Self::read(self.pid) {
            Ok(found) if found == *self => Ok(Some(pidfd)),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The start time of a process.
fn starttime(pid: u32) -> io::Result<u64> {
    stat(pid, 22)
}

/// A process found by [`in_session`].
pub(crate) struct Found {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// Whether it is our child.
    pub(crate) ours: bool,
}

/// The other processes of the session that `leader` leads, which the caller keeps from being
/// reaped. What cannot be read has ended.
pub(crate) fn in_session(leader: u32) -> Vec<Found> {
    let ourselves = u64::from(std::process::id());
    let Ok(entries) = fs::read_dir("/proc") else {
        return vec![];
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let belongs = |pid| stat(pid, 6).is_ok_and(|session| session == u64::from(leader));
    let found = pids.filter(|pid| *pid != leader && belongs(*pid));
    found
        .filter_map(|number| {
            let pid = Pid::from_raw(i32::try_from(number).ok()?)?;
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            // Again, now that it cannot be another one. Who has ended and is not ours is its
            // parent's to reap.
            let ours = stat(number, 4).ok()? == ourselves;
            let ended = wait_ended(pidfd.as_fd(), std::time::Duration::ZERO).unwrap_or(true);
            (belongs(number) && (ours || !ended)).then_some(Found { pid, pidfd, ours })
        })
        .collect()
}

/// A number of a process's stat file, by its place in there (from the fourth on).
fn stat(pid: u32, field: usize) -> io::Result<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything.
    let after_name = stat
        .iter()
        .rposition(|byte| *byte == b')')
        .map_or(0, |at| at + 1);
    String::from_utf8_lossy(&stat[after_name..])
        .split_ascii_whitespace()
        .nth(field - 3)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unreadable stat file"))
}

/// Whether the process has ended, waiting at most `timeout` for it.
pub fn wait_ended(pidfd: BorrowedFd<'_>, timeout: std::time::Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Kills the process; no error if it has ended already. For a sandbox's init this ends every
/// process of the sandbox.
pub fn kill(pidfd: impl AsFd) -> io::Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
