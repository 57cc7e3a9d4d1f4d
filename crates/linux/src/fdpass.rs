//! Messages with descriptors over unix sockets.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The most descriptors one message carries.
pub const MAX_FDS: usize = 16;

/// One received message.
#[derive(Debug)]
pub struct Received {
    /// Bytes written to the caller's buffer; 0 means the peer has closed.
    pub len: usize,
    /// The descriptors that came along, close-on-exec, in the sender's order.
    pub fds: Vec<OwnedFd>,
}

/// Sends `bytes` with `fds` as one message. On a stream socket the return value can be less than
/// `bytes.len()`; the descriptors went with the first byte. `EAGAIN` comes back as
/// [`io::ErrorKind::WouldBlock`] and means that nothing was sent.
///
/// # Errors
/// `InvalidInput` for more than [`MAX_FDS`] descriptors; otherwise what `sendmsg` says.
pub fn send_with_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.len() > MAX_FDS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors",
        ));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors",
        ));
    }
    let parts = [IoSlice::new(bytes)];
    Ok(rustix::io::retry_on_intr(|| {
        sendmsg(socket.as_fd(), &parts, &mut control, SendFlags::NOSIGNAL)
    })?)
}

/// Receives one message (or, on a stream socket, what is there) into `buffer`.
///
/// # Errors
/// `InvalidData` where a message or its descriptors did not fit (what did arrive is closed);
/// otherwise what `recvmsg` says.
pub fn recv_with_fds(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = rustix::io::retry_on_intr(|| {
        recvmsg(
            socket.as_fd(),
            &mut parts,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut fds = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            fds.extend(received);
        }
    }
    if message
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "message too long",
        ));
    }
    Ok(Received {
        len: message.bytes,
        fds,
    })
}
