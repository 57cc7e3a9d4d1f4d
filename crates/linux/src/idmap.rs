//! Id-mapping of mounts: a user namespace that nobody lives in, kept as a descriptor.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::sys;

/// How many ids a sandbox has: 0 to 65535 inside.
pub const RANGE: u32 = 65536;

/// The maps of a sandbox whose ids start at `base` on the host.
pub fn sandbox_map(base: u32) -> String {
    format!("0 {base} {RANGE}\n")
}

/// The maps for mounting: the sandbox's, and the host's root as the id after its last. Overlayfs
/// makes its work directory as the host's root, which would otherwise have no id on disk.
fn mount_map(base: u32) -> String {
    format!("0 {base} {RANGE}\n{RANGE} 0 1\n")
}

/// Writes both maps of the user namespace that process `pid` has just entered.
pub fn write_maps(pid: u32, map: &str) -> io::Result<()> {
    for kind in ["gid_map", "uid_map"] {
        sys::write_file(&format!("/proc/{pid}/{kind}"), map.as_bytes())?;
    }
    Ok(())
}

/// A user namespace for id-mapping mounts to the range that starts at `base`.
///
/// Forks the calling process for a moment: for the launcher and other small single-threaded
/// programs.
pub fn mapping_namespace(base: u32) -> io::Result<OwnedFd> {
    let pid = sys::fork_into_user_namespace()?;
    let made = (|| {
        write_maps(pid.as_raw_nonzero().get() as u32, &mount_map(base))?;
        File::open(format!("/proc/{}/ns/user", pid.as_raw_nonzero())).map(OwnedFd::from)
    })();
    end(pid);
    made
}

fn end(pid: Pid) {
    // The child may be killed and reaped by us alone: it is our child and does nothing.
    let _ = kill_process(pid, Signal::KILL);
    let _ = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
}

/// A detached copy of the mount at `path`, id-mapped by `namespace`.
pub fn mapped_tree(path: &str, namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, path, flags)?;
    sys::idmap_mount(tree.as_fd(), namespace.as_raw_fd())?;
    Ok(tree)
}

/// A directory of the host's for a sandbox to see and write: a detached mount, id-mapped by
/// `namespace`, without device nodes and programs that change their user.
///
/// # Errors
/// It is no directory, or is on a file system that takes no id-mapped mounts.
pub fn mapped_directory(path: &str, namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let kind = std::fs::symlink_metadata(path)?.file_type();
    if !kind.is_dir() {
        return Err(rustix::io::Errno::NOTDIR.into());
    }
    let tree = mapped_tree(path, namespace)?;
    let strict = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV;
    sys::set_mount_raw(tree.as_fd(), strict).map_err(io::Error::from_raw_os_error)?;
    Ok(tree)
}
