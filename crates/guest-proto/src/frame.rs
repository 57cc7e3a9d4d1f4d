//! Frames: `[version u8][kind u8][len u32 BE][payload]`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::limits::{MAX_CONTROL, MAX_DATA};

/// First byte of every frame: a magic nibble (0xF) and the protocol version (1).
pub const VERSION: u8 = 0xF1;
/// Bytes before the payload of any frame.
pub const HEADER_LEN: usize = 6;
/// Bytes of a data frame's payload before its data: channel and offset.
pub const DATA_HEADER_LEN: usize = 9;

/// The kinds of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// JSON, host to guest, first on every connection.
    Request = 1,
    /// JSON, the first answer of an operation that streams.
    Reply = 2,
    /// Raw bytes with a channel and an offset.
    Data = 3,
    /// JSON in the middle of a stream.
    Event = 4,
    /// JSON, the last frame of a side that succeeded.
    End = 5,
    /// JSON [`crate::ErrorBody`], the last frame of a side that failed.
    Error = 6,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Request,
            2 => Self::Reply,
            3 => Self::Data,
            4 => Self::Event,
            5 => Self::End,
            6 => Self::Error,
            _ => return None,
        })
    }
}

/// Which stream the bytes of a data frame belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Channel {
    /// File content, or input for a process.
    Plain = 0,
    Stdout = 1,
    Stderr = 2,
    Pty = 3,
}

impl Channel {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Plain,
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::Pty,
            _ => return None,
        })
    }
}

/// One decoded frame. JSON payloads are not parsed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Request(Bytes),
    Reply(Bytes),
    Data {
        channel: Channel,
        offset: u64,
        bytes: Bytes,
    },
    Event(Bytes),
    End(Bytes),
    Error(Bytes),
}

/// The peer does not speak this protocol. The connection cannot be used further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("protocol version byte {0:#04x} is not {VERSION:#04x}")]
    Version(u8),
    #[error("unknown frame kind {0}")]
    Kind(u8),
    #[error("frame of {len} bytes is above the limit of {limit}")]
    TooLarge { len: usize, limit: usize },
    #[error("data frame of {0} bytes is shorter than its header")]
    ShortData(usize),
    #[error("unknown data channel {0}")]
    Channel(u8),
    #[error("data offset overflows")]
    Offset,
    #[error("frame payload is not the expected JSON: {0}")]
    Json(String),
}

/// Turns bytes, split anywhere, into frames.
///
/// Never panics and never holds more than the bytes it was given; [`Decoder::wanted`] never asks
/// for more than one frame of the largest legal size.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// The buffer to read into. Append only.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Appends bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether bytes of an unfinished frame are held.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// How many more bytes the frame under way needs at least (1 when that is not known yet).
    pub fn wanted(&self) -> usize {
        match self.header() {
            Ok(Some((_, len))) => (HEADER_LEN + len).saturating_sub(self.buffer.len()).max(1),
            _ => 1,
        }
    }

    /// The next whole frame, or `None` when more bytes are needed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((kind, len)) = self.header()? else {
            return Ok(None);
        };
        if self.buffer.len() < HEADER_LEN + len {
            return Ok(None);
        }
        self.buffer.advance(HEADER_LEN);
        let payload = self.buffer.split_to(len).freeze();
        Ok(Some(match kind {
            FrameKind::Request => Frame::Request(payload),
            FrameKind::Reply => Frame::Reply(payload),
            FrameKind::Event => Frame::Event(payload),
            FrameKind::End => Frame::End(payload),
            FrameKind::Error => Frame::Error(payload),
            FrameKind::Data => data_frame(payload)?,
        }))
    }

    /// The header of the frame under way, checked as early as its bytes allow.
    fn header(&self) -> Result<Option<(FrameKind, usize)>, FrameError> {
        let Some(&version) = self.buffer.first() else {
            return Ok(None);
        };
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let Some(&kind) = self.buffer.get(1) else {
            return Ok(None);
        };
        let kind = FrameKind::from_byte(kind).ok_or(FrameError::Kind(kind))?;
        let Some(mut len) = self.buffer.get(2..HEADER_LEN) else {
            return Ok(None);
        };
        let len = len.get_u32() as usize;
        let limit = match kind {
            FrameKind::Data => DATA_HEADER_LEN + MAX_DATA,
            _ => MAX_CONTROL,
        };
        if len > limit {
            return Err(FrameError::TooLarge { len, limit });
        }
        if kind == FrameKind::Data && len < DATA_HEADER_LEN {
            return Err(FrameError::ShortData(len));
        }
        Ok(Some((kind, len)))
    }
}

fn data_frame(mut payload: Bytes) -> Result<Frame, FrameError> {
    let channel = payload.get_u8();
    let channel = Channel::from_byte(channel).ok_or(FrameError::Channel(channel))?;
    let offset = payload.get_u64();
    offset
        .checked_add(payload.len() as u64)
        .ok_or(FrameError::Offset)?;
    Ok(Frame::Data {
        channel,
        offset,
        bytes: payload,
    })
}

/// The bytes that precede `len` bytes of data in a data frame. `len` must be at most
/// [`MAX_DATA`]; the receiver refuses the frame otherwise.
pub fn data_prefix(
    channel: Channel,
    offset: u64,
    len: usize,
) -> [u8; HEADER_LEN + DATA_HEADER_LEN] {
    debug_assert!(len <= MAX_DATA);
    let mut out = [0; HEADER_LEN + DATA_HEADER_LEN];
    let mut cursor = &mut out[..];
    cursor.put_u8(VERSION);
    cursor.put_u8(FrameKind::Data as u8);
    cursor.put_u32((DATA_HEADER_LEN + len) as u32);
    cursor.put_u8(channel as u8);
    cursor.put_u64(offset);
    out
}

/// A whole control frame.
pub fn encode(kind: FrameKind, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    if payload.len() > MAX_CONTROL {
        return Err(FrameError::TooLarge {
            len: payload.len(),
            limit: MAX_CONTROL,
        });
    }
    let mut out = Vec::with_capacity(HEADER_LEN + payload.len());
    out.put_u8(VERSION);
    out.put_u8(kind as u8);
    out.put_u32(payload.len() as u32);
    out.put_slice(payload);
    Ok(out)
}

/// A whole control frame carrying `value` as JSON.
pub fn encode_json<T: Serialize>(kind: FrameKind, value: &T) -> Result<Vec<u8>, FrameError> {
    let payload = serde_json::to_vec(value).map_err(|e| FrameError::Json(e.to_string()))?;
    encode(kind, &payload)
}

/// Parses the JSON payload of a control frame.
pub fn parse_json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(payload).map_err(|e| FrameError::Json(e.to_string()))
}
