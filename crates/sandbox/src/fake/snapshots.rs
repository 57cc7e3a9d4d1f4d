//! Snapshots of a fake driver's machines: entries of a map, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use woodfrog_types::snapshot::{SnapshotContent, SnapshotSize};
use woodfrog_types::{SandboxId, SnapshotId};

use super::{Capability, FakeDriver};
use crate::{
    CheckpointSpec, Checkpointed, DriverError, Launched, RestoreSpec, Result, SnapshotHealth, Then,
};

/// What each machine's memory takes.
const MEMORY_BYTES: u64 = 8 << 20;
/// What of it changes between a snapshot and its child.
const CHANGED_BYTES: u64 = 64 << 10;
/// The file of an exported snapshot.
const FILE: &str = "manifest.json";

struct Kept {
    source: SandboxId,
    content: SnapshotContent,
    boot: String,
    damaged: Option<String>,
}

#[derive(Default)]
pub(super) struct Snapshots {
    complete: BTreeMap<SnapshotId, Kept>,
    unfinished: BTreeSet<SnapshotId>,
    /// Disks of machines that ended with a checkpoint.
    pub(super) disks: BTreeMap<SandboxId, SnapshotId>,
    refusal: Option<(String, bool)>,
    restores: u64,
}

impl FakeDriver {
    /// The snapshots that there are, unfinished ones included.
    pub fn snapshots(&self) -> Vec<SnapshotId> {
        let state = self.lock();
        let all = state.snapshots.complete.keys();
        all.chain(&state.snapshots.unfinished).cloned().collect()
    }

    /// Sandboxes that do not run but whose disks are kept for their next wake.
    pub fn kept_disks(&self) -> Vec<SandboxId> {
        self.lock().snapshots.disks.keys().cloned().collect()
    }

    /// How many sandboxes were made from snapshots.
    pub fn restores(&self) -> u64 {
        self.lock().snapshots.restores
    }

    /// Checkpoints are refused with this reason from now on, or not any more. The flag says
    /// whether the refusal is a matter of moments.
    pub fn set_checkpoint_refusal(&self, refusal: Option<(&str, bool)>) {
        let refusal = refusal.map(|(reason, transient)| (reason.to_owned(), transient));
        self.lock().snapshots.refusal = refusal;
    }

    /// What is on disk of a snapshot is not what was written.
    pub fn damage(&self, snapshot: &SnapshotId, detail: &str) {
        if let Some(kept) = self.lock().snapshots.complete.get_mut(snapshot) {
            kept.damaged = Some(detail.to_owned());
        }
    }

    /// A snapshot that a server began to write and did not finish.
    pub fn leave_unfinished(&self, snapshot: &SnapshotId) {
        self.lock().snapshots.unfinished.insert(snapshot.clone());
    }

    /// A snapshot vanishes, as by somebody's hand.
    pub fn lose_snapshot(&self, snapshot: &SnapshotId) {
        self.lock().snapshots.complete.remove(snapshot);
    }

    /// A complete snapshot that nobody took here: what a server before did not remove.
    pub fn put_back(&self, snapshot: &SnapshotId, source: &SandboxId) {
        let kept = Kept {
            source: source.clone(),
            content: SnapshotContent::Memory,
            boot: "put back".to_owned(),
            damaged: None,
        };
        let mut state = self.lock();
        state.snapshots.complete.insert(snapshot.clone(), kept);
    }

    pub(super) fn take_snapshot(
        &self,
        id: &SandboxId,
        spec: &CheckpointSpec,
    ) -> Result<Checkpointed> {
        self.require_content(spec.content)?;
        let mut state = self.lock();
        let snapshots = &state.snapshots;
        let taken = snapshots.complete.contains_key(&spec.snapshot);
        let has_parent =
            (spec.parent.as_ref()).is_some_and(|parent| snapshots.complete.contains_key(parent));
        let refusal = snapshots.refusal.clone();
        let Some(machine) = state.machines.get(id) else {
            return Err(DriverError::NotFound { id: id.to_string() });
        };
        let ended = machine.exited.borrow().is_some();
        let ended = ended.then(|| ("its init has ended".to_owned(), false));
        if let Some((reason, transient)) = ended.or(refusal) {
            return Err(DriverError::Checkpoint {
                id: id.to_string(),
                reason,
                transient,
            });
        }
        if taken {
            return Err(DriverError::AlreadyExists {
                id: spec.snapshot.to_string(),
            });
        }
        machine.cuts.send_modify(|cuts| *cuts += 1);
        let kept = Kept {
            source: id.clone(),
            content: spec.content,
            boot: machine.boot.clone(),
            damaged: None,
        };
        state.snapshots.complete.insert(spec.snapshot.clone(), kept);
        if spec.then == Then::Stop
            && let Some(machine) = state.machines.remove(id)
        {
            let disk = (id.clone(), spec.snapshot.clone());
            state.snapshots.disks.extend([disk]);
            machine.exited.send_replace(Some("checkpointed".to_owned()));
        }
        Ok(Checkpointed {
            size: size(spec.content, has_parent),
            timings: Vec::new(),
        })
    }

    pub(super) fn use_snapshot(&self, spec: RestoreSpec) -> Result<Launched> {
        self.require_content(spec.content)?;
        let unusable = |reason: &str| DriverError::Snapshot {
            id: spec.snapshot.to_string(),
            reason: reason.to_owned(),
        };
        let boot = {
            let state = self.lock();
            let kept = state.snapshots.complete.get(&spec.snapshot);
            let kept = kept.ok_or_else(|| unusable("it is not on this machine"))?;
            if let Some(damage) = &kept.damaged {
                return Err(unusable(damage));
            }
            match (spec.content, kept.content) {
                (SnapshotContent::Memory, SnapshotContent::Memory) => Some(kept.boot.clone()),
                (SnapshotContent::Memory, SnapshotContent::Filesystem) => {
                    return Err(unusable("it has no memory"));
                }
                (SnapshotContent::Filesystem, _) => None,
            }
        };
        let id = spec.launch.id.clone();
        let launched = self.make(spec.launch, boot)?;
        let mut state = self.lock();
        state.snapshots.disks.remove(&id);
        state.snapshots.restores += 1;
        Ok(launched)
    }

    pub(super) fn drop_snapshot(&self, snapshot: &SnapshotId) -> Result<()> {
        let mut state = self.lock();
        state.snapshots.complete.remove(snapshot);
        state.snapshots.unfinished.remove(snapshot);
        // Without it the disks of those asleep in it are of no use.
        state.snapshots.disks.retain(|_, kept| kept != snapshot);
        drop(state);
        match fs::remove_dir_all(self.folder(snapshot)) {
            Err(error) if !none(&error) => Err(step(error)),
            _ => Ok(()),
        }
    }

    pub(super) fn health(&self, snapshot: &SnapshotId) -> Result<SnapshotHealth> {
        let state = self.lock();
        let kept = state.snapshots.complete.get(snapshot);
        let kept = kept.ok_or_else(|| not_found(snapshot))?;
        Ok(match kept.damaged.clone() {
            None => SnapshotHealth::Good,
            Some(detail) => SnapshotHealth::Damaged { detail },
        })
    }

    pub(super) fn sweep_snapshots(&self, known: &[SnapshotId]) -> Result<Vec<SnapshotId>> {
        let (unfinished, complete): (_, Vec<SnapshotId>) = {
            let state = self.lock();
            let complete = state.snapshots.complete.keys().cloned().collect();
            (state.snapshots.unfinished.clone(), complete)
        };
        for snapshot in unfinished {
            self.drop_snapshot(&snapshot)?;
        }
        // Known ones first, as a driver finds them that looks for those.
        let (mut first, other): (Vec<_>, Vec<_>) =
            complete.into_iter().partition(|id| known.contains(id));
        first.extend(other);
        Ok(first)
    }

    pub(super) fn export(&self, snapshot: &SnapshotId) -> Result<PathBuf> {
        let text = {
            let state = self.lock();
            let kept = state.snapshots.complete.get(snapshot);
            let kept = kept.ok_or_else(|| not_found(snapshot))?;
            format!(
                "{}\n{}\n{}\n",
                kept.source,
                kept.content.as_str(),
                kept.boot
            )
        };
        let dir = self.folder(snapshot);
        fs::create_dir_all(&dir).map_err(step)?;
        fs::write(dir.join(FILE), text).map_err(step)?;
        Ok(dir)
    }

    pub(super) fn import_begin(&self, snapshot: &SnapshotId) -> Result<PathBuf> {
        let mut state = self.lock();
        if state.snapshots.complete.contains_key(snapshot) {
            return Err(DriverError::AlreadyExists {
                id: snapshot.to_string(),
            });
        }
        state.snapshots.unfinished.insert(snapshot.clone());
        drop(state);
        let dir = self.folder(snapshot);
        match fs::remove_dir_all(&dir) {
            Err(error) if !none(&error) => return Err(step(error)),
            _ => {}
        }
        fs::create_dir_all(&dir).map_err(step)?;
        Ok(dir)
    }

    pub(super) fn import_finish(&self, snapshot: &SnapshotId) -> Result<()> {
        if !self.lock().snapshots.unfinished.contains(snapshot) {
            return Err(not_found(snapshot));
        }
        let text = fs::read_to_string(self.folder(snapshot).join(FILE)).unwrap_or_default();
        let Some(kept) = parse(&text) else {
            return Err(DriverError::Snapshot {
                id: snapshot.to_string(),
                reason: "what was imported is not a snapshot".to_owned(),
            });
        };
        let mut state = self.lock();
        state.snapshots.unfinished.remove(snapshot);
        state.snapshots.complete.insert(snapshot.clone(), kept);
        Ok(())
    }

    fn require_content(&self, content: SnapshotContent) -> Result<()> {
        match content {
            SnapshotContent::Memory => self.require(Capability::Checkpoint, "a snapshot of memory"),
            SnapshotContent::Filesystem => {
                self.require(Capability::FilesystemSnapshot, "a snapshot of files")
            }
        }
    }

    fn folder(&self, snapshot: &SnapshotId) -> PathBuf {
        self.uppers.join("snapshots").join(snapshot.as_str())
    }
}

fn size(content: SnapshotContent, has_parent: bool) -> SnapshotSize {
    let (memory_bytes, written_bytes) = match (content, has_parent) {
        (SnapshotContent::Filesystem, _) => (0, 0),
        (SnapshotContent::Memory, true) => (MEMORY_BYTES, CHANGED_BYTES),
        (SnapshotContent::Memory, false) => (MEMORY_BYTES, MEMORY_BYTES),
    };
    SnapshotSize {
        memory_bytes,
        written_bytes,
        disk_bytes: 4096,
    }
}

fn parse(text: &str) -> Option<Kept> {
    let mut lines = text.lines();
    let source = lines.next()?.parse().ok()?;
    let content = match lines.next()? {
        "memory" => SnapshotContent::Memory,
        "filesystem" => SnapshotContent::Filesystem,
        _ => return None,
    };
    Some(Kept {
        source,
        content,
        boot: lines.next()?.to_owned(),
        damaged: None,
    })
}

fn none(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}

fn not_found(snapshot: &SnapshotId) -> DriverError {
    DriverError::NotFound {
        id: snapshot.to_string(),
    }
}

fn step(source: std::io::Error) -> DriverError {
    DriverError::Step {
        step: "snapshot folder".to_owned(),
        source: Box::new(source),
    }
}
