//! Unpacks hostile tar archives into a fresh directory.

mod archive;
mod stream;
mod tree;

use std::io::{self, Read};
use std::path::Path;

use sha2::Sha256;
use thiserror::Error;

use crate::blocking::Cancelled;
use crate::progress::{Phase, Progress};

use archive::Archive;
use stream::Metered;

/// The highest uid and gid in a layer: sandboxes have 65536 ids.
pub(crate) const MAX_ID: u64 = 65_535;
/// Entries between two progress events.
const REPORT_EVERY: u64 = 500;

/// Bounds on one archive.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the archive without compression, headers included.
    pub max_bytes: u64,
    /// Files, directories, links and whatever else it holds.
    pub max_entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 32 << 30,
            max_entries: 2_000_000,
        }
    }
}

/// What names starting with `.wh.` mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// Deletions, as in OCI image layers; they become overlay whiteouts and opaque directories.
    Oci,
    /// Ordinary names, as in archives that are not layers.
    Literal,
}

/// Whose the files become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    /// As the archive says.
    Archive,
    /// All of them root's: the archive's ids are those of another machine.
    Root,
}

/// What an archive held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnpackStats {
    /// Bytes of file contents.
    pub bytes: u64,
    /// Entries unpacked.
    pub entries: u64,
    /// Device nodes left out: sandboxes get their devices from the system.
    pub skipped_devices: u64,
    /// Extended attributes left out: only `user.*` and file capabilities are kept.
    pub skipped_xattrs: u64,
}

/// Why an archive was not unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    #[error("archive is malformed: {0}")]
    Malformed(&'static str),
    #[error("archive is malformed: a header's {0} does not parse")]
    BadField(&'static str),
    #[error("archive holds {0}, which is not supported")]
    Unsupported(&'static str),
    #[error("entry `{path}` {problem}")]
    Entry { path: String, problem: &'static str },
    #[error("entry `{path}` belongs to id {id}, but a sandbox has ids 0 to 65535 only")]
    IdTooLarge { path: String, id: u64 },
    #[error("archive unpacks to more than {0} bytes")]
    TooManyBytes(u64),
    #[error("archive has more than {0} entries")]
    TooManyEntries(u64),
    #[error("cannot unpack `{path}`")]
    Write {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the archive")]
    Io(#[from] io::Error),
    #[error("unpacking was given up")]
    Cancelled,
}

/// Unpacks `reader` into the empty directory `dir`. The hash is that of the uncompressed archive.
/// Nothing outside `dir` is touched whatever the archive holds.
pub(crate) fn unpack_into(
    dir: &Path,
    reader: impl Read,
    limits: Limits,
    (whiteouts, owners): (Whiteouts, Owners),
    progress: &Progress,
    cancelled: &Cancelled,
) -> Result<(Sha256, UnpackStats), UnpackError> {
    let source = Metered::new(stream::decompress(reader)?, limits.max_bytes);
    let mut archive = Archive::new(source);
    let mut tree = tree::Tree::open(dir, whiteouts)?;
    let result = write_entries(&mut archive, &mut tree, limits, owners, progress, cancelled);
    let source = archive.into_inner();
    if source.exhausted() {
        return Err(UnpackError::TooManyBytes(limits.max_bytes));
    }
    result?;
    let stats = tree.finish()?;
    let hasher = source.finish().map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => UnpackError::TooManyBytes(limits.max_bytes),
        _ => UnpackError::Io(error),
    })?;
    Ok((hasher, stats))
}

fn write_entries<R: Read>(
    archive: &mut Archive<R>,
    tree: &mut tree::Tree,
    limits: Limits,
    owners: Owners,
    progress: &Progress,
    cancelled: &Cancelled,
) -> Result<(), UnpackError> {
    let mut count = 0;
    while let Some(mut entry) = archive.next()? {
        if owners == Owners::Root {
            (entry.uid, entry.gid) = (0, 0);
        }
        count += 1;
        if count > limits.max_entries {
            return Err(UnpackError::TooManyEntries(limits.max_entries));
        }
        if cancelled.is_set() {
            return Err(UnpackError::Cancelled);
        }
        if count % REPORT_EVERY == 0 {
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            progress.emit(Phase::Unpacking, None, Some(name));
        }
        tree.write(&entry, archive, cancelled)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
