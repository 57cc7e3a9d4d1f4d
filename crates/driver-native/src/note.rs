//! What the driver remembers of a sandbox, on disk and in the engine's record.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use woodfrog_linux::process::Identity;
use woodfrog_sandbox::Egress;
use woodfrog_types::SandboxId;
use woodfrog_types::sandbox::InstanceState;

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
}

/// [`Egress`] as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredEgress {
    internet: bool,
    allow: Vec<String>,
    deny: Vec<String>,
    dns_servers: Vec<std::net::IpAddr>,
}

impl From<&Egress> for StoredEgress {
    fn from(egress: &Egress) -> Self {
        Self {
            internet: egress.internet,
            allow: egress.allow.clone(),
            deny: egress.deny.clone(),
            dns_servers: egress.dns_servers.clone(),
        }
    }
}

impl From<&StoredEgress> for Egress {
    fn from(stored: &StoredEgress) -> Self {
        Self {
            internet: stored.internet,
            allow: stored.allow.clone(),
            deny: stored.deny.clone(),
            dns_servers: stored.dns_servers.clone(),
            header_rules: std::collections::BTreeMap::new(),
        }
    }
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

/// Changes at every boot of the host.
fn boot_id() -> &'static str {
    static BOOT_ID: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_owned()
    });
    &BOOT_ID
}
