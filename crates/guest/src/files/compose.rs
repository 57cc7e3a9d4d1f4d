//! Joins files into one.

use std::{fs, io, path::Path};

use woodfrog_guest_proto::{EntryInfo, WriteMode, limits};

use super::{Place, create::Output, transfer::open_regular};
use crate::error::{OpResult, invalid, system};

/// Writes the sources one after the other to `place`, in one step, then removes them. When it
/// fails, the sources and what `place` was before are as they were.
pub(super) fn compose(place: &Place, sources: &[Place]) -> OpResult<EntryInfo> {
    if sources.is_empty() || sources.len() > limits::MAX_SOURCES {
        let most = limits::MAX_SOURCES;
        return Err(invalid(format!("1 to {most} files can be joined")));
    }
    // Looked at before anything is made.
    for source in sources {
        open_regular(source)?;
    }
    let output = Output::create(place, WriteMode::Atomic, None)?;
    for source in sources {
        let what = format!("path '{}'", source.path);
        let real = fs::canonicalize(&source.path).map_err(|e| system(&what, e))?;
        if real == Path::new(output.target()) {
            return Err(invalid(format!("{what} is the destination")));
        }
        let mut from = open_regular(source)?;
        // Within one file system the kernel copies, or shares, without the bytes coming here.
        io::copy(&mut from, &mut &*output.file).map_err(|e| system(&what, e))?;
    }
    output.commit()?;
    for source in sources {
        match fs::remove_file(&source.path) {
            // Named twice.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(|e| system(&format!("path '{}'", source.path), e))?,
        }
    }
    place.entry()
}
