//! Reaching the guest's socket from outside.
//!
//! What is inside is hostile: the socket's path is resolved within the sandbox's root, never
//! through it, and the peer must be the sandbox's init.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::net::sockopt::socket_peercred;
use tokio::net::UnixStream;
use woodfrog_linux::process::Identity;

/// Where the guest listens, from its root.
pub(crate) const SOCKET: &str = "run/woodfrog/guest.sock";
/// How long the guest may take until it listens.
const LISTEN_MAX: Duration = Duration::from_secs(10);
/// Between two looks at first: a guest takes about a millisecond.
const LOOK_EVERY_MIN: Duration = Duration::from_micros(150);
const LOOK_EVERY_MAX: Duration = Duration::from_millis(20);

/// The root directory of a sandbox, held open. It keeps no process alive.
pub(crate) fn open_root(init: &Identity) -> io::Result<OwnedFd> {
    let path = PathBuf::from(format!("/proc/{}/root", init.pid));
    let root = open(
        &path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // Looked at after opening: if it still is the same process, the directory was its.
    match init.open()? {
        Some(_) => Ok(root),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Connects, once the guest listens; on a blocking thread, since it looks again in short steps.
pub(crate) fn connect(
    root: &OwnedFd,
    init: &Identity,
) -> io::Result<std::os::unix::net::UnixStream> {
    let start = Instant::now();
    let mut pause = LOOK_EVERY_MIN;
    loop {
        match try_connect(root) {
            Ok(stream) => return check_peer(stream, init),
            Err(error) if !may_come(&error) || start.elapsed() > LISTEN_MAX => return Err(error),
            Err(_) => {}
        }
        if init.open()?.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the sandbox has ended",
            ));
        }
        std::thread::park_timeout(pause);
        pause = (pause * 3 / 2).min(LOOK_EVERY_MAX);
    }
}

/// One attempt, without waiting for the guest to start.
pub(crate) fn try_connect(root: &OwnedFd) -> io::Result<std::os::unix::net::UnixStream> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let socket = openat2(
        root,
        SOCKET,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )?;
    std::os::unix::net::UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd()))
}

/// The socket is not there yet, or nobody listens yet.
fn may_come(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// The peer of a listening socket is who called `listen`: it must be the sandbox's init.
pub(crate) fn check_peer(
    stream: std::os::unix::net::UnixStream,
    init: &Identity,
) -> io::Result<std::os::unix::net::UnixStream> {
    let peer = socket_peercred(&stream)?.pid.as_raw_nonzero().get();
    if u32::try_from(peer) == Ok(init.pid) {
        return Ok(stream);
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "the socket is not the guest's",
    ))
}

/// For tokio.
pub(crate) fn into_tokio(stream: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
