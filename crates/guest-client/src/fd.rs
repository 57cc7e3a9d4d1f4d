//! Checks of descriptors that came from a guest, before anything is done with them.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat, fstatfs},
    net::{AddressFamily, SocketType, sockopt},
};

use crate::GuestError;

const OVERLAY: u64 = 0x794c_7630;
const TMPFS: u64 = 0x0102_1994;
const BTRFS: u64 = 0x9123_683E;
const EXT4: u64 = 0xEF53;

/// A regular file on a file system that the kernel serves by itself. Anything else (FUSE, a
/// pipe, a device) could make a read hang or run somebody else's code in its course.
pub(crate) fn regular_file(fd: OwnedFd) -> Result<File, GuestError> {
    let stat = fstat(&fd).map_err(|_| GuestError::Descriptor("it cannot be examined"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(GuestError::Descriptor("it is not a regular file"));
    }
    let fs = fstatfs(&fd).map_err(|_| GuestError::Descriptor("it cannot be examined"))?;
    if !matches!(
        fs.f_type as u64 & 0xffff_ffff,
        OVERLAY | TMPFS | BTRFS | EXT4
    ) {
        return Err(GuestError::Descriptor(
            "its file system is not a trusted kind",
        ));
    }
    let flags = fcntl_getfl(&fd).map_err(|_| GuestError::Descriptor("it cannot be examined"))?;
    if flags.contains(OFlags::PATH) {
        return Err(GuestError::Descriptor(
            "it is not open for reading or writing",
        ));
    }
    Ok(File::from(fd))
}

/// A TCP socket, made non-blocking.
pub(crate) fn tcp_socket(fd: OwnedFd) -> Result<std::net::TcpStream, GuestError> {
    let not = |_| GuestError::Descriptor("it is not a socket");
    let domain = sockopt::socket_domain(&fd).map_err(not)?;
    if !matches!(domain, AddressFamily::INET | AddressFamily::INET6) {
        return Err(GuestError::Descriptor("it is not an internet socket"));
    }
    if sockopt::socket_type(&fd).map_err(not)? != SocketType::STREAM {
        return Err(GuestError::Descriptor("it is not a stream socket"));
    }
    let flags = fcntl_getfl(fd.as_fd()).map_err(not)?;
    fcntl_setfl(fd.as_fd(), flags | OFlags::NONBLOCK).map_err(not)?;
    Ok(std::net::TcpStream::from(fd))
}
