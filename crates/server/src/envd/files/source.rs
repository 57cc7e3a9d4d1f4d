//! Reading a file for an answer.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::Stream;
use http::StatusCode;
use woodfrog_guest_client::{ByteStream, FileRead};

use super::CHUNK;
use super::encoding::Coding;
use crate::envd::local::Transfer;
use crate::envd::rest::RestError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    /// To the end, wherever that is: files of the kernel say that they are empty and are not.
    Unknown,
}

/// An open file that is read in large pieces.
pub(super) struct Source {
    origin: Origin,
    mtime_ns: i64,
    size: u64,
    /// What is still to be read.
    left: Length,
    /// Read ahead of the answer's head.
    first: Option<Bytes>,
    _slot: Transfer,
}

enum Origin {
    /// On a disk that we may read ourselves, on threads that may block.
    Disk(File),
    /// Through the guest.
    Band(ByteStream),
    /// A thread has the file, or lost it.
    Away,
}

impl Source {
    /// Looks at the file. One that says it is empty is read to see whether it is.
    pub(super) async fn begin(opened: FileRead, slot: Transfer) -> Result<Self, RestError> {
        let (origin, entry) = match opened {
            FileRead::File { file, entry } => (Origin::Disk(file), entry),
            FileRead::Stream { stream, entry } => (Origin::Band(stream), entry),
        };
        let size = match &origin {
            // The entry of a symlink has the length of the link.
            Origin::Disk(file) => file.metadata().map_err(failed)?.len(),
            Origin::Band(_) | Origin::Away => entry.link.map_or(entry.size, |link| {
                link.target.map_or(entry.size, |target| target.size)
            }),
        };
        let mut source = Self {
            origin,
            mtime_ns: entry.mtime_ns,
            size,
            left: Length::Known(size),
            first: None,
            _slot: slot,
        };
        if size == 0 {
            source.left = Length::Unknown;
            match source.piece().await.map_err(failed)? {
                Some(bytes) => source.first = Some(bytes),
                None => source.left = Length::Known(0),
            }
        }
        Ok(source)
    }

    pub(super) fn mtime_ns(&self) -> i64 {
        self.mtime_ns
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn length(&self) -> Length {
        self.left
    }

    /// Only a part of the file is wanted. For a file that only the guest reads, nothing is left
    /// to choose: `false`.
    pub(super) fn seek(&mut self, start: u64, length: u64) -> Result<Seek, RestError> {
        let Origin::Disk(file) = &mut self.origin else {
            return Ok(Seek::Impossible);
        };
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        self.left = Length::Known(length);
        Ok(Seek::Done)
    }

    /// The rest as a body.
    pub(super) fn body(self, coding: Coding) -> Body {
        match coding {
            Coding::Identity => Body::from_stream(self.stream()),
            Coding::Gzip => Body::from_stream(gzip(self)),
        }
    }

    fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures_util::stream::unfold(Some(self), |source| async move {
            let mut source = source?;
            match source.piece().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(source))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// The next piece. A file that has become shorter than announced is an error: the answer's
    /// length is out already. What it has become longer is left out.
    async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let limit = match self.left {
            Length::Known(0) => return Ok(None),
            Length::Known(left) => left,
            Length::Unknown => CHUNK as u64,
        };
        let mut bytes = match &mut self.origin {
            Origin::Band(stream) => {
                let next = stream.next().await.map_err(io::Error::other)?;
                next.unwrap_or_default()
            }
            Origin::Disk(_) | Origin::Away => self.read(limit.min(CHUNK as u64)).await?,
        };
        if let Length::Known(left) = self.left {
            bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.left = Length::Known(left - bytes.len() as u64);
        }
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    async fn read(&mut self, limit: u64) -> io::Result<Bytes> {
        let Origin::Disk(mut file) = std::mem::replace(&mut self.origin, Origin::Away) else {
            return Err(io::Error::other("an earlier read was abandoned"));
        };
        let done = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::with_capacity(usize::try_from(limit).unwrap_or(CHUNK));
            let result = (&mut file).take(limit).read_to_end(&mut bytes);
            (file, result.map(|_| Bytes::from(bytes)))
        });
        let (file, result) = done
            .await
            .map_err(|_| io::Error::other("a reader stopped"))?;
        self.origin = Origin::Disk(file);
        result
    }
}

/// Whether a part can be read alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seek {
    Done,
    Impossible,
}

/// Compresses a source as it is read.
fn gzip(source: Source) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    futures_util::stream::unfold(Some((source, encoder)), |state| async move {
        let (mut source, mut encoder) = state?;
        loop {
            let next = match source.piece().await {
                Ok(next) => next,
                // It has become shorter since, and no length is out that says otherwise.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
                Err(error) => return Some((Err(error), None)),
            };
            let Some(bytes) = next else {
                return Some((encoder.finish().map(Bytes::from), None));
            };
            if let Err(error) = encoder.write_all(&bytes) {
                return Some((Err(error), None));
            }
            let out = std::mem::take(encoder.get_mut());
            if !out.is_empty() {
                return Some((Ok(Bytes::from(out)), Some((source, encoder))));
            }
        }
    })
}

fn failed(why: impl std::fmt::Display) -> RestError {
    RestError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("error reading file: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use woodfrog_types::SandboxId;

    use super::*;
    use crate::envd::local::Locals;

    /// A file of ten bytes of which five are left when it is read.
    async fn shrunk(coding: Coding) -> Result<Bytes, axum::Error> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file.rewind().unwrap();
        file.set_len(5).unwrap();
        let local = Locals::default().of(&SandboxId::generate());
        let source = Source {
            origin: Origin::Disk(file),
            mtime_ns: 0,
            size: 10,
            left: Length::Known(10),
            first: None,
            _slot: local.transfer().await,
        };
        Ok(source.body(coding).collect().await?.to_bytes())
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_ends_where_it_ends_unless_its_length_is_out() {
        let packed = shrunk(Coding::Gzip).await.unwrap();
        let mut text = String::new();
        let mut unpacked = flate2::read::GzDecoder::new(&packed[..]);
        unpacked.read_to_string(&mut text).unwrap();
        assert_eq!(text, "01234");
        assert!(shrunk(Coding::Identity).await.is_err());
    }
}
