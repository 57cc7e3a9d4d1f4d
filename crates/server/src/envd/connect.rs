//! The Connect protocol with the JSON codec: envelopes, error codes, end-of-stream messages.
//!
//! An envelope is `[flags u8][length u32 BE][payload]`. A stream ends with an envelope whose
//! flags say so and whose payload is `{}` or `{"error":{…}}`; the HTTP status is always 200.

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

mod error;

pub(crate) use error::{RpcCode, RpcError};

/// Bytes of one message, in a unary body or in an envelope.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;
const HEADER_LEN: usize = 5;
const FLAG_COMPRESSED: u8 = 1;
const FLAG_END: u8 = 2;

/// The peer's bytes are not a stream of envelopes that we accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("message of {0} bytes is above the limit of {MESSAGE_BYTES_MAX}")]
    TooLarge(usize),
    #[error("compressed messages are not supported")]
    Compressed,
    #[error("the stream ended inside a message")]
    Truncated,
}

impl From<EnvelopeError> for RpcError {
    fn from(error: EnvelopeError) -> Self {
        let code = match error {
            EnvelopeError::TooLarge(_) => RpcCode::ResourceExhausted,
            EnvelopeError::Compressed => RpcCode::Unimplemented,
            EnvelopeError::Truncated => RpcCode::InvalidArgument,
        };
        Self::new(code, error.to_string())
    }
}

/// One decoded envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Envelope {
    Message(Bytes),
    /// The client's end of stream; clients are not required to send one.
    End,
}

/// Turns bytes, split anywhere, into envelopes. Holds at most one message and what came with it.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole envelope, or `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Envelope>, EnvelopeError> {
        let Some(mut header) = self.buffer.get(..HEADER_LEN) else {
            return Ok(None);
        };
        let flags = header.get_u8();
        let length = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return Err(EnvelopeError::TooLarge(length));
        }
        if flags & FLAG_COMPRESSED != 0 {
            return Err(EnvelopeError::Compressed);
        }
        if self.buffer.len() < HEADER_LEN + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_LEN);
        let payload = self.buffer.split_to(length).freeze();
        Ok(Some(if flags & FLAG_END != 0 {
            Envelope::End
        } else {
            Envelope::Message(payload)
        }))
    }

    /// To be called at the end of the bytes: nothing may be left over.
    pub(crate) fn finish(&self) -> Result<(), EnvelopeError> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            Err(EnvelopeError::Truncated)
        }
    }
}

fn envelope(flags: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_LEN + payload.len());
    out.put_u8(flags);
    out.put_u32(u32::try_from(payload.len()).expect("our messages are far below 4 GiB"));
    out.put_slice(payload);
    out.freeze()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("wire types serialize: string keys, no failing impls")
}

/// A message as an envelope.
pub(crate) fn message(value: &impl Serialize) -> Bytes {
    envelope(0, &json(value))
}

/// The last envelope of a stream that went well.
pub(crate) fn end_ok() -> Bytes {
    envelope(FLAG_END, b"{}")
}

/// The last envelope of a stream that failed.
pub(crate) fn end_error(error: &RpcError) -> Bytes {
    #[derive(Serialize)]
    struct End<'a> {
        error: &'a RpcError,
    }
    envelope(FLAG_END, &json(&End { error }))
}

/// Which stream of a process output belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
    Pty,
}

impl Output {
    const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Pty => "pty",
        }
    }

    /// Bytes of one data event at most: what clients are used to.
    pub(crate) const fn chunk_max(self) -> usize {
        match self {
            Self::Stdout | Self::Stderr => 32 << 10,
            Self::Pty => 16 << 10,
        }
    }
}

/// One data event as an envelope. This is the hot path of command output: the base64 is written
/// straight into the envelope.
pub(crate) fn output(kind: Output, bytes: &[u8]) -> Bytes {
    let head = format!("{{\"event\":{{\"data\":{{\"{}\":\"", kind.name());
    let tail = b"\"}}}";
    let encoded = bytes.len().div_ceil(3) * 4;
    let length = head.len() + encoded + tail.len();
    let mut out = vec![0_u8; HEADER_LEN + length];
    let (header, rest) = out.split_at_mut(HEADER_LEN);
    header[1..].copy_from_slice(
        &u32::try_from(length)
            .expect("a chunk is far below 4 GiB")
            .to_be_bytes(),
    );
    let (front, rest) = rest.split_at_mut(head.len());
    front.copy_from_slice(head.as_bytes());
    let (middle, back) = rest.split_at_mut(encoded);
    BASE64
        .encode_slice(bytes, middle)
        .expect("the slice has the exact size");
    back.copy_from_slice(tail);
    out.into()
}

/// A unary answer.
pub(crate) fn unary(result: Result<impl Serialize, RpcError>) -> Response {
    let (status, body) = match result {
        Ok(value) => (StatusCode::OK, json(&value)),
        Err(error) => (error.code.http_status(), json(&error)),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    content_type(&mut response, "application/json");
    response
}

/// A streaming answer whose body is made of envelopes.
pub(crate) fn streaming(body: Body) -> Response {
    let mut response = Response::new(body);
    content_type(&mut response, STREAM);
    response
}

/// Whether an answer is a stream of envelopes.
pub(crate) fn is_stream(response: &Response) -> bool {
    let value = response.headers().get(header::CONTENT_TYPE);
    value.is_some_and(|value| value == STREAM)
}

/// The content type of streams.
const STREAM: &str = "application/connect+json";

/// A stream that fails before its first message.
pub(crate) fn stream_error(error: &RpcError) -> Response {
    streaming(Body::from(end_error(error)))
}

fn content_type(response: &mut Response, value: &'static str) {
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
}

/// Parses one JSON message. Nothing at all is the empty message.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, RpcError> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| {
        RpcError::new(
            RpcCode::InvalidArgument,
            format!("malformed message: {error}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn output_events_are_the_json_clients_read() {
        for (kind, bytes, json) in [
            (
                Output::Stdout,
                &b"hi\n"[..],
                r#"{"event":{"data":{"stdout":"aGkK"}}}"#,
            ),
            (Output::Stderr, b"", r#"{"event":{"data":{"stderr":""}}}"#),
            (Output::Pty, b"\xff", r#"{"event":{"data":{"pty":"/w=="}}}"#),
        ] {
            assert_eq!(output(kind, bytes), envelope(0, json.as_bytes()));
        }
    }

    #[test]
    fn streams_end_with_their_error() {
        let error = RpcError::new(RpcCode::NotFound, "no");
        let bytes = end_error(&error);
        assert_eq!(bytes[0], 2);
        assert_eq!(
            &bytes[5..],
            br#"{"error":{"code":"not_found","message":"no"}}"#
        );
        assert_eq!(&end_ok()[..], b"\x02\0\0\0\x02{}");
    }

    #[test]
    fn what_we_do_not_accept_is_refused_from_its_header() {
        let mut decoder = Decoder::default();
        decoder.feed(&[0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.next(), Err(EnvelopeError::TooLarge(0xffff_ffff)));
        let mut decoder = Decoder::default();
        decoder.feed(&[1, 0, 0, 0, 1]);
        assert_eq!(decoder.next(), Err(EnvelopeError::Compressed));
        let mut decoder = Decoder::default();
        decoder.feed(&[0, 0, 0, 0, 2, b'{']);
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.finish(), Err(EnvelopeError::Truncated));
    }

    proptest! {
        #[test]
        fn envelopes_survive_any_split(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6),
            cut in 1_usize..64,
        ) {
            let mut wire = Vec::new();
            for message in &messages {
                wire.extend_from_slice(&envelope(0, message));
            }
            wire.extend_from_slice(&end_ok());
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in wire.chunks(cut) {
                decoder.feed(piece);
                while let Some(envelope) = decoder.next().unwrap() {
                    seen.push(envelope);
                }
            }
            prop_assert_eq!(decoder.finish(), Ok(()));
            let mut wanted: Vec<_> =
                messages.into_iter().map(|m| Envelope::Message(m.into())).collect();
            wanted.push(Envelope::End);
            prop_assert_eq!(seen, wanted);
        }

        #[test]
        fn no_bytes_make_it_panic(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let mut decoder = Decoder::default();
            'all: for piece in &pieces {
                decoder.feed(piece);
                loop {
                    match decoder.next() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'all,
                    }
                }
            }
            let _ = decoder.finish();
        }
    }
}
