//! Makes directories and files for a user.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown},
    path::Path,
    sync::Arc,
};

use rustix::fs::OFlags;
use woodfrog_guest_proto::{EntryInfo, ErrorCode, WriteMode};

use super::{Place, metadata, relocate::relocate};
use crate::error::{OpResult, fail, invalid, system};

const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
const PERMISSION_BITS: u32 = 0o7777;

/// Makes a directory and its parents; the directory itself must be new.
pub(super) fn mkdir(place: &Place, mode: Option<u32>) -> OpResult<EntryInfo> {
    let path = place.path.as_str();
    if let Ok(meta) = fs::metadata(path) {
        let what = if meta.is_dir() { "directory" } else { "path" };
        return Err(fail(
            ErrorCode::AlreadyExists,
            format!("{what} '{path}' already exists"),
        ));
    }
    parents(place)?;
    make_directory(place, path)?;
    if let Some(mode) = mode {
        set_mode(path, mode)?;
    }
    place.entry()
}

/// Moves, with `rename(2)` or, to another file system, by copying; the parents of the target are
/// made.
pub(super) fn rename(from: &Place, to: &Place) -> OpResult<EntryInfo> {
    let source = from.path.as_str();
    fs::symlink_metadata(source).map_err(|e| system(&format!("path '{source}'"), e))?;
    parents(to)?;
    match fs::rename(source, &to.path) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::CrossesDevices => relocate(source, &to.path)?,
        Err(e) => return Err(system(&format!("moving '{source}' to '{}'", to.path), e)),
    }
    to.entry()
}

/// Makes the missing directories above a path.
fn parents(place: &Place) -> OpResult<()> {
    let mut missing = Vec::new();
    for dir in Path::new(&place.path).ancestors().skip(1) {
        match fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => break,
            Ok(_) => {
                let message = format!("path '{}' is not a directory", dir.display());
                return Err(fail(ErrorCode::NotADirectory, message));
            }
            Err(e) if e.kind() == ErrorKind::NotFound => missing.push(dir),
            Err(e) => return Err(system(&format!("path '{}'", dir.display()), e)),
        }
    }
    for dir in missing.into_iter().rev() {
        if let Some(dir) = dir.to_str() {
            make_directory(place, dir)?;
        }
    }
    Ok(())
}

fn make_directory(place: &Place, path: &str) -> OpResult<()> {
    let what = || format!("path '{path}'");
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists && Path::new(path).is_dir() => return Ok(()),
        Err(e) => return Err(system(&what(), e)),
    }
    match place.owner {
        Some((uid, gid)) => lchown(path, Some(uid), Some(gid)).map_err(|e| system(&what(), e)),
        None => Ok(()),
    }
}

fn set_mode(path: &str, mode: u32) -> OpResult<()> {
    fs::set_permissions(path, Permissions::from_mode(mode & PERMISSION_BITS))
        .map_err(|e| system(&format!("path '{path}'"), e))
}

/// A file open for writing from its beginning. Until [`Output::commit`] an atomic one leaves the
/// target as it was.
pub(super) struct Output {
    pub(super) file: Arc<File>,
    /// Set while the content lies beside its target.
    temporary: Option<String>,
    target: String,
}

impl Output {
    /// Makes or empties the file and its parents, and gives it to the user.
    pub(super) fn create(place: &Place, replace: WriteMode, mode: Option<u32>) -> OpResult<Self> {
        parents(place)?;
        // Following links here keeps a link a link when the content is renamed into place.
        let target = fs::canonicalize(&place.path)
            .ok()
            .and_then(|p| p.into_os_string().into_string().ok())
            .unwrap_or_else(|| place.path.clone());
        let existing = fs::metadata(&target).ok();
        if existing.as_ref().is_some_and(|m| m.is_dir()) {
            let message = format!("path '{}' is a directory", place.path);
            return Err(fail(ErrorCode::IsADirectory, message));
        }
        if existing.as_ref().is_some_and(|m| !m.is_file()) {
            return Err(invalid(format!(
                "path '{}' is not a regular file",
                place.path
            )));
        }
        let mode = existing
            .as_ref()
            .map(|m| m.mode())
            .or(mode)
            .unwrap_or(FILE_MODE);
        let mode = mode & PERMISSION_BITS;
        let temporary = match replace {
            WriteMode::Truncate => None,
            WriteMode::Atomic => Some(beside(&target)),
        };
        let file = Arc::new(open(temporary.as_deref(), &target)?);
        let output = Self {
            file,
            temporary,
            target,
        };
        let what = format!("path '{}'", place.path);
        output
            .prepare(place, mode, existing.is_none())
            .map_err(|e| system(&what, e))?;
        Ok(output)
    }

    fn prepare(&self, place: &Place, mode: u32, new: bool) -> std::io::Result<()> {
        let meta = self.file.metadata()?;
        if !meta.is_file() {
            return Err(ErrorKind::InvalidInput.into());
        }
        // Files of /proc have no size and cannot be truncated.
        if meta.len() > 0 {
            self.file.set_len(0)?;
        }
        if let Some((uid, gid)) = place.owner.filter(|o| *o != (meta.uid(), meta.gid())) {
            std::os::unix::fs::fchown(&*self.file, Some(uid), Some(gid))?;
        }
        // After the change of owner, which takes set-id bits away.
        if new || self.temporary.is_some() {
            self.file.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// The file that gets the content, links followed.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    pub(super) fn set_metadata(
        &self,
        place: &Place,
        wanted: Option<&std::collections::BTreeMap<String, String>>,
    ) -> OpResult<()> {
        match (wanted, &place.prefix) {
            (None, _) => Ok(()),
            (Some(wanted), Some(prefix)) => metadata::replace(&self.file, prefix, wanted),
            (Some(_), None) => Err(invalid("metadata needs an attribute prefix")),
        }
    }

    /// Puts the content in its place.
    pub(super) fn commit(mut self) -> OpResult<()> {
        let Some(temporary) = self.temporary.take() else {
            return Ok(());
        };
        fs::rename(&temporary, &self.target).map_err(|e| {
            self.temporary = Some(temporary);
            system(&format!("path '{}'", self.target), e)
        })
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // It may be gone already; nothing depends on it.
            let _ = fs::remove_file(temporary);
        }
    }
}

fn open(temporary: Option<&str>, target: &str) -> OpResult<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .custom_flags(flags.bits() as i32)
        .mode(FILE_MODE & 0o600);
    match temporary {
        Some(_) => options.create_new(true),
        // Emptied later, once it is known to be a regular file.
        None => options.create(true).truncate(false),
    };
    let path = temporary.unwrap_or(target);
    options
        .open(path)
        .map_err(|e| system(&format!("path '{target}'"), e))
}

/// A name in the directory of `target` that nobody uses.
pub(super) fn beside(target: &str) -> String {
    let mut bytes = [0u8; 8];
    // Without entropy the name may be taken; creation then fails and says so.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let (dir, _) = target.rsplit_once('/').unwrap_or(("", target));
    format!("{dir}/.woodfrog-{:016x}.tmp", u64::from_ne_bytes(bytes))
}
