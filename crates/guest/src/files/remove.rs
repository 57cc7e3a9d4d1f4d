//! `rm -rf` that no symlink can lead astray: every step is relative to an open directory.

use std::{collections::VecDeque, ffi::CString, os::fd::OwnedFd};

use rustix::{
    fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat},
    io::Errno,
};

use crate::error::{OpResult, invalid, system};

/// Directories held open on the way down. What lies deeper is first moved up.
const MAX_OPEN: usize = 64;

/// Removes whatever is at `path`; nothing there is fine.
pub(super) fn remove(path: &str) -> OpResult<()> {
    if path == "/" {
        return Err(invalid("the root directory cannot be removed"));
    }
    let failed = |e: Errno| system(&format!("path '{path}'"), e);
    match unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(failed(e)),
    }
    // Entries appear while others remove: an attempt or two more, as rm(1) does not.
    for _ in 0..3 {
        empty(path).map_err(failed)?;
        match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Err(failed(Errno::NOTEMPTY))
}

/// One directory being emptied.
struct Level {
    dir: OwnedFd,
    /// Its name in the level above.
    name: CString,
    /// Subdirectories still to be emptied.
    below: VecDeque<CString>,
}

impl Level {
    /// Unlinks everything that is not a directory.
    fn open(dir: OwnedFd, name: CString) -> Result<Self, Errno> {
        let mut below = VecDeque::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let entry_name = entry.file_name();
            if matches!(entry_name.to_bytes(), b"." | b"..") {
                continue;
            }
            match unlinkat(&dir, entry_name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => below.push_back(entry_name.to_owned()),
                Err(e) => return Err(e),
            }
        }
        Ok(Self { dir, name, below })
    }
}

fn empty(path: &str) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(CWD, path, flags, Mode::empty())?;
    let mut stack = vec![Level::open(top, CString::default())?];
    let mut moved = 0u64;
    while let Some(level) = stack.last_mut() {
        if let Some(name) = level.below.pop_front() {
            if stack.len() >= MAX_OPEN {
                move_up(&mut stack, &name, &mut moved)?;
                continue;
            }
            let Some(level) = stack.last() else { break };
            match openat(&level.dir, &name, flags, Mode::empty()) {
                Ok(dir) => stack.push(Level::open(dir, name)?),
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
            continue;
        }
        let done = stack.pop();
        if let (Some(done), Some(above)) = (done, stack.last()) {
            match unlinkat(&above.dir, &done.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

/// Makes a deep directory a child of the top one.
fn move_up(stack: &mut [Level], name: &CString, moved: &mut u64) -> Result<(), Errno> {
    let (Some(top), Some(deep)) = (stack.first(), stack.last()) else {
        return Ok(());
    };
    let fresh = loop {
        *moved += 1;
        let fresh = CString::new(format!(".removing-{moved}")).map_err(|_| Errno::INVAL)?;
        match renameat(&deep.dir, name, &top.dir, &fresh) {
            Ok(()) => break Some(fresh),
            Err(Errno::NOENT) => break None,
            // A leftover of that name.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) if *moved < 1 << 20 => {}
            Err(e) => return Err(e),
        }
    };
    if let (Some(fresh), Some(top)) = (fresh, stack.first_mut()) {
        top.below.push_back(fresh);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::remove;

    #[test]
    fn removes_deep_trees_and_not_what_links_point_to() {
        let base = std::env::temp_dir().join(format!("wf-remove-{}", std::process::id()));
        let keep = base.join("keep");
        std::fs::create_dir_all(&keep).unwrap();
        std::fs::write(keep.join("file"), "x").unwrap();
        let tree = base.join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::os::unix::fs::symlink(&keep, tree.join("link")).unwrap();
        let mut dir = tree.clone();
        for _ in 0..200 {
            dir.push("d");
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join("f"), "y").unwrap();
        }
        remove(tree.to_str().unwrap()).unwrap();
        assert!(!tree.exists());
        assert!(keep.join("file").exists());
        remove(tree.to_str().unwrap()).unwrap();
        let link = base.join("l");
        std::os::unix::fs::symlink(&keep, &link).unwrap();
        remove(link.to_str().unwrap()).unwrap();
        assert!(keep.join("file").exists());
        remove(base.to_str().unwrap()).unwrap();
        assert!(!base.exists());
    }
}
