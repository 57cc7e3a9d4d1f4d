//! Where volumes are: `content/ID` each, what is being written in `incoming`, what is being
//! removed in `trash`. All on one file system, so that moving between them is one step.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::tree::{Attributes, Parents, Tree};
use crate::upload::{Replace, Upload};
use crate::{Result, VolumeError};

/// Nobody but the server looks into it.
const PRIVATE: u32 = 0o700;
/// The volume's root belongs to whoever is root inside.
const ROOT_MODE: u32 = 0o755;

/// All volumes of a server. Ids are names of ours, checked by the caller.
#[derive(Debug, Clone)]
pub struct Volumes {
    root: PathBuf,
}

impl Volumes {
    /// Below `root`, which need not be there.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A volume's content; an empty one is made if there is none.
    pub fn tree(&self, id: &str) -> Result<Tree> {
        let dir = self.content(id);
        if let Ok(tree) = Tree::open(&dir) {
            return Ok(tree);
        }
        self.make(&self.root.join("content"), PRIVATE)?;
        self.make(&dir, ROOT_MODE)?;
        Tree::open(&dir)
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
        Upload::begin(tree, self.area("incoming")?, path, set, parents, replace)
    }

    /// Removes an entry of a volume with all below it: at once, as others see it.
    pub fn remove(&self, tree: &Tree, path: &str) -> Result<()> {
        let trash = self.area("trash")?;
        let name = fresh_name()?;
        tree.take_out(path, trash.as_fd(), &name)?;
        clear(&self.root.join("trash").join(name));
        Ok(())
    }

    /// Removes a volume's content; none is fine.
    pub fn delete(&self, id: &str) -> Result<()> {
        self.area("trash")?;
        let gone = self.root.join("trash").join(fresh_name()?);
        match fs::rename(self.content(id), &gone) {
            Ok(()) => clear(&gone),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(VolumeError::of("/", error)),
        }
        Ok(())
    }

    /// Removes what a server before left half done, and the content of volumes not in `known`.
    pub fn tidy(&self, known: &BTreeSet<String>) -> Result<()> {
        for (area, all) in [("incoming", true), ("trash", true), ("content", false)] {
            let entries = match fs::read_dir(self.root.join(area)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(VolumeError::of(area, error)),
            };
            for entry in entries {
                let entry = entry.map_err(|error| VolumeError::of(area, error))?;
                if all || !known.contains(&*entry.file_name().to_string_lossy()) {
                    clear(&entry.path());
                }
            }
        }
        Ok(())
    }

    fn content(&self, id: &str) -> PathBuf {
        self.root.join("content").join(id)
    }

    fn area(&self, name: &str) -> Result<OwnedFd> {
        let dir = self.root.join(name);
        self.make(&dir, PRIVATE)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&dir, flags, Mode::empty());
        opened.map_err(|error| VolumeError::of(name, error))
    }

    fn make(&self, dir: &Path, mode: u32) -> Result<()> {
        let mut private = DirBuilder::new();
        private.recursive(true).mode(PRIVATE);
        let made = private.create(&self.root);
        made.map_err(|error| VolumeError::of("/", error))?;
        match DirBuilder::new().mode(mode).create(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            made => made.map_err(|error| VolumeError::of("/", error)),
        }
    }
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
