//! A sandbox's own disk: a subvolume with its writable layer, made empty or from a snapshot.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use woodfrog_linux::{btrfs, overlay};
use woodfrog_network::DNS_ADDRESS;
use woodfrog_sandbox::{DriverError, LaunchSpec};
use woodfrog_types::{SandboxId, SnapshotId};

use crate::driver::Shared;
use crate::error::step;
use crate::manifest::{MANIFEST, MEMORY, Manifest};
use crate::seed::seed;

/// The most that is read of a file that may hold the host name.
const NAME_FILE_MAX: u64 = 64 << 10;

/// On the folder of a snapshot that was imported.
const IMPORTED: &str = "trusted.woodfrog.imported";

/// Looks for a sandbox's disk.
const OPEN_TRIES: u32 = 3;

/// How a sandbox got its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is the one that it fell asleep with.
    InPlace,
    /// It was made from the snapshot.
    Copied,
}

/// Makes an empty one.
pub(crate) fn create(shared: &Shared, spec: &LaunchSpec) -> io::Result<()> {
    let dir = shared.paths.sandbox(&spec.id);
    if shared.has_subvolumes() {
        btrfs::create_subvolume(&dir)?;
    } else {
        fs::create_dir(&dir)?;
    }
    limit(shared, &spec.id, spec.resources.disk_bytes)?;
    seed(&dir, &spec.hostname, &DNS_ADDRESS.to_string())
}

/// Limits what a sandbox may write, where that can be.
pub(crate) fn limit(shared: &Shared, id: &SandboxId, bytes: u64) -> io::Result<()> {
    match shared.has_quotas() {
        true => btrfs::limit(&shared.paths.sandbox(id), bytes),
        false => Ok(()),
    }
}

/// Makes the disk of a sandbox what a snapshot holds.
pub(crate) fn claim(
    shared: &Shared,
    spec: &LaunchSpec,
    snapshot: &SnapshotId,
    manifest: &Manifest,
) -> io::Result<Claim> {
    let dir = shared.paths.sandbox(&spec.id);
    let asleep = shared.paths.asleep(&spec.id, snapshot);
    let claim = match fs::rename(&asleep, &dir) {
        Ok(()) => Claim::InPlace,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            remove_asleep(shared, &spec.id)?;
            copy(&shared.paths.snapshot(snapshot), &dir)?;
            settle_import(shared, spec, &dir)?;
            Claim::Copied
        }
        Err(error) => return Err(error),
    };
    limit(shared, &spec.id, spec.resources.disk_bytes)?;
    if manifest.hostname != spec.hostname {
        rename_host(&dir.join("u"), &manifest.hostname, &spec.hostname)?;
    }
    Ok(claim)
}

/// A new subvolume. Overlay's work folder and its mark on the layer speak of the subvolume that
/// they were made in, so both are made anew.
fn copy(snapshot: &Path, dir: &Path) -> io::Result<()> {
    btrfs::snapshot(snapshot, dir)?;
    let work = dir.join("w");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir(&work)?;
    match rustix::fs::lremovexattr(dir.join("u"), "trusted.overlay.origin") {
        Ok(()) | Err(rustix::io::Errno::NODATA) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Notes on a snapshot that it was brought here: by another server perhaps, on whose file system
/// the layers had other file handles.
pub(crate) fn note_import(dir: &Path) -> io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    Ok(rustix::fs::lsetxattr(dir, IMPORTED, b"1", flags)?)
}

/// Makes what is made from such a snapshot fit the layers that are here.
fn settle_import(shared: &Shared, spec: &LaunchSpec, dir: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::lremovexattr(dir, IMPORTED) {
        Ok(()) => {}
        Err(Errno::NODATA) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let layers = crate::launch::layers(&shared.skeleton, spec).map_err(io::Error::other)?;
    overlay::renew_marks(&layers, &dir.join("u"), &dir.join("marks"))
}

/// Removes the disks that a sandbox fell asleep with.
pub(crate) fn remove_asleep(shared: &Shared, id: &SandboxId) -> io::Result<()> {
    let prefix = format!("{id}.");
    remove_disks(shared, |name| name.starts_with(&prefix))
}

/// Opens a sandbox's writable layer, whether it runs or sleeps on this machine.
pub(crate) fn open_upper(shared: &Shared, id: &SandboxId) -> Result<OwnedFd, DriverError> {
    let failed = |error: io::Error| step("open the writable layer", error);
    // It may fall asleep, or wake, between two looks.
    for _ in 0..OPEN_TRIES {
        if let Some(upper) = open_dir(&shared.paths.sandbox(id).join("u")).map_err(failed)? {
            return Ok(upper);
        }
        let asleep = format!("{id}.");
        for entry in fs::read_dir(&shared.paths.sandboxes).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(&asleep))
                && let Some(upper) = open_dir(&entry.path().join("u")).map_err(failed)?
            {
                return Ok(upper);
            }
        }
    }
    Err(DriverError::NotFound { id: id.to_string() })
}

fn open_dir(path: &Path) -> io::Result<Option<OwnedFd>> {
    use rustix::io::Errno;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes the disks whose names are like this.
pub(crate) fn remove_disks(shared: &Shared, which: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(&shared.paths.sandboxes)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&which) {
            remove(shared, &entry.path())?;
        }
    }
    Ok(())
}

/// Removes a subvolume or, where there are none, a folder; none is fine.
pub(crate) fn remove(shared: &Shared, path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    if shared.has_subvolumes() && btrfs::delete_subvolume(path).is_ok() {
        return Ok(());
    }
    match fs::remove_dir_all(path) {
        // Somebody else removed it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes what a snapshot left in the disk of a sandbox: it is in the snapshot.
pub(crate) fn remove_images(dir: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(fs::remove_dir_all(dir.join(MEMORY)))?;
    gone(fs::remove_file(dir.join(MANIFEST)))
}

/// Puts a copy's own host name where its original's was. Files that the sandbox's owner has
/// written otherwise are theirs, and stay.
fn rename_host(upper: &Path, old: &str, new: &str) -> io::Result<()> {
    for name in ["etc/hostname", "etc/hosts"] {
        let Some(mut file) = open_beneath(upper, name)? else {
            continue;
        };
        let mut text = String::new();
        let read = (&mut file).take(NAME_FILE_MAX).read_to_string(&mut text);
        if read.is_err() || text.len() as u64 >= NAME_FILE_MAX {
            continue;
        }
        let renamed = replace_word(&text, old, new);
        if renamed != text {
            rustix::fs::ftruncate(&file, 0)?;
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
            file.write_all(renamed.as_bytes())?;
        }
    }
    Ok(())
}

/// The layer is not trusted: no link in it is followed.
fn open_beneath(dir: &Path, name: &str) -> io::Result<Option<fs::File>> {
    use rustix::io::Errno;
    let dir = fs::File::open(dir)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(&dir, name, flags, Mode::empty(), resolve) {
        Ok(file) => {
            let file = fs::File::from(file);
            Ok(file.metadata()?.is_file().then_some(file))
        }
        Err(
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO | Errno::XDEV,
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn replace_word(text: &str, old: &str, new: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(char::is_whitespace) {
        let word = part.trim_end_matches(char::is_whitespace);
        if word == old {
            out.push_str(new);
            out.push_str(&part[word.len()..]);
        } else {
            out.push_str(part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_are_renamed() {
        let text = "127.0.1.1\told older old\nold\n";
        let renamed = replace_word(text, "old", "new");
        assert_eq!(renamed, "127.0.1.1\tnew older new\nnew\n");
        assert_eq!(replace_word("", "old", "new"), "");
    }

    #[test]
    fn links_in_the_layer_are_not_followed() -> io::Result<()> {
        let (layer, outside) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let file = outside.path().join("hostname");
        fs::write(&file, "old\n")?;
        fs::create_dir(layer.path().join("etc"))?;
        std::os::unix::fs::symlink(&file, layer.path().join("etc/hostname"))?;
        fs::write(layer.path().join("etc/hosts"), "127.0.1.1\told\n")?;
        rename_host(layer.path(), "old", "longer-than-that")?;
        assert_eq!(fs::read_to_string(file)?, "old\n");
        let hosts = fs::read_to_string(layer.path().join("etc/hosts"))?;
        assert_eq!(hosts, "127.0.1.1\tlonger-than-that\n");
        Ok(())
    }
}
