//! Snapshots: taking, keeping and checking them.
//!
//! gVisor stands still from before its image is written until the subvolume with that image and
//! the files is copied, so that both are of one moment. It is always told to go on after the
//! checkpoint, also when the sandbox is to end: one that fails leaves the sandbox whole only then.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use woodfrog_linux::btrfs;
use woodfrog_sandbox::{
    Capability, CheckpointSpec, Checkpointed, DriverError, Result, SnapshotHealth, Then,
};
use woodfrog_types::snapshot::{SnapshotContent, SnapshotSize};
use woodfrog_types::{SandboxId, SnapshotId};

use crate::driver::{Shared, blocking};
use crate::error::step;
use crate::files;
use crate::instance::Instance;
use crate::launch::Clock;
use crate::manifest::{About, MANIFEST, MEMORY, Manifest, Unusable};
use crate::runsc::{CallError, WORD_MAX};

/// Takes a snapshot; see the port. The caller holds the sandbox's lock.
pub(crate) async fn checkpoint(
    shared: &Arc<Shared>,
    id: &SandboxId,
    spec: CheckpointSpec,
) -> Result<Checkpointed> {
    let (capability, what) = match spec.content {
        SnapshotContent::Memory => (Capability::Checkpoint, "a snapshot of memory"),
        SnapshotContent::Filesystem => (Capability::FilesystemSnapshot, "a snapshot of files"),
    };
    shared.require(capability, what)?;
    let instance = shared.alive(id)?;
    let then = spec.then;
    let (owned, taken) = (Arc::clone(shared), id.clone());
    let done = blocking(move || take(&owned, &taken, &instance, &spec)).await?;
    match then {
        Then::Continue => {}
        Then::Stop => shared.end(id).await?,
    }
    Ok(done)
}

/// Blocking. On an error nothing of the snapshot is left and the sandbox is as it was.
fn take(
    shared: &Shared,
    id: &SandboxId,
    instance: &Instance,
    spec: &CheckpointSpec,
) -> Result<Checkpointed> {
    if shared.paths.snapshot(&spec.snapshot).exists() {
        return Err(DriverError::AlreadyExists {
            id: spec.snapshot.to_string(),
        });
    }
    let was_paused = instance.is_paused();
    let group = shared.cgroup(id);
    // gVisor itself must be able to work; it lets nothing inside run once it is told to pause.
    group.thaw().map_err(|e| step("thaw", e))?;
    let mut clock = Clock::start();
    let taken = still(shared, id, instance, spec, &mut clock);
    let resumed = match (&taken, spec.then) {
        // Its processes must not go on beside those of the snapshot, not for a moment.
        (Ok(_), Then::Stop) => Ok(()),
        _ => go_on(shared, id, was_paused),
    };
    let left = clean(shared, id, instance);
    let size = taken?;
    if let Err(error) = resumed.and(left) {
        // It is no use if the caller is told of an error.
        let _ = remove(shared, &spec.snapshot);
        return Err(error);
    }
    clock.lap("resume");
    Ok(Checkpointed {
        size,
        timings: clock.laps,
    })
}

fn go_on(shared: &Shared, id: &SandboxId, was_paused: bool) -> Result<()> {
    shared.runsc.say(&["resume"], id, &[], WORD_MAX)?;
    if was_paused {
        let group = shared.cgroup(id);
        group.freeze().map_err(|e| step("freeze", e))?;
    }
    Ok(())
}

/// Removes from the sandbox's own folder what the snapshot has now, and limits it again.
fn clean(shared: &Shared, id: &SandboxId, instance: &Instance) -> Result<()> {
    let dir = shared.paths.sandbox(id);
    files::remove_dir(&dir.join(MEMORY))
        .and_then(|()| files::remove_file(&dir.join(MANIFEST)))
        .and_then(|()| match shared.has_quotas() {
            true => btrfs::limit(&dir, instance.note.disk_bytes),
            false => Ok(()),
        })
        .map_err(|e| step("remove the images", e))
}

/// While nothing inside runs.
fn still(
    shared: &Shared,
    id: &SandboxId,
    instance: &Instance,
    spec: &CheckpointSpec,
    clock: &mut Clock,
) -> Result<SnapshotSize> {
    let dir = shared.paths.sandbox(id);
    if spec.content == SnapshotContent::Filesystem {
        shared.sync(id)?;
    }
    shared.runsc.say(&["pause"], id, &[], WORD_MAX)?;
    clock.lap("pause");
    if shared.has_quotas() {
        // The image is not the sandbox's doing.
        btrfs::limit(&dir, u64::MAX).map_err(|e| step("lift the limit", e))?;
    }
    if spec.content == SnapshotContent::Memory {
        save(shared, id, spec, &dir.join(MEMORY))?;
        clock.lap("save");
    }
    let about = About {
        id: &spec.snapshot,
        parent: spec.parent.as_ref(),
        source: id.as_str(),
        content: spec.content,
        runsc: &shared.runsc.runsc.version,
        layers: &instance.note.layers,
        skeleton: &shared.skeleton,
        secret: &instance.note.secret,
    };
    let manifest = Manifest::of(&about, &dir).map_err(|e| step("digest the images", e))?;
    let written = manifest.write(&dir);
    written.map_err(|e| step("write the manifest", e))?;
    clock.lap("digest");
    // The file system commits all of it at once: data, names and the copy itself.
    btrfs::snapshot_read_only(&dir, &shared.paths.snapshot(&spec.snapshot))
        .map_err(|e| step("copy the subvolume", e))?;
    clock.lap("copy");
    Ok(SnapshotSize {
        memory_bytes: manifest.memory_bytes,
        written_bytes: manifest.memory_bytes,
        disk_bytes: tree_bytes(&dir.join("u")).unwrap_or(0),
    })
}

fn save(shared: &Shared, id: &SandboxId, spec: &CheckpointSpec, to: &Path) -> Result<()> {
    fs::create_dir(to).map_err(|e| step("make the folder of images", e))?;
    let image = format!("--image-path={}", to.display());
    let words = [
        "checkpoint",
        &image,
        "--compression=none",
        "--exclude-committed-zero-pages",
        "--leave-running",
    ];
    let said = shared.runsc.say(&words, id, &[], spec.timeout);
    said.map_err(|error| DriverError::Checkpoint {
        id: id.to_string(),
        reason: reason(&error),
        transient: is_transient(&error),
    })
}

/// For the caller.
fn reason(error: &CallError) -> String {
    const DELETED: &str = "gofer.dentry(\"";
    match error {
        CallError::Refused { said, .. } => {
            let file = said
                .split_once(DELETED)
                .and_then(|(_, rest)| rest.split_once('"'));
            match file {
                Some((path, rest)) if rest.contains("deleted") => format!(
                    "gVisor cannot save a file that is open and has been deleted: /{path}; close it"
                ),
                _ => said.clone(),
            }
        }
        CallError::Io { source, .. } => source.to_string(),
    }
}

/// Files are closed and deadlines are met another time.
fn is_transient(error: &CallError) -> bool {
    match error {
        CallError::Refused { said, .. } => said.contains("deleted"),
        CallError::Io { source, .. } => source.kind() == io::ErrorKind::TimedOut,
    }
}

/// What the files of a tree take, by their lengths.
fn tree_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // Of the entry itself: links are not followed.
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                dirs.push(entry.path());
            } else if metadata.is_file() {
                bytes += metadata.len();
            }
        }
    }
    Ok(bytes)
}

/// Removes a snapshot; none is fine. Blocking, as all that follows.
pub(crate) fn remove(shared: &Shared, snapshot: &SnapshotId) -> Result<()> {
    for path in [
        shared.paths.snapshot(snapshot),
        shared.paths.import(snapshot),
    ] {
        let removed = shared.remove_tree(&path);
        removed.map_err(|e| step("remove the snapshot", e))?;
    }
    Ok(())
}

/// Reads it back.
pub(crate) fn verify(shared: &Shared, snapshot: &SnapshotId) -> Result<SnapshotHealth> {
    let dir = existing(shared, snapshot)?;
    match Manifest::read(&dir) {
        Ok(manifest) => manifest
            .verify(&dir)
            .map_err(|e| step("read the snapshot", e)),
        Err(error) => Ok(SnapshotHealth::Damaged {
            detail: error.to_string(),
        }),
    }
}

/// Where it is.
pub(crate) fn export(shared: &Shared, snapshot: &SnapshotId) -> Result<std::path::PathBuf> {
    existing(shared, snapshot)
}

fn existing(shared: &Shared, snapshot: &SnapshotId) -> Result<std::path::PathBuf> {
    let dir = shared.paths.snapshot(snapshot);
    match dir.is_dir() {
        true => Ok(dir),
        false => Err(DriverError::NotFound {
            id: snapshot.to_string(),
        }),
    }
}

/// Its manifest, or why it cannot be used.
pub(crate) fn read(shared: &Shared, snapshot: &SnapshotId) -> Result<Manifest> {
    Manifest::read(&shared.paths.snapshot(snapshot)).map_err(|error| unusable(snapshot, &error))
}

pub(crate) fn unusable(snapshot: &SnapshotId, error: &Unusable) -> DriverError {
    DriverError::Snapshot {
        id: snapshot.to_string(),
        reason: error.to_string(),
    }
}

/// All that are complete; removes what is left of others.
pub(crate) fn complete(shared: &Shared) -> Result<Vec<SnapshotId>> {
    let failed = |e: io::Error| step("look for snapshots", e);
    let mut complete = Vec::new();
    for name in crate::reconcile::names(&shared.paths.snapshots).map_err(failed)? {
        let path = shared.paths.snapshots.join(&name);
        let id = name.parse::<SnapshotId>().ok();
        // A damaged manifest is no unfinished one: what is there is kept, and found when it is used.
        let whole = !matches!(Manifest::read(&path), Err(Unusable::Missing));
        match id {
            Some(id) if whole => complete.push(id),
            _ => shared.remove_tree(&path).map_err(failed)?,
        }
    }
    Ok(complete)
}

/// An empty subvolume to put an archived one into.
pub(crate) fn import_begin(shared: &Shared, snapshot: &SnapshotId) -> Result<std::path::PathBuf> {
    shared.require(Capability::FilesystemSnapshot, "a snapshot")?;
    if shared.paths.snapshot(snapshot).exists() {
        return Err(DriverError::AlreadyExists {
            id: snapshot.to_string(),
        });
    }
    let dir = shared.paths.import(snapshot);
    shared
        .remove_tree(&dir)
        .and_then(|()| btrfs::create_subvolume(&dir))
        .map_err(|e| step("make the snapshot's folder", e))?;
    Ok(dir)
}

/// Checks what was put there and makes it a complete snapshot.
pub(crate) fn import_finish(shared: &Shared, snapshot: &SnapshotId) -> Result<()> {
    let dir = shared.paths.import(snapshot);
    if !dir.is_dir() {
        return Err(DriverError::NotFound {
            id: snapshot.to_string(),
        });
    }
    let manifest = Manifest::read(&dir).map_err(|error| unusable(snapshot, &error))?;
    let refuse = |reason: String| {
        Err(DriverError::Snapshot {
            id: snapshot.to_string(),
            reason,
        })
    };
    if manifest.id != snapshot.as_str() {
        return refuse(format!("it is snapshot {}", manifest.id));
    }
    match manifest.verify(&dir) {
        Ok(SnapshotHealth::Good) => {}
        Ok(SnapshotHealth::Damaged { detail }) => return refuse(detail),
        Err(error) => return Err(step("read the snapshot", error)),
    }
    // A copy is on disk as a whole when it has a name.
    let to = shared.paths.snapshot(snapshot);
    btrfs::snapshot_read_only(&dir, &to)
        .and_then(|()| shared.remove_tree(&dir))
        .map_err(|e| step("keep the snapshot", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_so_that_one_can_act() {
        let said = "checkpoint failed: encoding error: gofer.dentry(\"root/del\").beforeSave: \
                    deleted and invalidated dentries can't be restored:";
        let error = CallError::Refused {
            what: "checkpoint".to_owned(),
            said: said.to_owned(),
        };
        assert!(reason(&error).contains("/root/del"), "{}", reason(&error));
        assert!(is_transient(&error));
    }
}
