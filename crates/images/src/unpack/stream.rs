//! Decompression by content, and the bounds and digest of what comes out.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::UnpackError;

const BUFFER: usize = 256 * 1024;

/// The archive's bytes without compression: gzip and zstd are recognised by their first bytes.
pub(super) fn decompress<'a>(reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>, UnpackError> {
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    let magic = reader.fill_buf()?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(MultiGzDecoder::new(reader)));
    }
    if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Box::new(zstd::stream::read::Decoder::with_buffer(reader)?));
    }
    if magic.starts_with(b"\xfd7zXZ") {
        return Err(UnpackError::Unsupported(
            "xz compression (use gzip or zstd)",
        ));
    }
    if magic.starts_with(b"BZh") {
        return Err(UnpackError::Unsupported(
            "bzip2 compression (use gzip or zstd)",
        ));
    }
    Ok(Box::new(reader))
}

/// Hashes and counts what passes through, and ends in an error past the limit.
pub(super) struct Metered<R> {
    inner: R,
    hasher: Sha256,
    left: u64,
    exhausted: bool,
}

impl<R: Read> Metered<R> {
    pub(super) fn new(inner: R, limit: u64) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            left: limit,
            exhausted: false,
        }
    }

    pub(super) fn exhausted(&self) -> bool {
        self.exhausted
    }

    /// Reads to the end of the stream: archives are padded past their last entry.
    pub(super) fn finish(mut self) -> io::Result<Sha256> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        if got as u64 > self.left {
            self.exhausted = true;
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "archive limit"));
        }
        self.left -= got as u64;
        self.hasher.update(&buffer[..got]);
        Ok(got)
    }
}
