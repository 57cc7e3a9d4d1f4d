//! One connection from the host: frames in, frames and descriptors out.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
};
use woodfrog_guest_proto::{Channel, Decoder, Empty, Frame, FrameKind, data_prefix, encode_json};

/// A peer that sends half a frame and stops is dropped after this.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a connection with unread bytes is looked at for its end.
const HANGUP_POLL: Duration = Duration::from_millis(200);
/// Bytes asked of the socket at once.
const READ_STEP: usize = 64 << 10;

pub(crate) struct Conn {
    stream: UnixStream,
    decoder: Decoder,
    descriptors: bool,
}

impl Conn {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            descriptors: true,
        }
    }

    /// One whose peer is beyond this kernel.
    pub(crate) fn without_descriptors(stream: UnixStream) -> Self {
        Self {
            descriptors: false,
            ..Self::new(stream)
        }
    }

    /// Whether descriptors reach the peer.
    pub(crate) fn passes_descriptors(&self) -> bool {
        self.descriptors
    }

    /// Ends the operation well and from then on copies between the peer and `other`, until both
    /// directions have ended.
    pub(crate) async fn become_stream(&mut self, other: &mut TcpStream) {
        let (reply, end) = (FrameKind::Reply, FrameKind::End);
        if self.send(reply, &Empty {}).await.is_ok() && self.send(end, &Empty {}).await.is_ok() {
            // What either of them does to the other is between them.
            let _ = tokio::io::copy_bidirectional(&mut self.stream, other).await;
        }
    }

    /// The next frame; `None` when the peer closed between frames. May wait forever for a frame
    /// to begin, but not for it to be completed.
    pub(crate) async fn recv(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(io::Error::other)? {
                return Ok(Some(frame));
            }
            let fresh = self.decoder.is_empty();
            if fresh {
                self.stream.readable().await?;
            } else {
                tokio::time::timeout(FRAME_TIMEOUT, self.stream.readable())
                    .await
                    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            }
            let want = self.decoder.wanted().clamp(512, READ_STEP);
            let buffer = self.decoder.buffer();
            buffer.reserve(want);
            match self.stream.try_read_buf(buffer) {
                Ok(0) if fresh => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Completes when the peer is gone, or sends where it has nothing to say.
    pub(crate) async fn hangup(&self) {
        loop {
            if self.stream.readable().await.is_err() {
                return;
            }
            match self.stream.try_read(&mut [0; 1]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    }

    /// Completes when the peer is gone, leaving what it sent before that to be read.
    pub(crate) async fn hangup_unread(&self) {
        loop {
            match self.stream.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(HANGUP_POLL).await,
                _ => return,
            }
        }
    }

    /// Sends one control frame.
    pub(crate) async fn send<T: Serialize>(&self, kind: FrameKind, value: &T) -> io::Result<()> {
        let frame = encode_json(kind, value).map_err(io::Error::other)?;
        self.write_all(&frame).await
    }

    /// Sends one data frame.
    pub(crate) async fn data(&self, channel: Channel, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let prefix = data_prefix(channel, offset, bytes.len());
        let mut sent = 0;
        while sent < prefix.len() + bytes.len() {
            let head = prefix.get(sent..).unwrap_or_default();
            let body = bytes
                .get(sent.saturating_sub(prefix.len())..)
                .unwrap_or_default();
            sent += self
                .write_some(|| vec![IoSlice::new(head), IoSlice::new(body)])
                .await?;
        }
        Ok(())
    }

    /// Sends one control frame with a descriptor attached to its first byte.
    pub(crate) async fn send_fd<T: Serialize>(
        &self,
        kind: FrameKind,
        value: &T,
        fd: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let frame = encode_json(kind, value).map_err(io::Error::other)?;
        let sent = self
            .stream
            .async_io(Interest::WRITABLE, || {
                let fds = [fd];
                let mut space =
                    [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(&fds));
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                Ok(sendmsg(
                    self.stream.as_fd(),
                    &[IoSlice::new(&frame)],
                    &mut control,
                    flags,
                )?)
            })
            .await?;
        self.write_all(frame.get(sent..).unwrap_or_default()).await
    }

    /// Writes once, as much as the socket takes. `slices` is asked again after every wait, so it
    /// may borrow from something that changes meanwhile.
    pub(crate) async fn write_some<'a>(
        &self,
        slices: impl Fn() -> Vec<IoSlice<'a>>,
    ) -> io::Result<usize> {
        loop {
            self.stream.writable().await?;
            match self.stream.try_write_vectored(&slices()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// Waits until the socket may take bytes.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// Writes what the socket takes right now; `None` when that is nothing.
    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        match self.stream.try_write_vectored(slices) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => Ok(Some(n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = self.write_some(|| vec![IoSlice::new(bytes)]).await?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }
}
