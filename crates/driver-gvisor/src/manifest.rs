//! What a snapshot says of itself.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use woodfrog_sandbox::SnapshotHealth;
use woodfrog_types::SnapshotId;
use woodfrog_types::snapshot::SnapshotContent;

/// The format of today's snapshots.
const FORMAT: u32 = 1;
const DRIVER: &str = "gvisor";
/// The manifest's name in a snapshot.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The folder of gVisor's images in a snapshot.
pub(crate) const MEMORY: &str = "memory";
/// What one digest is of.
const CHUNK: usize = 1 << 20;
/// The longest that is read.
const MANIFEST_MAX: u64 = 64 << 20;

/// Written last, so that a snapshot that has one has all the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) id: String,
    /// The sandbox that it was taken of.
    pub(crate) source: String,
    parent: Option<String>,
    content: String,
    driver: String,
    driver_version: String,
    /// The version of `runsc`: another one does not read the image.
    runsc: String,
    kernel: String,
    machine: String,
    /// Features of the CPU, which programs in the memory may have looked at and rely on.
    cpu: BTreeSet<String>,
    /// Names of the layers' folders, bottom first.
    layers: Vec<String>,
    /// Name of the skeleton layer: it has the guest's program that the memory is of.
    skeleton: String,
    /// What the guest in the memory wants to hear.
    pub(crate) secret: String,
    pub(crate) memory_bytes: u64,
    /// Everything in the folder of images.
    files: Vec<FileEntry>,
}

/// One file of `memory/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FileEntry {
    name: String,
    len: u64,
    /// Of every MiB.
    blake3: Vec<String>,
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
    #[error("reading its manifest: {0}")]
    Io(#[from] io::Error),
}

/// What is known of a snapshot beside its files.
pub(crate) struct About<'a> {
    pub(crate) id: &'a SnapshotId,
    pub(crate) parent: Option<&'a SnapshotId>,
    pub(crate) source: &'a str,
    pub(crate) content: SnapshotContent,
    pub(crate) runsc: &'a str,
    pub(crate) layers: &'a [PathBuf],
    pub(crate) skeleton: &'a Path,
    pub(crate) secret: &'a str,
}

/// What it would be restored with.
pub(crate) struct Here<'a> {
    pub(crate) runsc: &'a str,
    pub(crate) skeleton: &'a Path,
    pub(crate) layers: &'a [PathBuf],
}

impl Manifest {
    /// Of the folder of a snapshot to be: reads and digests its images.
    pub(crate) fn of(about: &About<'_>, dir: &Path) -> io::Result<Self> {
        let uname = rustix::system::uname();
        let files = match about.content {
            SnapshotContent::Memory => entries(&dir.join(MEMORY))?,
            SnapshotContent::Filesystem => Vec::new(),
        };
        Ok(Self {
            format: FORMAT,
            id: about.id.to_string(),
            source: about.source.to_owned(),
            parent: about.parent.map(ToString::to_string),
            content: about.content.as_str().to_owned(),
            driver: DRIVER.to_owned(),
            driver_version: env!("CARGO_PKG_VERSION").to_owned(),
            runsc: about.runsc.to_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            cpu: cpu_features().clone(),
            layers: names(about.layers),
            skeleton: name(about.skeleton),
            secret: about.secret.to_owned(),
            memory_bytes: files.iter().map(|file| file.len).sum(),
            files,
        })
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
        let file = match fs::File::open(dir.join(MANIFEST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
            other => other?,
        };
        let mut text = Vec::new();
        file.take(MANIFEST_MAX).read_to_end(&mut text)?;
        let sealed: Sealed =
            serde_json::from_slice(&text).map_err(|e| Unusable::Damaged(e.to_string()))?;
        if sealed.manifest.digest()? != sealed.blake3 {
            return Err(Unusable::Damaged("its digest is another".to_owned()));
        }
        Ok(sealed.manifest)
    }

    /// Of the text, which is the same whenever the same manifest is written.
    fn digest(&self) -> io::Result<String> {
        let text = serde_json::to_vec(self)?;
        Ok(blake3::hash(&text).to_hex().to_string())
    }

    /// Whether a sandbox can be made of it here.
    pub(crate) fn check(&self, wanted: SnapshotContent, here: &Here<'_>) -> Result<(), Unusable> {
        let needs = |what: String| Err(Unusable::Needs(what));
        if self.format != FORMAT || self.driver != DRIVER {
            return needs(format!("driver {}, format {}", self.driver, self.format));
        }
        match (wanted, self.content.as_str()) {
            (SnapshotContent::Filesystem, _) => return Ok(()),
            (SnapshotContent::Memory, "memory") => {}
            (SnapshotContent::Memory, _) => return needs("to boot: it has no memory".to_owned()),
        }
        if self.machine != rustix::system::uname().machine().to_string_lossy() {
            return needs(format!("a machine of kind {}", self.machine));
        }
        if self.runsc != here.runsc {
            return needs(format!("runsc {}, here is {}", self.runsc, here.runsc));
        }
        if self.skeleton != name(here.skeleton) {
            return needs("the guest program that it ran with".to_owned());
        }
        if self.layers != names(here.layers) {
            return needs("the layers that it ran with".to_owned());
        }
        let lacking = self.cpu.difference(cpu_features());
        let lacking: Vec<&str> = lacking.map(String::as_str).collect();
        match lacking.is_empty() {
            true => Ok(()),
            false => needs(format!("a CPU with {}", lacking.join(", "))),
        }
    }

    /// Reads the images again and compares them with what was written.
    pub(crate) fn verify(&self, dir: &Path) -> io::Result<SnapshotHealth> {
        let there = match self.content.as_str() {
            "memory" => entries(&dir.join(MEMORY)),
            _ => Ok(Vec::new()),
        };
        let damaged = |detail: String| Ok(SnapshotHealth::Damaged { detail });
        let there = match there {
            Ok(there) => there,
            // What the file system itself finds damaged it does not hand out.
            Err(error) => return damaged(format!("its memory cannot be read: {error}")),
        };
        for file in &self.files {
            match there.iter().find(|found| found.name == file.name) {
                None => return damaged(format!("{} is missing", file.name)),
                Some(found) if found != file => {
                    return damaged(format!("{} is not what was written", file.name));
                }
                Some(_) => {}
            }
        }
        Ok(SnapshotHealth::Good)
    }
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| name(path)).collect()
}

/// Every file of a folder, digested, in the order of their names.
fn entries(dir: &Path) -> io::Result<Vec<FileEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let mut file = fs::File::open(entry.path())?;
        let (mut blake3, mut len) = (Vec::new(), 0);
        let mut chunk = Vec::with_capacity(CHUNK);
        loop {
            chunk.clear();
            let read = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk)?;
            if read == 0 {
                break;
            }
            len += read as u64;
            blake3.push(blake3::hash(&chunk).to_hex().to_string());
        }
        entries.push(FileEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            len,
            blake3,
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Features of this machine's CPU.
fn cpu_features() -> &'static BTreeSet<String> {
    static FEATURES: std::sync::LazyLock<BTreeSet<String>> = std::sync::LazyLock::new(|| {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mut lines = text.lines();
        let line = lines.find(|line| line.starts_with("flags") || line.starts_with("Features"));
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
    fn what_was_changed_is_found() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let (dir, memory) = (dir.path(), dir.path().join(MEMORY));
        fs::create_dir(&memory)?;
        fs::write(memory.join("pages.img"), vec![7; CHUNK + 5])?;
        assert!(matches!(Manifest::read(dir), Err(Unusable::Missing)));
        let (id, layers) = (SnapshotId::generate(), [PathBuf::from("/l/layer")]);
        let about = About {
            id: &id,
            parent: None,
            source: "sb",
            content: SnapshotContent::Memory,
            runsc: "1",
            layers: &layers,
            skeleton: Path::new("/s/skeleton"),
            secret: "00",
        };
        let manifest = Manifest::of(&about, dir)?;
        manifest.write(dir)?;
        assert_eq!(Manifest::read(dir)?, manifest);
        assert_eq!(manifest.memory_bytes, CHUNK as u64 + 5);
        assert_eq!(manifest.verify(dir)?, SnapshotHealth::Good);
        let here = |runsc: &'static str| Here {
            runsc,
            skeleton: Path::new("/t/skeleton"),
            layers: &layers,
        };
        manifest.check(SnapshotContent::Memory, &here("1"))?;
        assert!(manifest.check(SnapshotContent::Memory, &here("2")).is_err());
        manifest.check(SnapshotContent::Filesystem, &here("2"))?;
        let mut bytes = vec![7; CHUNK + 5];
        bytes[CHUNK] = 8;
        fs::write(memory.join("pages.img"), bytes)?;
        assert!(matches!(
            manifest.verify(dir)?,
            SnapshotHealth::Damaged { .. }
        ));
        let file = dir.join(MANIFEST);
        let text = fs::read_to_string(&file)?.replacen("\"layer\"", "\"other\"", 1);
        fs::write(&file, text)?;
        assert!(matches!(Manifest::read(dir), Err(Unusable::Damaged(_))));
        Ok(())
    }
}
