//! One connection for one operation.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
};
use woodfrog_guest_proto::{
    Channel, Decoder, ErrorBody, Frame, FrameKind, Request, data_prefix, encode_json, limits,
    parse_json,
};

use crate::{Connect, GuestError};

/// Bytes read from the socket at once.
const READ_STEP: usize = 256 << 10;
/// Descriptors taken from one message; more than one is a breach, and all are closed.
const MAX_FDS: usize = 4;
/// Longest error message that is passed on, in characters.
const MAX_MESSAGE: usize = 4096;

pub(crate) struct Link {
    stream: UnixStream,
    decoder: Decoder,
}

impl Link {
    /// Connects and sends the request.
    pub(crate) async fn open(
        connector: &dyn Connect,
        request: &Request,
    ) -> Result<Self, GuestError> {
        let frame = encode_json(FrameKind::Request, request).map_err(|e| {
            // Our own request is too large; nothing was sent.
            GuestError::Refused(ErrorBody::new(
                woodfrog_guest_proto::ErrorCode::TooLarge,
                e.to_string(),
            ))
        })?;
        let stream = connector.connect().await.map_err(GuestError::Connect)?;
        let mut link = Self {
            stream,
            decoder: Decoder::new(),
        };
        link.write(&frame).await?;
        Ok(link)
    }

    /// The next frame; an error frame is an error, and so is the end of the connection.
    pub(crate) async fn recv(&mut self) -> Result<Frame, GuestError> {
        loop {
            match self.decoder.next_frame()? {
                Some(Frame::Error(payload)) => return Err(refusal(&payload)),
                Some(frame) => return Ok(frame),
                None => {}
            }
            let want = self.decoder.wanted().clamp(4096, READ_STEP);
            let buffer = self.decoder.buffer();
            buffer.reserve(want);
            let n = self.stream.read_buf(buffer).await.map_err(GuestError::Io)?;
            if n == 0 {
                return Err(GuestError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The reply with the descriptor that came with it.
    pub(crate) async fn recv_with_fd(&mut self) -> Result<(Frame, OwnedFd), GuestError> {
        let mut fds = Vec::new();
        loop {
            match self.decoder.next_frame()? {
                Some(Frame::Error(payload)) => return Err(refusal(&payload)),
                Some(frame) => {
                    return match (fds.pop(), fds.len()) {
                        (Some(fd), 0) => Ok((frame, fd)),
                        (None, _) => Err(GuestError::Descriptor("there is none")),
                        (Some(_), _) => Err(GuestError::Descriptor("there are several")),
                    };
                }
                None => {}
            }
            let mut bytes = [0; 4096];
            let n = self
                .stream
                .async_io(Interest::READABLE, || {
                    receive(&self.stream, &mut bytes, &mut fds)
                })
                .await
                .map_err(GuestError::Io)?;
            if n == 0 {
                return Err(GuestError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            if fds.len() > MAX_FDS {
                return Err(GuestError::Descriptor("there are several"));
            }
            self.decoder.feed(bytes.get(..n).unwrap_or_default());
        }
    }

    /// The final answer of an operation.
    pub(crate) async fn end<T: DeserializeOwned>(&mut self) -> Result<T, GuestError> {
        match self.recv().await? {
            Frame::End(payload) => Ok(parse_json(&payload)?),
            _ => Err(GuestError::Protocol("expected the end".to_owned())),
        }
    }

    /// The first answer of an operation that streams.
    pub(crate) async fn reply<T: DeserializeOwned>(&mut self) -> Result<T, GuestError> {
        match self.recv().await? {
            Frame::Reply(payload) => Ok(parse_json(&payload)?),
            _ => Err(GuestError::Protocol("expected a reply".to_owned())),
        }
    }

    /// Sends data, in as many frames as needed.
    pub(crate) async fn send_data(&mut self, mut at: u64, bytes: &[u8]) -> Result<(), GuestError> {
        for chunk in bytes.chunks(limits::DATA_CHUNK) {
            let prefix = data_prefix(Channel::Plain, at, chunk.len());
            let slices = [IoSlice::new(&prefix), IoSlice::new(chunk)];
            let sent = match self.stream.write_vectored(&slices).await {
                Ok(sent) => sent,
                Err(e) => return Err(self.why(e).await),
            };
            if sent < prefix.len() {
                self.write(prefix.get(sent..).unwrap_or_default()).await?;
            }
            let body = sent.saturating_sub(prefix.len());
            self.write(chunk.get(body..).unwrap_or_default()).await?;
            at += chunk.len() as u64;
        }
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn send_end<T: Serialize>(&mut self, value: &T) -> Result<(), GuestError> {
        let frame = encode_json(FrameKind::End, value)?;
        self.write(&frame).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), GuestError> {
        match self.stream.write_all(bytes).await {
            Ok(()) => Ok(()),
            Err(e) => Err(self.why(e).await),
        }
    }

    /// A guest that closes early has usually said why before.
    async fn why(&mut self, error: io::Error) -> GuestError {
        match self.recv().await {
            Err(refused @ GuestError::Refused(_)) => refused,
            _ => GuestError::Io(error),
        }
    }
}

fn refusal(payload: &[u8]) -> GuestError {
    match parse_json::<ErrorBody>(payload) {
        Ok(mut body) => {
            if body.message.len() > MAX_MESSAGE {
                body.message = body.message.chars().take(MAX_MESSAGE).collect();
            }
            GuestError::Refused(body)
        }
        Err(e) => e.into(),
    }
}

fn receive(stream: &UnixStream, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        flags,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(got.bytes)
}
