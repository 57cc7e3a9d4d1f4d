//! Lines of JSON out of a response that is still coming.

use bytes::{Buf, Bytes, BytesMut};
use reqwest::Response;
use serde::de::DeserializeOwned;

use super::ClientError;

/// Bytes of one line; the server's are far below.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Reads one value per line. A chunk or a line is held at a time.
#[derive(Debug)]
pub struct Lines {
    response: Response,
    rest: BytesMut,
    /// Bytes of `rest` that have no line's end in them.
    searched: usize,
}

impl Lines {
    /// The lines of this response.
    pub fn new(response: Response) -> Self {
        Self {
            response,
            rest: BytesMut::new(),
            searched: 0,
        }
    }

    /// The next value; `None` at the end of the response.
    ///
    /// # Errors
    /// The response was cut off, or a line is not understood.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        while let Some(line) = self.line().await? {
            if !line.iter().all(u8::is_ascii_whitespace) {
                let value = serde_json::from_slice(&line).map_err(ClientError::Malformed)?;
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The next data of a stream of server-sent events, each of which is one line; `None` at the
    /// end of the response.
    ///
    /// # Errors
    /// The response was cut off.
    pub async fn data(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(line) = self.line().await? {
            if let Some(data) = line.strip_prefix(b"data: ") {
                return Ok(Some(line.slice_ref(data)));
            }
        }
        Ok(None)
    }

    async fn line(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(line) = self.buffered_line() {
                return Ok(Some(line));
            }
            if self.rest.len() > LINE_BYTES_MAX {
                return Err(ClientError::Setup("the server sent an endless line".into()));
            }
            match self.response.chunk().await.map_err(ClientError::Broken)? {
                Some(chunk) => self.rest.extend_from_slice(&chunk),
                None if self.rest.is_empty() => return Ok(None),
                None => return Ok(Some(self.rest.split().freeze())),
            }
        }
    }

    fn buffered_line(&mut self) -> Option<Bytes> {
        let fresh = &self.rest[self.searched..];
        let Some(end) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.rest.len();
            return None;
        };
        let line = self.rest.split_to(self.searched + end).freeze();
        self.rest.advance(1);
        self.searched = 0;
        Some(line)
    }
}
