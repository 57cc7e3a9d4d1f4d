//! What the store remembers of each layer beside its directory, so that listing is cheap.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::unpack::UnpackStats;

/// How a layer came into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerOrigin {
    /// Unpacked from an archive whose digest is the layer's name.
    Archive,
    /// A directory that was prepared on this machine.
    Directory,
}

pub(super) struct LayerInfo {
    pub(super) origin: LayerOrigin,
    pub(super) stats: UnpackStats,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    origin: LayerOrigin,
    bytes: u64,
    entries: u64,
    #[serde(default)]
    skipped_devices: u64,
    #[serde(default)]
    skipped_xattrs: u64,
}

/// Damaged information is as good as none: the layer itself can be counted again.
pub(super) fn load(dir: &Path, digest: &Digest) -> io::Result<Option<LayerInfo>> {
    let text = match std::fs::read(dir.join(digest.as_str())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let Ok(stored) = serde_json::from_slice::<Stored>(&text) else {
        return Ok(None);
    };
    let Stored {
        origin,
        bytes,
        entries,
        skipped_devices,
        skipped_xattrs,
    } = stored;
    let stats = UnpackStats {
        bytes,
        entries,
        skipped_devices,
        skipped_xattrs,
    };
    Ok(Some(LayerInfo { origin, stats }))
}

pub(super) fn save(dir: &Path, digest: &Digest, info: &LayerInfo) -> io::Result<()> {
    let LayerInfo { origin, stats } = info;
    let UnpackStats {
        bytes,
        entries,
        skipped_devices,
        skipped_xattrs,
    } = *stats;
    let stored = Stored {
        origin: *origin,
        bytes,
        entries,
        skipped_devices,
        skipped_xattrs,
    };
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer(&mut file, &stored)?;
    file.persist(dir.join(digest.as_str()))
        .map_err(|failed| failed.error)?;
    Ok(())
}

pub(super) fn remove(dir: &Path, digest: &Digest) -> io::Result<()> {
    match std::fs::remove_file(dir.join(digest.as_str())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
