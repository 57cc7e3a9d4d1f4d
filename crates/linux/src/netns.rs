//! Network namespaces: owned by the host, or by the user namespace of the sandbox they are for.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The network namespace of the calling thread.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Moves the calling thread, and it alone, into a network namespace.
pub fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(
        namespace,
        Some(LinkNameSpaceType::Network),
    )?)
}

/// A new network namespace, with `lo` up, ports below 1024 open to every process and ICMP
/// sockets for every group. The calling thread is left where it was.
pub fn create() -> io::Result<OwnedFd> {
    apart(create_here)
}

/// Does something in a thread of its own, which ends in another network: were the way back to
/// fail, only that thread would be in the wrong place.
fn apart<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let panicked = || io::Error::other("network namespace thread panicked");
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(128 * 1024)
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|_| Err(panicked()))
    })
}

/// The user namespace of a sandbox to come, whose ids are not mapped yet, and a network namespace
/// that belongs to it. Nobody lives there; the descriptors hold both.
#[derive(Debug)]
pub struct OwnedPair {
    /// The network namespace.
    pub network: OwnedFd,
    /// Its owner.
    pub user: OwnedFd,
}

/// Makes such a pair, set up as by [`set_up`]. Does not depend on the sandbox it is for, so it can
/// be made ahead. The calling thread waits for some 0.5 ms and is left where it was.
pub fn create_owned() -> io::Result<OwnedPair> {
    let pair = crate::sys::new_namespaces()?;
    set_up(pair.network.as_fd())?;
    Ok(pair)
}

/// Prepares a network namespace: `lo` up, ports below 1024 open to every process and ICMP sockets
/// for every group.
pub fn set_up(namespace: BorrowedFd<'_>) -> io::Result<()> {
    apart(|| {
        enter(namespace)?;
        set_up_here()
    })
}

/// The network namespace of a process.
pub fn of_process(pid: u32) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/{pid}/ns/net"))?.into())
}

fn create_here() -> io::Result<OwnedFd> {
    // SAFETY: CLONE_NEWNET concerns this thread alone, which ends after this.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    set_up_here()?;
    current()
}

fn set_up_here() -> io::Result<()> {
    loopback_up()?;
    sysctl("ip_unprivileged_port_start", "0")?;
    sysctl("ping_group_range", "0 2147483647")
}

/// `/proc/sys/net` shows the namespace of the opening thread.
fn sysctl(name: &str, value: &str) -> io::Result<()> {
    crate::sys::write_file(&format!("/proc/sys/net/ipv4/{name}"), value.as_bytes())
}

fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    use std::os::fd::AsRawFd;
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: a zeroed ifreq is valid; the name "lo" fits and stays NUL-terminated.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    if unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &raw const request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
