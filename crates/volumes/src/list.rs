//! Listings.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use crate::entry::{Entry, EntryKind, entry_at};
use crate::path::Inside;
use crate::tree::Tree;
use crate::{Result, VolumeError};

/// Entries of one listing.
pub const ENTRIES_MAX: usize = 10_000;
/// Levels of one listing.
pub const DEPTH_MAX: u32 = 64;

impl Tree {
    /// The entries below a directory, `depth` levels deep (at least one), by path.
    pub fn list(&self, path: &str, depth: u32) -> Result<Vec<Entry>> {
        if depth > DEPTH_MAX {
            let text = format!("a listing has at most {DEPTH_MAX} levels");
            return Err(VolumeError::Invalid(text));
        }
        let mut found = Vec::new();
        let mut waiting = VecDeque::from([(Inside::parse(path)?, depth.max(1))]);
        while let Some((dir, levels)) = waiting.pop_front() {
            let below = match self.children(&dir, &mut found) {
                // Removed since its parent was read.
                Err(VolumeError::NotFound(_)) if !found.is_empty() => continue,
                below => below?,
            };
            if levels > 1 {
                waiting.extend(below.into_iter().map(|dir| (dir, levels - 1)));
            }
        }
        found.sort_by(|a: &Entry, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Adds a directory's entries; returns the directories among them.
    fn children(&self, path: &Inside, found: &mut Vec<Entry>) -> Result<Vec<Inside>> {
        let shown = path.shown();
        let dir = self.directory(path)?;
        let entries = rustix::fs::Dir::read_from(&dir);
        let mut below = Vec::new();
        for item in entries.map_err(|error| VolumeError::of(&shown, error))? {
            let item = item.map_err(|error| VolumeError::of(&shown, error))?;
            let name = item.file_name().to_string_lossy().into_owned();
            if name == "." || name == ".." {
                continue;
            }
            if found.len() >= ENTRIES_MAX {
                let text = format!("the listing has more than {ENTRIES_MAX} entries");
                return Err(VolumeError::Invalid(text));
            }
            let path = path.join(&name);
            match entry_at(dir.as_fd(), &name, &path) {
                Ok(entry) => {
                    if entry.kind == EntryKind::Directory {
                        below.push(path);
                    }
                    found.push(entry);
                }
                // Removed meanwhile, or its name is no text.
                Err(VolumeError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(below)
    }
}
