//! The root file system of the self-test: this program and the libraries it runs with.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Where the program is, inside.
pub(super) const PROGRAM: &str = "/subject";

/// Makes the layer. The libraries are those this process has mapped: it is the same program.
pub(super) fn create(dir: &Path, program: &Path) -> io::Result<()> {
    fs::create_dir(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    put(program, &dir.join(&PROGRAM[1..]))?;
    for library in libraries()? {
        put(
            &library,
            &dir.join(library.strip_prefix("/").unwrap_or(&library)),
        )?;
    }
    for loader in ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"] {
        if Path::new(loader).exists() {
            put(Path::new(loader), &dir.join(&loader[1..]))?;
        }
    }
    Ok(())
}

fn libraries() -> io::Result<Vec<PathBuf>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let paths = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| &line[at..]));
    let mut found: Vec<PathBuf> = paths
        .filter(|path| path.contains(".so"))
        .map(PathBuf::from)
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

fn put(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    if to.exists() {
        return Ok(());
    }
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))
}

/// The sysfs of a network namespace, read-only.
pub(super) fn sysfs(netns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let make = || {
        crate::netns::enter(netns)?;
        let fs = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(fs.as_fd())?;
        let strict = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        Ok(fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, strict)?)
    };
    // A thread of its own, which ends in the other network.
    let panicked = |_| Err(io::Error::other("thread panicked"));
    std::thread::scope(|scope| scope.spawn(make).join().unwrap_or_else(panicked))
}
