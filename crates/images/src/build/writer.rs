//! Makes a layer on top of a stack: directories keep the owner and mode they have below, and
//! symlinks on the way to a file are resolved inside the stack.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Uid};

use crate::stack::{Found, LayerStack, StackError};
use crate::vfs;

/// Owner and mode of what is made.
#[derive(Clone, Copy)]
pub(super) struct Attributes {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl Attributes {
    pub(super) const ROOT_DIR: Self = Self {
        uid: 0,
        gid: 0,
        mode: 0o755,
    };

    pub(super) fn set(self, fd: BorrowedFd<'_>) -> io::Result<()> {
        rustix::fs::fchown(
            fd,
            Some(Uid::from_raw(self.uid)),
            Some(Gid::from_raw(self.gid)),
        )?;
        Ok(rustix::fs::fchmod(fd, vfs::mode_of(self.mode))?)
    }
}

pub(super) struct LayerWriter<'a> {
    pub(super) stack: &'a LayerStack,
    root: OwnedFd,
}

impl<'a> LayerWriter<'a> {
    /// `root` is the new layer's empty root directory.
    pub(super) fn new(stack: &'a LayerStack, root: &Path) -> Result<Self, StackError> {
        let writer = Self {
            stack,
            root: vfs::open_dir(root)?,
        };
        writer.dirs(&stack.walk(b"/")?, Attributes::ROOT_DIR)?;
        Ok(writer)
    }

    /// Opens the directory `path` in the layer. What exists below looks as it does there, what is
    /// new is root's, the last component as `last` says.
    pub(super) fn dir(&self, path: &[u8], last: Attributes) -> Result<OwnedFd, StackError> {
        let found = self.stack.walk(path)?;
        if found.leaf.is_some() {
            return Err(StackError::NotADirectory(
                String::from_utf8_lossy(path).into_owned(),
            ));
        }
        Ok(self.dirs(&found, last)?)
    }

    /// Writes the file at `path`, replacing what is there; a symlink there is followed.
    pub(super) fn file(
        &self,
        path: &str,
        content: &[u8],
        attributes: Attributes,
    ) -> Result<(), StackError> {
        let mut found = self.stack.walk(path.as_bytes())?;
        let name = match found.leaf.take() {
            Some((_, name, _)) => name,
            None => found
                .missing
                .pop()
                .ok_or_else(|| StackError::NotAFile(path.to_owned()))?,
        };
        let dir = self.dirs(&found, Attributes::ROOT_DIR)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&dir, name.as_slice(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(io::Error::from)?;
        let mut file = File::from(fd);
        file.write_all(content)?;
        Ok(attributes.set(file.as_fd())?)
    }

    fn dirs(&self, found: &Found, last: Attributes) -> io::Result<OwnedFd> {
        let mut here = self.root.try_clone()?;
        for dir in &found.dirs {
            let name = dir.path.rsplit(|&b| b == b'/').next().unwrap_or_default();
            let (opened, new) = match name {
                b"" => (here, true),
                name => open_or_make(here.as_fd(), name)?,
            };
            here = opened;
            if new {
                like(dir.top().as_fd(), here.as_fd())?;
            }
        }
        for (index, name) in found.missing.iter().enumerate() {
            let (opened, new) = open_or_make(here.as_fd(), name)?;
            here = opened;
            if new {
                let is_last = index + 1 == found.missing.len();
                (if is_last { last } else { Attributes::ROOT_DIR }).set(here.as_fd())?;
            }
        }
        Ok(here)
    }
}

fn open_or_make(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<(OwnedFd, bool)> {
    let new = match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => true,
        Err(rustix::io::Errno::EXIST) => false,
        Err(error) => return Err(error.into()),
    };
    Ok((vfs::open_subdir(parent, name)?, new))
}

/// Gives `to` the owner, mode and attributes of `from`, except what overlayfs notes.
fn like(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    Attributes {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode,
    }
    .set(to)?;
    for (name, value) in vfs::xattrs(from)? {
        if !name.as_bytes().starts_with(b"trusted.") {
            rustix::fs::fsetxattr(to, &name, &value, rustix::fs::XattrFlags::empty())?;
        }
    }
    Ok(())
}
