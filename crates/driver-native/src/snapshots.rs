//! Snapshots on disk: finding, checking, removing, bringing in and out.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use woodfrog_linux::btrfs;
use woodfrog_sandbox::{DriverError, Result, SnapshotHealth};
use woodfrog_types::SnapshotId;
use woodfrog_types::snapshot::SnapshotContent;

use crate::disk;
use crate::driver::Shared;
use crate::error::step;
use crate::manifest::{MEMORY, Manifest, Unusable};
use crate::pages;

/// What an imported snapshot is called until it is complete.
const IMPORT: &str = "import";

/// The manifest of a snapshot that can be used for `wanted`.
pub(crate) fn usable(
    shared: &Shared,
    snapshot: &SnapshotId,
    wanted: SnapshotContent,
) -> Result<Manifest> {
    let unusable = |reason: Unusable| DriverError::Snapshot {
        id: snapshot.to_string(),
        reason: reason.to_string(),
    };
    let manifest = Manifest::read(&shared.paths.snapshot(snapshot)).map_err(unusable)?;
    manifest.check(wanted, &shared.paths).map_err(unusable)?;
    Ok(manifest)
}

/// Removes one, complete or not, and the disks of sandboxes that sleep in it: without it they are
/// of no use.
pub(crate) fn remove(shared: &Shared, snapshot: &SnapshotId) -> Result<()> {
    for path in [shared.paths.snapshot(snapshot), import(shared, snapshot)] {
        disk::remove(shared, &path).map_err(|e| step("remove the snapshot", e))?;
    }
    let asleep = |name: &str| name.split('.').nth(1) == Some(snapshot.as_str());
    disk::remove_disks(shared, asleep).map_err(|e| step("remove a sleeping disk", e))
}

/// Every complete one; removes the others, and all that is staged.
pub(crate) fn reconcile(shared: &Shared) -> Result<Vec<SnapshotId>> {
    let failed = |e: io::Error| step("look for snapshots", e);
    let mut complete = Vec::new();
    for entry in read_dir(&shared.paths.snapshots).map_err(failed)? {
        let name = entry.file_name();
        let id = name
            .to_str()
            .and_then(|name| name.parse::<SnapshotId>().ok());
        let whole = Manifest::read(&entry.path());
        match (id, whole) {
            (Some(id), Ok(manifest)) if manifest.id == id.as_str() => complete.push(id),
            // Written and damaged since: not for us to throw away.
            (Some(id), Err(Unusable::Damaged(reason))) => {
                tracing::error!(snapshot = %id, reason, "a snapshot is damaged");
                complete.push(id);
            }
            _ => {
                disk::remove(shared, &entry.path()).map_err(failed)?;
                tracing::info!(name = ?name, "an unfinished snapshot was removed");
            }
        }
    }
    clear_staging(&shared.paths.staging).map_err(failed)?;
    Ok(complete)
}

/// Removes what an earlier server was writing. What was given up just now may be on its way out by
/// itself.
pub(crate) fn clear_staging(staging: &Path) -> io::Result<()> {
    for entry in read_dir(staging)? {
        match fs::remove_dir_all(entry.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

fn read_dir(dir: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other?.collect(),
    }
}

/// Reads one back.
pub(crate) fn verify(shared: &Shared, snapshot: &SnapshotId) -> Result<SnapshotHealth> {
    let dir = shared.paths.snapshot(snapshot);
    match inspect(&dir) {
        Ok(()) => Ok(SnapshotHealth::Good),
        Err(Fault::Missing) => Err(not_found(snapshot)),
        Err(Fault::Damaged(detail)) => Ok(SnapshotHealth::Damaged { detail }),
    }
}

enum Fault {
    Missing,
    Damaged(String),
}

fn inspect(dir: &Path) -> std::result::Result<(), Fault> {
    let manifest = Manifest::read(dir).map_err(|error| match error {
        Unusable::Missing if !dir.exists() => Fault::Missing,
        other => Fault::Damaged(other.to_string()),
    })?;
    for file in &manifest.files {
        pages::check(&dir.join(MEMORY), file).map_err(Fault::Damaged)?;
    }
    read_all(&dir.join("u")).map_err(|error| Fault::Damaged(format!("its files: {error}")))
}

/// Reads every file of a tree, for the file system to compare its own checksums. Links are not
/// followed.
fn read_all(dir: &Path) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::open(entry.path(), flags, Mode::empty())?;
                let mut file = File::from(file);
                while file.read(&mut buffer)? > 0 {}
            }
        }
    }
    Ok(())
}

/// The folder of a complete one.
pub(crate) fn export(shared: &Shared, snapshot: &SnapshotId) -> Result<PathBuf> {
    let dir = shared.paths.snapshot(snapshot);
    match Manifest::read(&dir) {
        Ok(_) => Ok(dir),
        Err(Unusable::Missing) => Err(not_found(snapshot)),
        Err(reason) => Err(DriverError::Snapshot {
            id: snapshot.to_string(),
            reason: reason.to_string(),
        }),
    }
}

/// An empty folder for one that comes from elsewhere.
pub(crate) fn import_begin(shared: &Shared, snapshot: &SnapshotId) -> Result<PathBuf> {
    if shared.paths.snapshot(snapshot).exists() {
        return Err(DriverError::AlreadyExists {
            id: snapshot.to_string(),
        });
    }
    let dir = import(shared, snapshot);
    disk::remove(shared, &dir)
        .and_then(|()| btrfs::create_subvolume(&dir))
        .map_err(|e| step("make the folder of a snapshot", e))?;
    Ok(dir)
}

/// Checks it and makes it complete.
pub(crate) fn import_finish(shared: &Shared, snapshot: &SnapshotId) -> Result<()> {
    let dir = import(shared, snapshot);
    if !dir.exists() {
        return Err(not_found(snapshot));
    }
    let unusable = |reason: String| DriverError::Snapshot {
        id: snapshot.to_string(),
        reason,
    };
    match inspect(&dir) {
        Ok(()) => {}
        Err(Fault::Missing) => return Err(unusable("it has no manifest".to_owned())),
        Err(Fault::Damaged(detail)) => return Err(unusable(detail)),
    }
    let manifest = Manifest::read(&dir).map_err(|e| unusable(e.to_string()))?;
    if manifest.id != snapshot.as_str() {
        return Err(unusable(format!("it is {} in truth", manifest.id)));
    }
    disk::note_import(&dir).map_err(|e| step("note where a snapshot comes from", e))?;
    let complete = btrfs::snapshot_read_only(&dir, &shared.paths.snapshot(snapshot));
    complete.map_err(|e| step("complete the snapshot", e))?;
    disk::remove(shared, &dir).map_err(|e| step("remove the folder of a snapshot", e))
}

fn import(shared: &Shared, snapshot: &SnapshotId) -> PathBuf {
    shared.paths.snapshots.join(format!("{snapshot}.{IMPORT}"))
}

fn not_found(snapshot: &SnapshotId) -> DriverError {
    DriverError::NotFound {
        id: snapshot.to_string(),
    }
}
