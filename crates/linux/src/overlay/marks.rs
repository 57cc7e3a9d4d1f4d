//! Marks of an upper layer that came from another machine.
//!
//! Where overlayfs gives out file handles that last (`nfs_export`), it merges a directory with the
//! one below only if its mark (`trusted.overlay.origin`, a file handle) is of that one. On another
//! file system the same directory has another handle: unless the mark is made anew, what is below
//! is hidden. What a mark looks like is the kernel's business, so the kernel makes it, in a scratch
//! layer.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Mode, OFlags, ResolveFlags, XattrFlags, fchmod, fstat, lgetxattr, lremovexattr, lsetxattr,
    openat2,
};
use rustix::io::Errno;

use super::mount_unmapped;

const ORIGIN: &str = "trusted.overlay.origin";
/// Bytes of a mark: a file handle has at most 128, and a header.
const ORIGIN_MAX: usize = 256;

/// Makes the marks of the directories in `upper` fit `layers` (top first). `scratch` is a folder
/// on the same file system that is made and removed. Nothing of `upper` is in use meanwhile.
///
/// # Errors
/// The scratch layer cannot be mounted, or a file cannot be read or written; some marks may have
/// been made anew then.
pub fn renew_marks(layers: &[String], upper: &Path, scratch: &Path) -> io::Result<()> {
    let mut marked = Vec::new();
    find_marked(upper, Path::new(""), &mut marked)?;
    if marked.is_empty() {
        return Ok(());
    }
    for part in ["u", "w"] {
        fs::create_dir_all(scratch.join(part))?;
    }
    let renewed = renew(layers, upper, scratch, &marked);
    fs::remove_dir_all(scratch)?;
    renewed
}

/// Directories with a mark, relative to `upper`; parents first, the layer itself left out: its own
/// mark is made when it is mounted. No link is followed.
fn find_marked(upper: &Path, below: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(upper.join(below))? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let path = below.join(entry.file_name());
        if mark(&upper.join(&path))?.is_some() {
            found.push(path.clone());
        }
        find_marked(upper, &path, found)?;
    }
    Ok(())
}

fn mark(directory: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; ORIGIN_MAX];
    match lgetxattr(directory, ORIGIN, value.as_mut_slice()) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn renew(layers: &[String], upper: &Path, scratch: &Path, marked: &[PathBuf]) -> io::Result<()> {
    let at = scratch.to_str().ok_or(Errno::INVAL)?;
    let merged = mount_unmapped(layers, at).map_err(io::Error::other)?;
    for path in marked {
        let (ours, made) = (upper.join(path), scratch.join("u").join(path));
        let fresh = match copy_up(&merged, path)? {
            true => mark(&made)?,
            false => None,
        };
        match fresh {
            Some(fresh) => lsetxattr(&ours, ORIGIN, &fresh, XattrFlags::empty())?,
            // Nothing is below it.
            None => lremovexattr(&ours, ORIGIN)?,
        }
    }
    Ok(())
}

/// Has the kernel make this directory of the scratch layer; `false`: there is none below.
fn copy_up(merged: &OwnedFd, path: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let directory = match openat2(merged, path, flags, Mode::empty(), resolve) {
        Ok(directory) => directory,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    // A change that changes nothing.
    let mode = Mode::from_raw_mode(fstat(&directory)?.st_mode & 0o7777);
    fchmod(&directory, mode)?;
    Ok(true)
}
