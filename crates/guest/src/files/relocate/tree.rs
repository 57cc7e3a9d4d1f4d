//! Walks a tree that is copied. Every step is relative to an open directory.

use std::{
    collections::VecDeque,
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, mkdirat, openat, statat},
    io::Errno,
};

use super::{immovable, mounted, node};
use crate::error::{OpResult, invalid, system};

/// Directories inside each other that are copied: two descriptors are open for each.
pub(super) const MAX_DEPTH: usize = 128;

/// A name in a directory, and the name that its copy gets in another.
pub(super) struct Step<'a> {
    pub(super) from: BorrowedFd<'a>,
    pub(super) name: &'a CStr,
    pub(super) to: BorrowedFd<'a>,
    pub(super) copy: &'a CStr,
}

/// Copies what is at `source`, whatever it is, to the new name `target`.
pub(super) fn copy(source: &str, target: &str) -> OpResult<()> {
    let text = |path: &str| CString::new(path).map_err(|_| invalid("the path contains a NUL byte"));
    let (name, copy) = (text(source)?, text(target)?);
    let step = Step {
        from: CWD,
        name: &name,
        to: CWD,
        copy: &copy,
    };
    let stat = statat(step.from, step.name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| system(&format!("path '{source}'"), e))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return leaf(&step, &stat, source);
    }
    let mut stack = vec![Level::begin(&step, stat, source.to_owned())?];
    while let Some(level) = stack.last_mut() {
        let Some(name) = level.below.pop_front() else {
            level.finish()?;
            stack.pop();
            continue;
        };
        let deeper = level.enter(&name)?;
        stack.extend(deeper);
        if stack.len() > MAX_DEPTH {
            let message = format!("path '{source}' has more than {MAX_DEPTH} levels");
            return Err(invalid(message));
        }
    }
    Ok(())
}

/// One directory being copied. What is no directory in it is copied already.
struct Level {
    from: OwnedFd,
    to: OwnedFd,
    stat: Stat,
    /// Of the source, for people.
    path: String,
    /// Subdirectories still to be copied.
    below: VecDeque<CString>,
}

impl Level {
    /// Makes the copy, which only we can enter until it is finished.
    fn begin(step: &Step<'_>, stat: Stat, path: String) -> OpResult<Self> {
        let failed = |e: Errno| system(&format!("path '{path}'"), e);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = openat(step.from, step.name, flags, Mode::empty()).map_err(failed)?;
        mkdirat(step.to, step.copy, Mode::RWXU).map_err(failed)?;
        let to = openat(step.to, step.copy, flags, Mode::empty()).map_err(failed)?;
        let mut below = VecDeque::new();
        for entry in Dir::read_from(&from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if entry_of(from.as_fd(), to.as_fd(), name, &path)? == FileType::Directory {
                below.push_back(name.to_owned());
            }
        }
        Ok(Self {
            from,
            to,
            stat,
            path,
            below,
        })
    }

    /// A directory below; `None` if it is gone meanwhile.
    fn enter(&self, name: &CStr) -> OpResult<Option<Self>> {
        let path = below(&self.path, name);
        let failed = |e: Errno| system(&format!("path '{path}'"), e);
        let stat = match statat(&self.from, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        if stat.st_dev != self.stat.st_dev || mounted(&self.from, name).map_err(failed)? {
            return Err(immovable(&path, "a mount point"));
        }
        let step = Step {
            from: self.from.as_fd(),
            name,
            to: self.to.as_fd(),
            copy: name,
        };
        Self::begin(&step, stat, path).map(Some)
    }

    /// Nothing is made in it any more, so its times stay.
    fn finish(&self) -> OpResult<()> {
        node::dress(self.from.as_fd(), self.to.as_fd(), &self.stat)
            .map_err(|e| system(&format!("path '{}'", self.path), e))
    }
}

/// Copies one entry of a directory unless it is a directory, and says what it is. What is gone
/// meanwhile counts as copied.
fn entry_of(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    dir: &str,
) -> OpResult<FileType> {
    let path = below(dir, name);
    let stat = match statat(from, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(FileType::Unknown),
        Err(e) => return Err(system(&format!("path '{path}'"), e)),
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::Directory {
        let step = Step {
            from,
            name,
            to,
            copy: name,
        };
        leaf(&step, &stat, &path)?;
    }
    Ok(kind)
}

/// Copies what is no directory.
fn leaf(step: &Step<'_>, stat: &Stat, path: &str) -> OpResult<()> {
    let copied = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => node::file(step, stat),
        FileType::Symlink => node::link(step, stat),
        FileType::Fifo => node::fifo(step, stat),
        FileType::Socket => return Err(immovable(path, "a socket")),
        FileType::CharacterDevice | FileType::BlockDevice => {
            return Err(immovable(path, "a device"));
        }
        FileType::Directory | FileType::Unknown => Err(Errno::INVAL),
    };
    copied.map_err(|e| system(&format!("path '{path}'"), e))
}

fn below(dir: &str, name: &CStr) -> String {
    format!("{}/{}", dir.trim_end_matches('/'), name.to_string_lossy())
}
