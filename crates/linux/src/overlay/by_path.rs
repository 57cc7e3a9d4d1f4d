//! An overlay whose layers are given as paths, which they have in a mount namespace of a thread
//! that ends with the call: neither the host nor the rest of this process sees them.

use std::ffi::CString;
use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsmount, fsopen, mount_change, move_mount, open_tree,
};

use super::{Options, OverlayError, Trees, plain};

/// Where the scratch directory is attached: any directory that every host has and that no layer
/// is in.
const PLACE: &str = "/sys";

pub(super) fn mount(trees: &Trees, options: Options) -> Result<OwnedFd, OverlayError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .spawn_scoped(scope, || mount_here(trees, options))
            .map_err(|source| failed("thread", source))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(failed("thread", std::io::ErrorKind::Other.into())))
    })
}

fn failed(step: &str, source: std::io::Error) -> OverlayError {
    OverlayError::Mount {
        step: step.to_owned(),
        source,
    }
}

/// In a thread of its own, whose mount namespace and working directory it changes.
fn mount_here(trees: &Trees, wanted: Options) -> Result<OwnedFd, OverlayError> {
    // SAFETY: no pointers. Of this thread alone: mount namespace, root and working directory.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
        return Err(failed("namespace", std::io::Error::last_os_error()));
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(plain("private mounts"))?;
    let scratch = scratch().map_err(plain("scratch directory"))?;
    let attach = |name: &str, tree: &OwnedFd| {
        mkdirat(&scratch, name, Mode::RWXU)?;
        let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(tree, "", &scratch, name, whole)
    };
    let mut lower = String::new();
    for (index, tree) in trees.layers.iter().enumerate() {
        let name = index.to_string();
        attach(&name, tree).map_err(plain("attach a lower layer"))?;
        let colon = if index == 0 { "" } else { ":" };
        let _ = write!(lower, "{colon}{name}");
    }
    let upper = trees.layers.len().to_string();
    attach(&upper, &trees.upper).map_err(plain("attach the upper layer"))?;
    let mut options = format!("lowerdir={lower},upperdir={upper}/u,workdir={upper}/w");
    for option in wanted.on() {
        let _ = write!(options, ",{option}=on");
    }
    overlay(&scratch, &options).map_err(plain("mount by paths, see the kernel's log"))
}

/// An empty directory that this thread is in.
fn scratch() -> Result<OwnedFd, Errno> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(fs.as_fd())?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let scratch = fsmount(fs.as_fd(), flags, MountAttrFlags::empty())?;
    let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&scratch, "", CWD, PLACE, whole)?;
    rustix::process::fchdir(&scratch)?;
    Ok(scratch)
}

/// Mounts in the working directory and takes a detached copy.
///
/// The old system call: `fsconfig` takes no text longer than 255 bytes, too short for many layers.
fn overlay(scratch: &OwnedFd, options: &str) -> Result<OwnedFd, Errno> {
    const NAME: &str = "root";
    mkdirat(scratch, NAME, Mode::RWXU)?;
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(
        "overlay",
        NAME,
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    )?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, NAME, flags)
}
