//! The root object of an archive: small, names the chunks of its manifest.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{BlobError, Digest, Key, ManifestId, Result};

const FORMAT: &str = "woodfrog-archive";
/// Version of the root and of the records.
const VERSION: u32 = 1;
/// The most chunks of a manifest: 4 GiB of records.
const BODY_MAX: usize = 4096;
/// The most bytes of a root object.
pub(crate) const ROOT_MAX: usize = 1 << 20;

/// What an archive is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    format: String,
    version: u32,
    /// The caller's name for it.
    pub(crate) label: String,
    /// Random, so that archives of the same folder are told apart and deleted one by one.
    nonce: u64,
    /// Seconds since 1970.
    pub(crate) created_at: u64,
    /// Entries of the tree.
    pub(crate) entries: u64,
    /// Bytes of its files, holes left out.
    pub(crate) bytes: u64,
    /// The chunks that make up the records, in order.
    pub(crate) body: Vec<Digest>,
}

#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

impl Root {
    pub(crate) fn new(label: &str, nonce: u64, created_at: u64) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            label: label.into(),
            nonce,
            created_at,
            entries: 0,
            bytes: 0,
            body: Vec::new(),
        }
    }

    /// Its stored form and name.
    pub(crate) fn encode(&self) -> Result<(ManifestId, Bytes)> {
        if self.body.len() > BODY_MAX {
            return Err(BlobError::Source {
                path: self.label.clone().into(),
                why: "it has too many files for one archive".into(),
            });
        }
        let bytes = serde_json::to_vec(self)
            .map_err(|error| BlobError::corrupt("the root of an archive", error))?;
        Ok((ManifestId(Digest::of(&bytes)), bytes.into()))
    }

    /// Reads the root with this name.
    pub(crate) fn decode(id: ManifestId, bytes: &[u8]) -> Result<Self> {
        let what = || Key::Manifest(id).to_string();
        if Digest::of(bytes) != id.0 {
            return Err(BlobError::corrupt(what(), "its root has another checksum"));
        }
        let head: Head =
            serde_json::from_slice(bytes).map_err(|error| BlobError::corrupt(what(), error))?;
        if head.format != FORMAT {
            return Err(BlobError::corrupt(what(), "its root is something else"));
        }
        if head.version != VERSION {
            return Err(BlobError::Foreign {
                what: what(),
                found: head.version,
                readable: VERSION,
            });
        }
        let root: Self =
            serde_json::from_slice(bytes).map_err(|error| BlobError::corrupt(what(), error))?;
        if root.body.len() > BODY_MAX {
            return Err(BlobError::corrupt(what(), "its manifest is too long"));
        }
        Ok(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_of_another_version_or_content_is_refused() {
        let mut root = Root::new("a", 1, 2);
        let (id, bytes) = root.encode().unwrap();
        assert_eq!(Root::decode(id, &bytes).unwrap(), root);
        let error = Root::decode(id, &bytes[1..]).unwrap_err().to_string();
        assert!(error.contains("another checksum"), "{error}");
        root.version = 2;
        let (id, bytes) = root.encode().unwrap();
        let error = Root::decode(id, &bytes).unwrap_err().to_string();
        assert!(error.contains("format version 2"), "{error}");
        root.format = "tar".into();
        let (id, bytes) = root.encode().unwrap();
        assert!(Root::decode(id, &bytes).is_err());
    }
}
