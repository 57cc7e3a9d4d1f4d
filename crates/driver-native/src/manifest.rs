//! What a snapshot says of itself.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use woodfrog_types::SnapshotId;
use woodfrog_types::snapshot::SnapshotContent;

use crate::paths::Paths;
use crate::volumes::Mounted;

/// The format of today's snapshots.
const FORMAT: u32 = 1;
/// The manifest's name in a snapshot.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The folder of CRIU's images in a snapshot.
pub(crate) const MEMORY: &str = "memory";

/// Written last, so that a snapshot that has one has all the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) id: String,
    /// The sandbox that it was taken of.
    pub(crate) source: String,
    pub(crate) parent: Option<String>,
    pub(crate) content: String,
    pub(crate) driver: String,
    pub(crate) driver_version: String,
    /// Empty without memory.
    pub(crate) criu: String,
    pub(crate) kernel: String,
    pub(crate) machine: String,
    /// Features of the CPU, which programs in the memory may have looked at and rely on.
    pub(crate) cpu: BTreeSet<String>,
    pub(crate) hostname: String,
    /// Names of the layers' folders, bottom first.
    pub(crate) layers: Vec<String>,
    /// Name of the skeleton layer: it has the guest's program that the memory is of.
    pub(crate) skeleton: String,
    pub(crate) cpu_count: u32,
    pub(crate) memory_limit: u64,
    pub(crate) disk_limit: u64,
    pub(crate) pids: u32,
    /// Host id of its root at the time, which is in the images.
    pub(crate) uid_base: u32,
    /// Whose addresses it had: its own slot's, and before that those of the slots that its
    /// connections may be from.
    pub(crate) slots: Vec<u32>,
    pub(crate) size: Size,
    /// What it saw of volumes, whose files are not in here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes: Vec<Mounted>,
    /// Everything in the folder of images.
    pub(crate) files: Vec<FileEntry>,
}

/// What a snapshot takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) memory: u64,
    pub(crate) written: u64,
    pub(crate) disk: u64,
}

/// One file of `memory/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    pub(crate) name: String,
    pub(crate) len: u64,
    /// Of every MiB: of its bytes, or of the digests of its pages where there is an index.
    pub(crate) blake3: Vec<String>,
}

/// The file: the manifest and its own digest.
#[derive(Serialize, Deserialize)]
struct Sealed {
    blake3: String,
    manifest: Manifest,
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("it is not on this machine")]
    Missing,
    #[error("its manifest is damaged: {0}")]
    Damaged(String),
    #[error("it needs {0}")]
    Needs(String),
    #[error("reading its manifest")]
    Io(#[from] io::Error),
}

impl Manifest {
    /// One of this machine and driver, to be filled in.
    pub(crate) fn new(id: &SnapshotId, content: SnapshotContent) -> Self {
        let uname = rustix::system::uname();
        Self {
            format: FORMAT,
            id: id.to_string(),
            source: String::new(),
            parent: None,
            content: content.as_str().to_owned(),
            driver: "native".to_owned(),
            driver_version: env!("CARGO_PKG_VERSION").to_owned(),
            criu: String::new(),
            kernel: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            cpu: cpu_features().clone(),
            hostname: String::new(),
            layers: Vec::new(),
            skeleton: String::new(),
            cpu_count: 0,
            memory_limit: 0,
            disk_limit: 0,
            pids: 0,
            uid_base: 0,
            slots: Vec::new(),
            size: Size::default(),
            volumes: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Writes it into the folder of a snapshot to be.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let sealed = Sealed {
            blake3: self.digest()?,
            manifest: self.clone(),
        };
        let mut file = fs::File::create(dir.join(MANIFEST))?;
        file.write_all(&serde_json::to_vec(&sealed)?)
    }

    /// Reads the one of a complete snapshot and checks its digest.
    pub(crate) fn read(dir: &Path) -> Result<Self, Unusable> {
        let text = match fs::read(dir.join(MANIFEST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
            other => other?,
        };
        let sealed: Sealed =
            serde_json::from_slice(&text).map_err(|e| Unusable::Damaged(e.to_string()))?;
        if sealed.manifest.digest()? != sealed.blake3 {
            return Err(Unusable::Damaged("its digest is another".to_owned()));
        }
        Ok(sealed.manifest)
    }

    /// Of the text, which is the same whenever the same manifest is written.
    fn digest(&self) -> io::Result<String> {
        Ok(blake3::hash(&serde_json::to_vec(self)?)
            .to_hex()
            .to_string())
    }

    /// What it holds.
    pub(crate) fn content(&self) -> SnapshotContent {
        match self.content.as_str() {
            "memory" => SnapshotContent::Memory,
            _ => SnapshotContent::Filesystem,
        }
    }

    /// Whether this machine and driver can make a sandbox of it.
    pub(crate) fn check(&self, wanted: SnapshotContent, paths: &Paths) -> Result<(), Unusable> {
        let needs = |what: String| Err(Unusable::Needs(what));
        if self.format != FORMAT || self.driver != "native" {
            return needs(format!(
                "driver {} with format {}",
                self.driver, self.format
            ));
        }
        match (wanted, self.content()) {
            (SnapshotContent::Filesystem, _) => return Ok(()),
            (SnapshotContent::Memory, SnapshotContent::Filesystem) => {
                return needs("to be booted: it has no memory".to_owned());
            }
            (SnapshotContent::Memory, SnapshotContent::Memory) => {}
        }
        if self.machine != rustix::system::uname().machine().to_string_lossy() {
            return needs(format!("a machine of kind {}", self.machine));
        }
        let lacking: Vec<&str> = self
            .cpu
            .difference(cpu_features())
            .map(String::as_str)
            .collect();
        if !lacking.is_empty() {
            return needs(format!("a CPU with {}", lacking.join(", ")));
        }
        match paths.skeletons.join(&self.skeleton).is_dir() {
            true => Ok(()),
            false => needs("the guest program that it ran with".to_owned()),
        }
    }
}

/// Features of this machine's CPU.
fn cpu_features() -> &'static BTreeSet<String> {
    static FEATURES: std::sync::LazyLock<BTreeSet<String>> = std::sync::LazyLock::new(|| {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.starts_with("flags") || line.starts_with("Features"));
        let features = line.and_then(|line| line.split_once(':'));
        let words = features.map_or("", |(_, words)| words).split_whitespace();
        words.map(str::to_owned).collect()
    });
    &FEATURES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_manifest_is_not_believed() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        assert!(matches!(Manifest::read(dir.path()), Err(Unusable::Missing)));
        let id = SnapshotId::generate();
        let mut manifest = Manifest::new(&id, SnapshotContent::Memory);
        manifest.layers.push("layer".to_owned());
        manifest.write(dir.path())?;
        assert_eq!(Manifest::read(dir.path())?, manifest);
        let file = dir.path().join(MANIFEST);
        let text = fs::read_to_string(&file)?;
        for (old, new) in [("\"layer\"", "\"other\""), ("{", "")] {
            fs::write(&file, text.replacen(old, new, 1))?;
            let read = Manifest::read(dir.path());
            assert!(matches!(read, Err(Unusable::Damaged(_))), "{read:?}");
        }
        Ok(())
    }
}
