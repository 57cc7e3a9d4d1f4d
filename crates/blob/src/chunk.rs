//! The form of a chunk: a head, then the content, compressed when that makes it smaller.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{BlobError, Digest, Key, Result};

/// The most content of one chunk, and the grid at which files are cut.
pub const CHUNK_BYTES: usize = 1 << 20;

/// The most bytes of a stored chunk.
pub(crate) const STORED_MAX: usize = HEAD + CHUNK_BYTES;

/// `wfc`, version, codec, length of the content (little endian).
const HEAD: usize = 9;
const MAGIC: &[u8] = b"wfc";
const VERSION: u8 = 1;
const RAW: u8 = 0;
const ZSTD: u8 = 1;
/// Level 1: twice the speed of the default for a few per cent more bytes.
const LEVEL: i32 = 1;

/// The stored form of some content.
pub(crate) fn encode(content: &[u8]) -> Bytes {
    debug_assert!(content.len() <= CHUNK_BYTES);
    let mut stored = BytesMut::with_capacity(HEAD + content.len());
    let packed = zstd::bulk::compress(content, LEVEL).ok();
    let (codec, body) = match &packed {
        Some(packed) if packed.len() < content.len() => (ZSTD, packed.as_slice()),
        _ => (RAW, content),
    };
    stored.put_slice(MAGIC);
    stored.put_u8(VERSION);
    stored.put_u8(codec);
    stored.put_u32_le(u32::try_from(content.len()).unwrap_or(u32::MAX));
    stored.put_slice(body);
    stored.freeze()
}

/// The content of a stored chunk, which must have this digest.
pub(crate) fn decode(digest: Digest, stored: &Bytes) -> Result<Bytes> {
    let bad = |why: &str| BlobError::corrupt(Key::Chunk(digest).to_string(), why);
    let (head, body) = stored
        .split_at_checked(HEAD)
        .ok_or_else(|| bad("it is cut short"))?;
    if !head.starts_with(MAGIC) {
        return Err(bad("it does not begin like a chunk"));
    }
    if head[3] != VERSION {
        return Err(BlobError::Foreign {
            what: Key::Chunk(digest).to_string(),
            found: head[3].into(),
            readable: VERSION.into(),
        });
    }
    let length = u32::from_le_bytes([head[5], head[6], head[7], head[8]]) as usize;
    if length > CHUNK_BYTES {
        return Err(bad("it claims more content than a chunk may have"));
    }
    let content = match head[4] {
        RAW => stored.slice(HEAD..),
        ZSTD => zstd::bulk::decompress(body, length)
            .map_err(|error| bad(&format!("it cannot be decompressed: {error}")))?
            .into(),
        _ => return Err(bad("its compression is unknown")),
    };
    if content.len() != length || Digest::of(&content) != digest {
        return Err(bad("its content has another checksum"));
    }
    Ok(content)
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, tail) = bytes.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && tail.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_comes_back_and_shrinks_when_it_can() {
        let text = vec![b'a'; 100_000];
        let packed = encode(&text);
        assert!(packed.len() < 1000);
        assert_eq!(decode(Digest::of(&text), &packed).unwrap(), text);
        let noise: Vec<u8> = (0..4096u32)
            .flat_map(|i| blake3::hash(&i.to_le_bytes()).as_bytes().to_owned())
            .collect();
        let raw = encode(&noise);
        assert_eq!(raw.len(), HEAD + noise.len());
        assert_eq!(decode(Digest::of(&noise), &raw).unwrap(), noise);
    }

    #[test]
    fn damage_is_noticed() {
        // Noise is stored as it is; a flipped bit that a decompressor ignores is no damage.
        let mut content = vec![0; 5000];
        blake3::Hasher::new().finalize_xof().fill(&mut content);
        let digest = Digest::of(&content);
        let stored = encode(&content);
        for cut in 0..stored.len() {
            assert!(
                decode(digest, &stored.slice(..cut)).is_err(),
                "cut at {cut}"
            );
        }
        for place in 0..stored.len() {
            let mut bytes = stored.to_vec();
            bytes[place] ^= 0x10;
            assert!(decode(digest, &bytes.into()).is_err(), "flip at {place}");
        }
        let mut foreign = stored.to_vec();
        foreign[3] = 9;
        let error = decode(digest, &foreign.into()).unwrap_err().to_string();
        assert!(error.contains("format version 9"), "{error}");
        assert!(decode(Digest::of(b"other"), &stored).is_err());
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        let mut stored = encode(&[1; 100]).to_vec();
        stored[5..9].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = decode(Digest::of(&[1; 100]), &stored.into()).unwrap_err();
        assert!(error.to_string().contains("more content"), "{error}");
    }

    #[test]
    fn zeros() {
        assert!(is_zero(&[]));
        assert!(is_zero(&[0; 100]));
        for place in [0, 15, 16, 63, 99] {
            let mut bytes = [0; 100];
            bytes[place] = 1;
            assert!(!is_zero(&bytes));
        }
    }
}
