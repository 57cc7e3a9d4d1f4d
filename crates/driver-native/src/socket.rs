//! Reaching the guest's socket from outside.
//!
//! What is inside is hostile: the socket's path is resolved within the sandbox's root, never
//! through it, and the peer must be the sandbox's init.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use woodfrog_linux::process::Identity;

/// Where the guest listens, from its root.
pub(crate) const SOCKET: &str = "run/woodfrog/guest.sock";
/// How long the guest may take until it listens.
const LISTEN_MAX: Duration = Duration::from_secs(10);
/// A guest that is just starting takes about a millisecond: so long it is looked at in steps
/// that are shorter than a timer's.
const CLOSE_LOOK: Duration = Duration::from_millis(30);
const LOOK_EVERY_MIN: Duration = Duration::from_micros(150);
/// Between two looks later.
const LOOK_EVERY: Duration = Duration::from_millis(20);

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

/// Connects, once the guest listens.
///
/// Whoever is root inside can put a socket of their own in the guest's place: nothing here waits
/// for what they do, but for the clock.
pub(crate) async fn connect(root: &Arc<OwnedFd>, init: Identity) -> io::Result<StdStream> {
    if let Some(stream) = attempt(root, &init)? {
        return Ok(stream);
    }
    let start = Instant::now();
    let looked_at = Arc::clone(root);
    let close = tokio::task::spawn_blocking(move || look_closely(&looked_at, &init));
    if let Some(stream) = close.await.map_err(io::Error::other)?? {
        return Ok(stream);
    }
    while start.elapsed() < LISTEN_MAX {
        if init.open()?.is_none() {
            let ended = "the sandbox has ended";
            return Err(io::Error::new(io::ErrorKind::NotFound, ended));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(stream) = attempt(root, &init)? {
            return Ok(stream);
        }
    }
    let silent = "nobody takes connections at its socket";
    Err(io::Error::new(io::ErrorKind::TimedOut, silent))
}

fn look_closely(root: &OwnedFd, init: &Identity) -> io::Result<Option<StdStream>> {
    let start = Instant::now();
    let mut pause = LOOK_EVERY_MIN;
    while start.elapsed() < CLOSE_LOOK {
        if let Some(stream) = attempt(root, init)? {
            return Ok(Some(stream));
        }
        std::thread::park_timeout(pause);
        pause = pause * 3 / 2;
    }
    Ok(None)
}

/// One attempt, which does not wait. `None` if it may succeed later.
fn attempt(root: &OwnedFd, init: &Identity) -> io::Result<Option<StdStream>> {
    match try_connect(root) {
        Ok(stream) => check_peer(stream, init).map(Some),
        Err(error) if may_come(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn try_connect(root: &OwnedFd) -> io::Result<StdStream> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let socket = openat2(root, SOCKET, flags, Mode::empty(), resolve)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
    // Non-blocking before it connects: a full queue of connections is answered, not waited for.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&stream, &address)?;
    Ok(stream.into())
}

/// The socket is not there yet, nobody listens yet, or too many are waiting.
fn may_come(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
    )
}

/// The peer of a listening socket is who called `listen`: it must be the sandbox's init.
fn check_peer(stream: StdStream, init: &Identity) -> io::Result<StdStream> {
    let peer = socket_peercred(&stream)?.pid.as_raw_nonzero().get();
    if u32::try_from(peer) == Ok(init.pid) {
        return Ok(stream);
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "the socket is not the guest's",
    ))
}

#[cfg(test)]
mod tests {
    use rustix::net::{bind, listen};

    use super::*;

    fn flags() -> SocketFlags {
        SocketFlags::CLOEXEC
    }

    #[tokio::test]
    async fn a_full_queue_does_not_hold_the_caller() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join(SOCKET);
        std::fs::create_dir_all(path.parent().ok_or(io::ErrorKind::NotFound)?)?;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags(), None)?;
        bind(&listener, &SocketAddrUnix::new(&path)?)?;
        listen(&listener, 0)?;
        let root = open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let mut waiting = Vec::new();
        let full = loop {
            match try_connect(&root) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 16, "the queue has no end");
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(may_come(&full));
        Ok(())
    }

    #[tokio::test]
    async fn links_are_resolved_inside() -> io::Result<()> {
        let (dir, outside) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let target = outside.path().join("guest.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&target)?;
        std::fs::create_dir_all(dir.path().join("run/woodfrog"))?;
        std::os::unix::fs::symlink(&target, dir.path().join(SOCKET))?;
        let root = open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let error = try_connect(&root).expect_err("it left the root");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        Ok(())
    }
}
