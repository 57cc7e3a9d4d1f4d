//! The launcher: a small single-threaded process that makes sandboxes for the server, which has
//! threads and so must not fork.
//!
//! It serves requests over a `SOCK_SEQPACKET` socket, is the parent of the sandboxes it makes and
//! reports their ends. Sandboxes do not die with it. It ends when the socket is closed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

mod child;
mod client;
mod launch;
mod message;
mod plan;
mod report;
mod serve;

pub use client::{Client, adopt_stdin, start};
pub use message::{
    Call, CgroupJoin, DIRECTORIES_STEP, DestroySpec, Directory, Event, Failure, LISTEN_FD,
    LaunchSpec, Launched, MAX_MESSAGE, Network, Reply, Request, Timing, TmpfsSizes, decode_reply,
    default_masked, encode_request,
};

/// Serves requests until the other end closes, then ends the process.
///
/// To be called first thing in a process of its own: it changes signal dispositions and relies on
/// being the only thread (the one that mounts by path ends within the call).
pub fn launcher_main(socket: OwnedFd) -> ! {
    let code = match serve::run(socket.as_fd()) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    std::process::exit(code)
}

/// One end of a pipe each, close-on-exec.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Goes into a network namespace and comes back on drop.
struct InNetns<'a> {
    home: BorrowedFd<'a>,
}

impl<'a> InNetns<'a> {
    fn enter(there: BorrowedFd<'_>, home: BorrowedFd<'a>) -> io::Result<Self> {
        crate::netns::enter(there)?;
        Ok(Self { home })
    }
}

impl Drop for InNetns<'_> {
    fn drop(&mut self) {
        if crate::netns::enter(self.home).is_err() {
            // Going on in a sandbox's network would be worse than not going on.
            std::process::abort();
        }
    }
}
