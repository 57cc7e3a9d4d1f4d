//! The port: a flat store of small immutable objects.
//!
//! What every adapter promises (and the conformance suite checks):
//! - `put` is atomic and durable: afterwards the object is whole, also after power loss; before
//!   that, and when it fails, it is as it was.
//! - `put` of an existing object sets its time anew.
//! - `delete` of what is not there is `Ok`.
//! - `list` shows every object that was there during all of the listing.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::{BlobError, Digest, ManifestId, Result};

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A piece of content.
    Chunk,
    /// The root of an archive.
    Manifest,
    /// A note that a chunk was without a reference when the garbage collection last looked.
    Condemned,
}

/// The name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Chunk(Digest),
    Manifest(ManifestId),
    Condemned(Digest),
}

impl Kind {
    /// The folder of these objects.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Chunk => "chunks",
            Self::Manifest => "manifests",
            Self::Condemned => "condemned",
        }
    }
}

impl Key {
    /// The key of this kind and digest.
    pub fn new(kind: Kind, digest: Digest) -> Self {
        match kind {
            Kind::Chunk => Self::Chunk(digest),
            Kind::Manifest => Self::Manifest(ManifestId(digest)),
            Kind::Condemned => Self::Condemned(digest),
        }
    }

    /// Its kind.
    pub fn kind(self) -> Kind {
        match self {
            Self::Chunk(_) => Kind::Chunk,
            Self::Manifest(_) => Kind::Manifest,
            Self::Condemned(_) => Kind::Condemned,
        }
    }

    /// Its digest.
    pub fn digest(self) -> Digest {
        match self {
            Self::Chunk(digest) | Self::Manifest(ManifestId(digest)) | Self::Condemned(digest) => {
                digest
            }
        }
    }

    /// `chunks/ab/abcd…`: the second level keeps directories small.
    pub fn path(self) -> String {
        let name = self.digest().to_string();
        format!("{}/{}/{name}", self.kind().folder(), &name[..2])
    }

    /// The key with this path, if it is one of ours.
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.rsplit('/');
        let digest = parts.next()?.parse().ok()?;
        let folder = parts.nth(1)?;
        [Kind::Chunk, Kind::Manifest, Kind::Condemned]
            .into_iter()
            .find(|kind| kind.folder() == folder)
            .map(|kind| Self::new(kind, digest))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunk(digest) => write!(f, "chunk {digest}"),
            Self::Manifest(id) => write!(f, "archive {id}"),
            Self::Condemned(digest) => write!(f, "note about chunk {digest}"),
        }
    }
}

/// An object that was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub key: Key,
    /// Bytes it takes.
    pub size: u64,
    /// When it was last put.
    pub modified: SystemTime,
}

/// Where archives are kept.
#[async_trait]
pub trait BlobStore: Send + Sync {
    /// Writes an object, whole and durable, over an older one.
    async fn put(&self, key: Key, bytes: Bytes) -> Result<()>;
    /// Reads one that has at most `max` bytes; `NotFound` if there is none, `Corrupt` if it is
    /// larger.
    async fn get(&self, key: Key, max: usize) -> Result<Bytes>;
    /// What is known of an object without reading it.
    async fn head(&self, key: Key) -> Result<Option<Found>>;
    /// Every object of a kind, in any order.
    fn list(&self, kind: Kind) -> BoxStream<'static, Result<Found>>;
    /// Removes one.
    async fn delete(&self, key: Key) -> Result<()>;
    /// Removes what interrupted writes left, if they are older than this. Returns how many.
    async fn sweep_partial(&self, older: Duration) -> Result<u64>;
}

/// The error of an object that must be there.
pub(crate) fn missing(key: Key) -> BlobError {
    BlobError::NotFound(key.to_string())
}
