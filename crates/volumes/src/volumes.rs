//! Where volumes are. All of one volume is on one file system: what is being written lies in
//! `incoming`, what is being removed in `trash`, so that moving between them is one step.
//!
//! A volume with a limit has a place of its own, with its content in `ID` and both of these in it, so
//! that they count as the volume's. Those without one share theirs, and have their content in
//! `content/ID`.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::places::Places;
use crate::tree::{Attributes, Parents, Tree};
use crate::upload::{Replace, Upload};
use crate::{Result, VolumeError};

/// Nobody but the server looks into it.
const PRIVATE: u32 = 0o700;
/// The volume's root belongs to whoever is root inside, and every user inside may write there.
const ROOT_MODE: u32 = 0o777;
/// Of places that are not whole yet.
const NEW_PREFIX: &str = ".new-";

/// All volumes of a server. Ids are names of ours, checked by the caller.
#[derive(Debug, Clone)]
pub struct Volumes {
    root: PathBuf,
    limited: Option<Limited>,
}

/// Those with limits: a place each.
#[derive(Debug, Clone)]
struct Limited {
    root: PathBuf,
    places: Arc<dyn Places>,
}

/// Where all that a volume has is.
struct Home {
    content: PathBuf,
    /// The directory with `incoming` and `trash`.
    areas: PathBuf,
}

impl Volumes {
    /// Below `root`, which need not be there; none has a limit.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            limited: None,
        }
    }

    /// New ones may have limits; those are below another `root`.
    #[must_use]
    pub fn with_places(self, root: impl Into<PathBuf>, places: Arc<dyn Places>) -> Self {
        let limited = Limited {
            root: root.into(),
            places,
        };
        Self {
            limited: Some(limited),
            ..self
        }
    }

    /// A volume's content; an empty one is made if there is none, with this limit in bytes.
    pub fn tree(&self, id: &str, limit: Option<u64>) -> Result<Tree> {
        let open = || {
            let home = self.home(id);
            Tree::open(&home.content, home.areas)
        };
        open().or_else(|_| {
            self.create(id, limit)?;
            open()
        })
    }

    /// Makes a volume's content, empty, with this limit in bytes; one that is there stays as it
    /// is. Everything of the volume counts: a few KiB are the file system's own.
    pub fn create(&self, id: &str, limit: Option<u64>) -> Result<()> {
        match (limit, &self.limited) {
            (None, _) => self.create_plain(id),
            (Some(bytes), Some(limited)) => limited.create(id, bytes),
            (Some(_), None) => {
                let text = "volumes have no limits here".to_owned();
                Err(VolumeError::Invalid(text))
            }
        }
    }

    fn create_plain(&self, id: &str) -> Result<()> {
        make_dir(&self.root)?;
        make_dir(&self.root.join("content"))?;
        let incoming = area(&self.root, "incoming")?;
        // Beside its place first: the mode is not that of its making, which a mask narrows.
        let fresh = fresh_name()?;
        let new = self.root.join("incoming").join(&fresh);
        make_content(&new)?;
        let (cwd, place) = (rustix::fs::CWD, self.root.join("content").join(id));
        match rustix::fs::renameat_with(&incoming, &*fresh, cwd, &place, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => fs::remove_dir(&new).map_err(failed),
            Err(error) => Err(failed(error)),
        }
    }

    /// The directory of a volume's content: what is made of it elsewhere is the caller's affair.
    /// Its name is the volume's id.
    pub fn path(&self, id: &str) -> PathBuf {
        self.home(id).content
    }

    /// What a volume takes, if it has a limit; a file system may know that with a delay.
    pub fn used(&self, id: &str) -> Option<u64> {
        let limited = self.limited.as_ref()?;
        limited.places.used(&limited.root.join(id)).ok()
    }

    /// Begins to write a file.
    pub fn upload(
        &self,
        tree: &Tree,
        path: &str,
        set: Attributes,
        parents: Parents,
        replace: Replace,
    ) -> Result<Upload> {
        let incoming = area(tree.areas(), "incoming")?;
        Upload::begin(tree, incoming, path, set, parents, replace)
    }

    /// Removes an entry of a volume with all below it: at once, as others see it, but in a volume
    /// that is full, where nothing can be renamed.
    pub fn remove(&self, tree: &Tree, path: &str) -> Result<()> {
        let trash = area(tree.areas(), "trash")?;
        let name = fresh_name()?;
        match tree.take_out(path, trash.as_fd(), &name) {
            Ok(()) => {}
            Err(VolumeError::NoSpace) => return tree.remove_in_place(path),
            Err(error) => return Err(error),
        }
        clear(&tree.areas().join("trash").join(name));
        Ok(())
    }

    /// Removes a volume's content; none is fine.
    pub fn delete(&self, id: &str) -> Result<()> {
        if let Some(limited) = &self.limited
            && limited.has(id)
        {
            return limited
                .places
                .remove(&limited.root.join(id))
                .map_err(failed);
        }
        make_dir(&self.root)?;
        area(&self.root, "trash")?;
        let gone = self.root.join("trash").join(fresh_name()?);
        match fs::rename(self.home(id).content, &gone) {
            Ok(()) => clear(&gone),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(())
    }

    /// Removes what a server before left half done, and the content of volumes not in `known`. If
    /// none is known, whole volumes stay: a server with another database would remove them all.
    pub fn tidy(&self, known: &BTreeSet<String>) -> Result<()> {
        clear_areas(&self.root)?;
        for (name, path) in entries(&self.root.join("content"))? {
            if !known.is_empty() && !known.contains(&name) {
                tracing::warn!(path = %path.display(), "removing a volume that the server does not know");
                clear(&path);
            }
        }
        let Some(limited) = &self.limited else {
            return Ok(());
        };
        for (name, path) in entries(&limited.root)? {
            if known.contains(&name) {
                clear_areas(&path)?;
                continue;
            }
            if known.is_empty() && !name.starts_with(NEW_PREFIX) {
                tracing::warn!(path = %path.display(), "the server knows of no volume at all: this one is left on the disk");
                continue;
            }
            tracing::warn!(path = %path.display(), "removing a volume that the server does not know");
            if let Err(error) = limited.places.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a volume that was removed is still on the disk");
            }
        }
        Ok(())
    }

    fn home(&self, id: &str) -> Home {
        match &self.limited {
            Some(limited) if limited.has(id) => Home {
                content: limited.root.join(id).join(id),
                areas: limited.root.join(id),
            },
            Some(_) | None => Home {
                content: self.root.join("content").join(id),
                areas: self.root.clone(),
            },
        }
    }
}

impl Limited {
    fn has(&self, id: &str) -> bool {
        self.root.join(id).is_dir()
    }

    /// Makes a place with all that is in it beside where it is to be, and moves it there. When this
    /// returns it is on disk: the record of a volume would outlive it otherwise.
    fn create(&self, id: &str, bytes: u64) -> Result<()> {
        make_dir(&self.root)?;
        let new = self.root.join(format!("{NEW_PREFIX}{}", fresh_name()?));
        self.places.make(&new, bytes).map_err(failed)?;
        let made = self.fill(&new, id);
        if !matches!(made, Ok(true)) {
            match self.places.remove(&new) {
                // It was moved, and could not be written down after.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.map_err(failed)?,
            }
        }
        made.map(drop)
    }

    /// Whether it has come to be the volume's place; there may be one already.
    fn fill(&self, new: &Path, id: &str) -> Result<bool> {
        fs::set_permissions(new, fs::Permissions::from_mode(PRIVATE)).map_err(failed)?;
        // Before it is full, for then no directory can be made.
        for area in AREAS {
            make_dir(&new.join(area))?;
        }
        make_content(&new.join(id))?;
        let (cwd, flags) = (rustix::fs::CWD, RenameFlags::NOREPLACE);
        match rustix::fs::renameat_with(cwd, new, cwd, self.root.join(id), flags) {
            Ok(()) => {}
            Err(Errno::EXIST | Errno::NOTEMPTY) => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
        let root = fs::File::open(&self.root).map_err(failed)?;
        root.sync_all().map_err(failed)?;
        Ok(true)
    }
}

const AREAS: [&str; 2] = ["incoming", "trash"];

fn area(areas: &Path, name: &str) -> Result<OwnedFd> {
    let dir = areas.join(name);
    make_dir(&dir)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&dir, flags, Mode::empty());
    opened.map_err(|error| VolumeError::of(name, error))
}

/// Makes a directory, and those above it, for nobody but the server; one that is there is fine.
fn make_dir(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let mut private = DirBuilder::new();
    private.recursive(true).mode(PRIVATE);
    private.create(dir).map_err(failed)
}

/// Makes the root of a volume's content.
fn make_content(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().mode(PRIVATE).create(dir);
    made.map_err(failed)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(ROOT_MODE)).map_err(failed)
}

/// Names and paths of what is in a directory; one that is not there is empty.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let listed = match fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        Ok((name, entry.path()))
    };
    listed.map(entry).collect()
}

/// Removes what was being written and removed.
fn clear_areas(areas: &Path) -> Result<()> {
    for area in AREAS {
        for (_, path) in entries(&areas.join(area))? {
            clear(&path);
        }
    }
    Ok(())
}

/// Removes a tree that nobody sees any more. What fails is tried again at the next start.
fn clear(path: &Path) {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let removed = match is_dir {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "what was removed from a volume is still on the disk");
    }
}

fn failed(error: impl Into<std::io::Error>) -> VolumeError {
    VolumeError::of("/", error)
}

/// A name that nobody has.
pub(crate) fn fresh_name() -> Result<String> {
    let mut random = [0; 16];
    match getrandom::fill(&mut random) {
        Ok(()) => Ok(hex::encode(random)),
        Err(error) => Err(VolumeError::Io {
            path: "/".to_owned(),
            source: std::io::Error::other(error.to_string()),
        }),
    }
}
