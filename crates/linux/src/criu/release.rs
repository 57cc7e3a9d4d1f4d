//! TCP connections that CRIU has left in repair mode because it was killed in the middle of a
//! checkpoint: nothing is sent or received there until somebody ends that mode.

use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

const REPAIRING: i32 = 1;

/// Gives the TCP connections of a sandbox back to it. For a sandbox that may have lost its CRIU
/// in the middle of a checkpoint, as when the server was killed together with it; harmless
/// otherwise, and never to be called while a checkpoint is in progress. [`super::dump`] has done
/// it when it fails. Returns how many connections there were.
///
/// # Errors
/// Only if the machine's processes cannot be listed. What belongs to processes that have ended
/// meanwhile needs nothing.
pub fn release_connections(init: u32) -> io::Result<usize> {
    let world = match fs::metadata(format!("/proc/{init}/ns/pid")) {
        Ok(world) => world.ino(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut released = 0;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let inside = fs::metadata(format!("/proc/{pid}/ns/pid"));
        if inside.is_ok_and(|found| found.ino() == world) {
            released += of_process(pid).unwrap_or(0);
        }
    }
    Ok(released)
}

fn of_process(pid: i32) -> io::Result<usize> {
    let raw = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(raw, PidfdFlags::empty())?;
    let mut released = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let socket = fs::read_link(entry.path()).is_ok_and(|target| {
            target
                .as_os_str()
                .as_encoded_bytes()
                .starts_with(b"socket:")
        });
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let (true, Some(number)) = (socket, number)
            && let Ok(socket) = copy(&process, number)
            && repairing(&socket)
        {
            end_repair(&socket)?;
            released += 1;
        }
    }
    Ok(released)
}

/// Another process's descriptor.
fn copy(process: &OwnedFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers; the new descriptor is ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0);
        match fd {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd as i32)),
        }
    }
}

fn repairing(socket: &OwnedFd) -> bool {
    let mut value = 0i32;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: room for what is asked for, with its length. Sockets of another kind refuse.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    rc == 0 && value == REPAIRING
}

fn end_repair(socket: &OwnedFd) -> io::Result<()> {
    let off = 0i32;
    // SAFETY: a number with its length, only read.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw const off).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
