//! Agents in store on the host, for machines without a way to the registry.
//!
//! `DIRECTORY/<agent>/<version>/` holds what npm made, `DIRECTORY/<agent>/current.json` says which
//! version is offered; it is renamed into place when everything is there.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::catalog::{Install, Launch};
use crate::id::AgentId;
use crate::install::{InstallOptions, Wanted};

/// Which version is offered.
const CURRENT: &str = "current.json";
/// Bytes of npm's complaint that are shown.
const TAIL_BYTES: usize = 4 << 10;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not come from the npm registry.
    #[error("{agent} cannot be put in store: {why}")]
    NotStorable {
        /// The agent.
        agent: AgentId,
        /// Why, and what to do.
        why: &'static str,
    },
    /// The version asked for cannot be.
    #[error(transparent)]
    Version(#[from] woodfrog_types::Fault),
    /// There is no npm on this host.
    #[error("this host has no npm; install it (Debian: apt install npm)")]
    NoNpm,
    /// npm failed; its last lines.
    #[error("npm failed: {0}")]
    Npm(String),
    /// What npm made has not the program that is to be started.
    #[error("what npm installed has no {0}")]
    NoProgram(&'static str),
    /// The directory cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// What was being used.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A directory of agents on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostStore {
    dir: PathBuf,
    npm: PathBuf,
}

/// An agent in store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Which one.
    pub id: AgentId,
    /// Its version.
    pub version: String,
    /// Where it is on the host.
    pub path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Current {
    version: String,
}

impl HostStore {
    /// The store in a directory, which need not be there.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            npm: PathBuf::from("npm"),
        }
    }

    /// The same store, filled by another npm than the one on the path.
    #[must_use]
    pub fn with_npm(mut self, program: impl Into<PathBuf>) -> Self {
        self.npm = program.into();
        self
    }

    /// Puts an agent in store with the host's npm. Blocks, for minutes perhaps.
    ///
    /// # Errors
    /// See [`StoreError`]. What was in store stays.
    pub fn install(&self, id: AgentId, options: &InstallOptions) -> Result<Stored, StoreError> {
        let entry = match id.definition().install {
            Install::Npm { entry, .. } => entry,
            Install::Builtin => {
                let why = "it is part of every sandbox";
                return Err(StoreError::NotStorable { agent: id, why });
            }
            Install::ByHand(why) => return Err(StoreError::NotStorable { agent: id, why }),
        };
        let wanted = options.wanted(id)?;
        let home = self.dir.join(id.as_str());
        let version = wanted.label();
        let path = home.join(&version);
        if !path.join("node_modules").is_dir() || options.reinstall {
            let new = home.join(format!(".new.{}", std::process::id()));
            let made = self.fill(&new, &wanted, entry).and_then(|()| {
                remove(&path)?;
                fs::rename(&new, &path).map_err(at(&path))
            });
            if made.is_err() {
                remove(&new)?;
            }
            made?;
        }
        let current = Current {
            version: version.clone(),
        };
        write_current(&home, &current)?;
        Ok(Stored { id, version, path })
    }

    fn fill(&self, new: &Path, wanted: &Wanted, entry: Launch) -> Result<(), StoreError> {
        remove(new)?;
        fs::create_dir_all(new).map_err(at(new))?;
        let ran = Command::new(&self.npm)
            .args(["install", "--no-audit", "--no-fund", "--loglevel=error"])
            .arg("--prefix")
            .arg(new)
            .args(wanted.specs())
            .stdin(Stdio::null())
            .output();
        let ran = match ran {
            Ok(ran) => ran,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::NoNpm),
            Err(error) => return Err(at(&self.npm)(error)),
        };
        if !ran.status.success() {
            let from = ran.stderr.len().saturating_sub(TAIL_BYTES);
            let tail = ran.stderr.get(from..).unwrap_or_default();
            let tail = String::from_utf8_lossy(tail).trim().to_owned();
            return Err(StoreError::Npm(tail));
        }
        if new.join("node_modules").join(entry.program).exists() {
            Ok(())
        } else {
            Err(StoreError::NoProgram(entry.program))
        }
    }

    /// What is in store, if it is what is wanted. Anything is while no version is asked for by the
    /// caller: `wanted` then has our own versions, and the store's may be another.
    pub(crate) fn find(&self, id: AgentId, wanted: &Wanted) -> Result<Option<Stored>, StoreError> {
        let Some(stored) = self.stored(id)? else {
            return Ok(None);
        };
        let default = InstallOptions::default().wanted(id)?;
        Ok((*wanted == default || wanted.label() == stored.version).then_some(stored))
    }

    /// What is in store of an agent.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn stored(&self, id: AgentId) -> Result<Option<Stored>, StoreError> {
        let home = self.dir.join(id.as_str());
        let file = home.join(CURRENT);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&file)(error)),
        };
        let current: Current = serde_json::from_str(&text).map_err(|e| at(&file)(e.into()))?;
        let path = home.join(&current.version);
        Ok(path.is_dir().then_some(Stored {
            id,
            version: current.version,
            path,
        }))
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn write_current(home: &Path, current: &Current) -> Result<(), StoreError> {
    let (file, new) = (home.join(CURRENT), home.join(".current.new"));
    let text = serde_json::to_vec(current).map_err(|e| at(&file)(e.into()))?;
    fs::write(&new, text).map_err(at(&new))?;
    fs::rename(&new, &file).map_err(at(&file))
}

impl Stored {
    /// Writes everything as one archive. A file with several names is in it once.
    pub(crate) fn archive(&self, output: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(output);
        archive.follow_symlinks(false);
        let mut names = HashMap::new();
        append(&mut archive, &self.path, Path::new("."), &mut names)?;
        archive.into_inner()?.flush()
    }
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    from: &Path,
    name: &Path,
    names: &mut HashMap<(u64, u64), PathBuf>,
) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_dir() {
        archive.append_path_with_name(from, name)?;
        let mut entries: Vec<_> = fs::read_dir(from)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            append(archive, &entry.path(), &name.join(entry.file_name()), names)?;
        }
        return Ok(());
    }
    if metadata.is_file() && metadata.nlink() > 1 {
        let place = (metadata.dev(), metadata.ino());
        if let Some(first) = names.get(&place) {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Link);
            header.set_mode(metadata.permissions().mode());
            header.set_size(0);
            return archive.append_link(&mut header, name, first);
        }
        names.insert(place, name.to_owned());
    }
    archive.append_path_with_name(from, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_links_modes_and_everything_once() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("bin"))?;
        fs::write(from.join("bin/tool"), vec![7; 100_000])?;
        fs::set_permissions(from.join("bin/tool"), fs::Permissions::from_mode(0o755))?;
        fs::hard_link(from.join("bin/tool"), from.join("again"))?;
        std::os::unix::fs::symlink("bin/tool", from.join("link"))?;
        let stored = Stored {
            id: AgentId::Opencode,
            version: "1".to_owned(),
            path: from,
        };
        let mut bytes = Vec::new();
        stored.archive(&mut bytes)?;
        assert!(bytes.len() < 150_000, "the content is in it once");
        tar::Archive::new(&bytes[..]).unpack(&to)?;
        assert_eq!(fs::read(to.join("again"))?.len(), 100_000);
        assert_eq!(fs::metadata(to.join("bin/tool"))?.mode() & 0o777, 0o755);
        assert_eq!(fs::read_link(to.join("link"))?, Path::new("bin/tool"));
        Ok(())
    }

    /// An npm that makes OpenCode's program with a text in it, or fails.
    fn npm(dir: &Path, does: &str) -> io::Result<PathBuf> {
        let path = dir.join("npm");
        let text = format!(
            "#!/bin/sh\necho \"$@\" >> {dir}/calls\n\
             while [ \"$1\" != --prefix ]; do shift; done\n\
             to=$2/node_modules/opencode-ai/bin; mkdir -p $to\n{does}\n",
            dir = dir.display()
        );
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    #[test]
    fn a_version_is_in_store_whole_or_not_at_all() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let id = AgentId::Opencode;
        let options = InstallOptions::default();
        let works = npm(dir.path(), "echo one > $to/opencode.exe")?;
        let store = HostStore::new(dir.path().join("store")).with_npm(works);
        let stored = store.install(id, &options)?;
        let program = stored
            .path
            .join("node_modules/opencode-ai/bin/opencode.exe");
        assert_eq!(fs::read_to_string(&program)?, "one\n");
        assert_eq!(store.stored(id)?, Some(stored.clone()));
        // It is not asked for twice.
        assert_eq!(store.install(id, &options)?, stored);
        assert_eq!(
            fs::read_to_string(dir.path().join("calls"))?
                .lines()
                .count(),
            1
        );

        let again = InstallOptions {
            reinstall: true,
            ..options
        };
        npm(
            dir.path(),
            "echo two > $to/opencode.exe; echo no network >&2; exit 3",
        )?;
        let failed = store.install(id, &again);
        assert!(matches!(failed, Err(StoreError::Npm(why)) if why == "no network"));
        npm(dir.path(), "exit 0")?;
        let failed = store.install(id, &again);
        assert!(matches!(failed, Err(StoreError::NoProgram(_))));
        assert_eq!(fs::read_to_string(&program)?, "one\n");
        assert_eq!(store.stored(id)?, Some(stored));
        npm(dir.path(), "echo three > $to/opencode.exe")?;
        store.install(id, &again)?;
        assert_eq!(fs::read_to_string(&program)?, "three\n");
        let left = fs::read_dir(dir.path().join("store/opencode"))?.count();
        assert_eq!(left, 2, "the version and the note which it is");

        let nowhere = store.with_npm("/nonexistent/npm").install(id, &again);
        assert!(matches!(nowhere, Err(StoreError::NoNpm)));
        Ok(())
    }

    #[test]
    fn only_what_npm_has_can_be_put_in_store() {
        let store = HostStore::new("/nonexistent");
        for id in [AgentId::Mock, AgentId::Amp, AgentId::Cursor] {
            let refused = store.install(id, &InstallOptions::default());
            assert!(
                matches!(refused, Err(StoreError::NotStorable { .. })),
                "{id}"
            );
        }
        assert!(matches!(store.stored(AgentId::Claude), Ok(None)));
    }
}
