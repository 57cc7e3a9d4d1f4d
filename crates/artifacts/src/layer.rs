//! A sandbox's writable layer, looked at from outside.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, statat};
use rustix::io::Errno;

/// Files and folders that are looked at in one walk.
pub const ENTRIES_MAX: usize = 500_000;
/// Folders in folders; each costs a descriptor while it is walked through.
const DEPTH_MAX: usize = 64;

/// Nothing above the layer, no link, no other file system.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Opening a pipe must not wait for its other end.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Why a layer could not be looked through.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It has more than is looked at.
    #[error("there are more than {ENTRIES_MAX} files, or more than {DEPTH_MAX} folders in folders")]
    TooMuch,
    /// The list of what was there when the run began is not there, or damaged.
    #[error("what was there when the run began is not known")]
    Unknown,
    /// The file system failed.
    #[error("the sandbox's files cannot be read")]
    Io(#[from] io::Error),
}

impl From<Errno> for LayerError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// A writable layer.
#[derive(Debug)]
pub struct Layer(OwnedFd);

/// What tells a file from what it was: two that are equal are of the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub(crate) inode: u64,
    pub(crate) seconds: i64,
    pub(crate) nanos: u64,
    pub(crate) size: u64,
}

impl Mark {
    fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            // Of the change, which programs cannot set.
            seconds: stat.st_ctime,
            nanos: stat.st_ctime_nsec,
            size: u64::try_from(stat.st_size).unwrap_or(0),
        }
    }
}

/// A regular file that a walk came by.
pub(crate) struct Found<'a> {
    /// As the sandbox names it: `/home/user/a`.
    pub(crate) path: &'a [u8],
    pub(crate) mark: Mark,
    folder: BorrowedFd<'a>,
    name: &'a CStr,
}

impl Found<'_> {
    /// Opens it. `None` if it is gone, something else by now, or its content is not in the layer.
    pub(crate) fn open(&self) -> io::Result<Option<Opened>> {
        let file = match openat2(self.folder, self.name, FILE, Mode::empty(), RESOLVE) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::ISDIR) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let has = |name: &str| rustix::fs::fgetxattr(&file, name, &mut [0_u8; 0][..]).is_ok();
        // Only its owner or mode was changed: the content is in a layer below, as it was.
        if has("trusted.overlay.metacopy") || has("user.overlay.metacopy") {
            return Ok(None);
        }
        let copied_up = has("trusted.overlay.origin") || has("user.overlay.origin");
        let file = File::from(file);
        let metadata = file.metadata()?;
        Ok(metadata.is_file().then_some(Opened { file, copied_up }))
    }
}

pub(crate) struct Opened {
    pub(crate) file: File,
    /// It was in a layer below.
    pub(crate) copied_up: bool,
}

/// What a walk is to leave out, told by the path below its folder.
pub(crate) type LeaveOut<'a> = dyn FnMut(&[u8]) -> bool + 'a;

impl Layer {
    /// The layer that this descriptor of a directory is of.
    pub fn new(root: OwnedFd) -> Self {
        Self(root)
    }

    /// Every regular file below `folder`, in the order of [`order`]; folders that are left out are
    /// not walked through. A folder that is not in the layer has no files.
    pub(crate) fn walk(
        &self,
        folder: &str,
        leave_out: &mut LeaveOut<'_>,
        visit: &mut dyn FnMut(&Found<'_>) -> Result<ControlFlow<()>, LayerError>,
    ) -> Result<ControlFlow<()>, LayerError> {
        let relative = folder.trim_matches('/');
        let inside = if relative.is_empty() { "." } else { relative };
        let opened = openat2(&self.0, inside, FOLDER, Mode::empty(), RESOLVE);
        let folder_fd = match opened {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {
                return Ok(ControlFlow::Continue(()));
            }
            Err(error) => return Err(error.into()),
        };
        let mut path = Vec::new();
        if !relative.is_empty() {
            path.push(b'/');
            path.extend_from_slice(relative.as_bytes());
        }
        let mut walk = Walk {
            begin: path.len() + 1,
            path,
            seen: 0,
            leave_out,
            visit,
        };
        walk.folder(folder_fd.as_fd(), 0)
    }
}

struct Walk<'a, 'b> {
    path: Vec<u8>,
    /// Where the part of the path begins that is below the folder of the walk.
    begin: usize,
    seen: usize,
    leave_out: &'a mut LeaveOut<'b>,
    visit: &'a mut dyn FnMut(&Found<'_>) -> Result<ControlFlow<()>, LayerError>,
}

impl Walk<'_, '_> {
    fn folder(
        &mut self,
        folder: BorrowedFd<'_>,
        depth: usize,
    ) -> Result<ControlFlow<()>, LayerError> {
        if depth > DEPTH_MAX {
            return Err(LayerError::TooMuch);
        }
        for name in self.names(folder)? {
            let length = self.path.len();
            self.path.push(b'/');
            self.path.extend_from_slice(name.to_bytes());
            let went_on = self.entry(folder, &name, depth);
            self.path.truncate(length);
            if went_on?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Its names, sorted.
    fn names(&mut self, folder: BorrowedFd<'_>) -> Result<Vec<CString>, LayerError> {
        let mut names = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.seen += 1;
            if self.seen > ENTRIES_MAX {
                return Err(LayerError::TooMuch);
            }
            names.push(name.to_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn entry(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
    ) -> Result<ControlFlow<()>, LayerError> {
        let on = Ok(ControlFlow::Continue(()));
        let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return on,
            Err(error) => return Err(error.into()),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                if (self.leave_out)(&self.path[self.begin..]) {
                    return on;
                }
                (self.visit)(&Found {
                    path: &self.path,
                    mark: Mark::of(&stat),
                    folder,
                    name,
                })
            }
            FileType::Directory => {
                if (self.leave_out)(&self.path[self.begin..]) {
                    return on;
                }
                match openat2(folder, name, FOLDER, Mode::empty(), RESOLVE) {
                    Ok(inner) => self.folder(inner.as_fd(), depth + 1),
                    // Another by now.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => on,
                    Err(error) => Err(error.into()),
                }
            }
            // Among others what overlayfs marks as removed: a device.
            _ => on,
        }
    }
}

/// How a walk orders paths: name by name.
pub(crate) fn order(left: &[u8], right: &[u8]) -> std::cmp::Ordering {
    let names = |path| <[u8]>::split(path, |byte: &u8| *byte == b'/');
    names(left).cmp(names(right))
}

/// Absolute folders in the order of [`order`], none within another.
pub(crate) fn apart(folders: &[String]) -> Vec<String> {
    let shown = |folder: &String| format!("/{}", folder.trim_matches('/'));
    let mut all: Vec<String> = folders.iter().map(shown).collect();
    all.sort_by(|a, b| order(a.as_bytes(), b.as_bytes()));
    let mut kept: Vec<String> = Vec::new();
    for folder in all {
        let within = |outer: &String| {
            outer == "/"
                || folder == *outer
                || folder
                    .strip_prefix(outer.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        if !kept.iter().any(within) {
            kept.push(folder);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_ordered_and_apart() {
        let folders = ["/b", "/a-b", "/a/c/", "/a", "/a/d", "/b"].map(str::to_owned);
        assert_eq!(apart(&folders), ["/a", "/a-b", "/b"]);
        let all = ["/x", "/"].map(str::to_owned);
        assert_eq!(apart(&all), ["/"]);
    }

    #[test]
    fn a_folder_comes_before_names_that_begin_with_its_own() {
        assert!(order(b"/a/z", b"/a-b").is_lt());
        assert!(order(b"/a", b"/a/b").is_lt());
        assert!(order(b"/a", b"/a").is_eq());
    }
}
