//! What the driver remembers of a sandbox, on disk and in the engine's record.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
pub(crate) use woodfrog_driver_common::egress::StoredEgress;
use woodfrog_linux::process::Identity;
use woodfrog_sandbox::Egress;
use woodfrog_types::SandboxId;
use woodfrog_types::sandbox::InstanceState;

use crate::paging::Paging;
use crate::paths::boot_id;

/// The only version there is.
const VERSION: u32 = 1;

/// A note. Stored as JSON; fields are only ever added, with a default.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) init: Identity,
    /// The boot that `init` belongs to: pids mean nothing after another.
    pub(crate) boot_id: String,
    pub(crate) slot: u32,
    pub(crate) cpu_count: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) egress: StoredEgress,
    /// What a snapshot of it must tell; missing in notes of servers that took none.
    #[serde(default)]
    pub(crate) made: Option<Made>,
    /// Its memory was still to come when this was written.
    #[serde(default)]
    pub(crate) paging: Option<Paging>,
}

/// What a sandbox was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) hostname: String,
    /// Names of the layers' folders, bottom first.
    pub(crate) layers: Vec<String>,
    /// Name of the skeleton layer.
    pub(crate) skeleton: String,
    pub(crate) disk_bytes: u64,
    pub(crate) pids: u32,
    /// Slots whose addresses it had in earlier lives.
    pub(crate) earlier: Vec<u32>,
    /// Ids of its volumes.
    #[serde(default)]
    pub(crate) volumes: Vec<String>,
}

impl Note {
    /// A note of this boot.
    pub(crate) fn new(id: &SandboxId, init: Identity, slot: u32, egress: &Egress) -> Self {
        Self {
            version: VERSION,
            id: id.as_str().to_owned(),
            init,
            boot_id: boot_id().to_owned(),
            slot,
            cpu_count: 1,
            memory_bytes: 0,
            egress: egress.into(),
            made: None,
            paging: None,
        }
    }

    /// For the engine's record.
    pub(crate) fn to_instance(&self) -> InstanceState {
        InstanceState(serde_json::to_string(self).unwrap_or_default())
    }

    fn file(dir: &Path, id: &str) -> PathBuf {
        dir.join(format!("{id}.json"))
    }

    /// Writes the note under a temporary name and renames it. Not synced: a note is worth
    /// nothing after the machine went down.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let file = Self::file(dir, &self.id);
        let scratch = file.with_extension("tmp");
        let mut out = fs::File::create(&scratch)?;
        out.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(scratch, file)
    }

    /// Removes a note; none is fine.
    pub(crate) fn remove(dir: &Path, id: &SandboxId) -> io::Result<()> {
        let file = Self::file(dir, id.as_str());
        // A server that died while it wrote left the other one.
        for path in [file.with_extension("tmp"), file] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Every readable note of a folder.
    pub(crate) fn all(dir: &Path) -> io::Result<Vec<Self>> {
        let mut notes = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                match serde_json::from_slice(&fs::read(&path)?) {
                    Ok(note) => notes.push(note),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "unreadable note");
                    }
                }
            }
        }
        Ok(notes)
    }

    /// Whether its init still runs, on this boot.
    pub(crate) fn is_alive(&self) -> bool {
        self.boot_id == boot_id() && self.init.open().ok().flatten().is_some()
    }
}
