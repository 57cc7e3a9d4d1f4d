//! What the driver remembers of a sandbox, on disk and in the engine's record.

use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use woodfrog_driver_common::egress::StoredEgress;
use woodfrog_linux::process::Identity;
use woodfrog_types::SandboxId;
use woodfrog_types::sandbox::InstanceState;

/// The only version there is.
const VERSION: u32 = 1;

/// A note. Stored as JSON; fields are only ever added, with a default.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Note {
    version: u32,
    pub(crate) id: String,
    /// The process on the host that is the sandbox's kernel: what it runs ends with it.
    pub(crate) sentry: Identity,
    /// The boot that `sentry` belongs to: pids mean nothing after another.
    boot_id: String,
    pub(crate) slot: u32,
    pub(crate) egress: StoredEgress,
    /// Where the guest listens.
    pub(crate) address: Ipv4Addr,
    /// What the guest wants to hear, hexadecimal.
    pub(crate) secret: String,
    pub(crate) disk_bytes: u64,
    pub(crate) layers: Vec<PathBuf>,
}

/// What a note is made of.
pub(crate) struct Facts {
    pub(crate) sentry: Identity,
    pub(crate) slot: u32,
    pub(crate) egress: StoredEgress,
    pub(crate) address: Ipv4Addr,
    pub(crate) secret: String,
    pub(crate) disk_bytes: u64,
    pub(crate) layers: Vec<PathBuf>,
}

impl Note {
    /// A note of this boot.
    pub(crate) fn new(id: &SandboxId, facts: Facts) -> Self {
        Self {
            version: VERSION,
            id: id.to_string(),
            sentry: facts.sentry,
            boot_id: boot_id().to_owned(),
            slot: facts.slot,
            egress: facts.egress,
            address: facts.address,
            secret: facts.secret,
            disk_bytes: facts.disk_bytes,
            layers: facts.layers,
        }
    }

    /// For the engine's record: who it is. The secret stays in the note.
    pub(crate) fn to_instance(&self) -> InstanceState {
        let record = serde_json::json!({"driver": "gvisor", "sentry": self.sentry});
        InstanceState(record.to_string())
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
        crate::files::remove_file(&file.with_extension("tmp"))?;
        crate::files::remove_file(&file)
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

    /// Whether its sentry still runs, on this boot.
    pub(crate) fn is_alive(&self) -> bool {
        self.boot_id == boot_id() && self.sentry.open().ok().flatten().is_some()
    }
}

/// Changes at every boot of the host.
fn boot_id() -> &'static str {
    static BOOT_ID: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_owned()
    });
    &BOOT_ID
}
