//! What CRIU has found out about the kernel. It keeps that in `/run`, but only where `/run` is a
//! tmpfs; elsewhere each start of it asks the kernel anew, which takes 20 ms. Then we keep it, and
//! workers find it in a `/run` of their own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
};

use super::find::Criu;
use super::rpc::ExternalTree;
use super::worker::spec;
use crate::process::{kill, wait_ended};
use crate::spawn::spawn;

pub(super) const RUN: &str = "/run";
const FILE: &str = "/run/criu.kdat";
const TIMEOUT: Duration = Duration::from_secs(10);
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// It has a few kilobytes.
const MAX_BYTES: u64 = 1 << 20;

impl Criu {
    /// Lets it look at the kernel once and for all: later operations are 20 ms quicker. To be done
    /// when a server starts, also after a reboot. Takes about 40 ms.
    ///
    /// # Errors
    /// If it cannot be started, or leaves nothing; it works without, only slower.
    pub fn warm(&mut self) -> io::Result<()> {
        self.cache = None;
        if is_tmpfs(Path::new(RUN))? {
            // Kept for everybody, where it belongs.
            return self.look();
        }
        let looked = std::thread::scope(|scope| {
            let work = || {
                own_run()?;
                self.look()?;
                read()
            };
            let panicked = |_| Err(io::Error::other("thread panicked"));
            scope.spawn(work).join().unwrap_or_else(panicked)
        })?;
        self.cache = Some(looked.into());
        Ok(())
    }

    /// Gives the calling thread, which ends soon, a `/run` with what is known, and with these
    /// mounts at their places.
    pub(super) fn enter_own(&self, trees: &[ExternalTree]) -> io::Result<()> {
        let known = match &self.cache {
            Some(bytes) => Some(bytes.to_vec()),
            None if trees.is_empty() => return Ok(()),
            // What CRIU has there itself would be hidden.
            None => read().ok(),
        };
        own_run()?;
        if let Some(known) = known {
            fs::write(FILE, known)?;
        }
        for tree in trees {
            let place = tree.place();
            fs::DirBuilder::new().mode(0o755).create(&place)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(&tree.tree, "", rustix::fs::CWD, &place, flags)?;
        }
        Ok(())
    }

    /// One that can reach these paths: without what is known, if a `/run` of its own would hide any.
    pub(super) fn seeing<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let hidden = |path: &Path| match path.canonicalize() {
            Ok(path) => path.starts_with(RUN),
            Err(_) => false,
        };
        let mut criu = self.clone();
        if paths.into_iter().any(hidden) {
            criu.cache = None;
        }
        criu
    }

    /// `criu check`. That something is missing in this kernel is not of interest here.
    fn look(&self) -> io::Result<()> {
        let null = || fs::File::options().read(true).write(true).open("/dev/null");
        let spec = spec(self, &["check"], null()?.into(), null()?)?;
        let process = spawn(spec).map_err(io::Error::other)?;
        if !wait_ended(process.pidfd.as_fd(), TIMEOUT)? {
            kill(&process.pidfd)?;
        }
        let end = rustix::process::WaitOptions::empty();
        rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(process.pid), end))?;
        Ok(())
    }
}

impl ExternalTree {
    /// Where the worker has it, and only the worker: whoever may be there reaches it.
    pub(super) fn place(&self) -> String {
        format!("{RUN}/{}", self.name)
    }
}

fn read() -> io::Result<Vec<u8>> {
    if fs::metadata(FILE)?.len() > MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    fs::read(FILE)
}

fn is_tmpfs(path: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statfs(path)?.f_type as u64 == TMPFS_MAGIC)
}

/// An empty `/run` for the calling thread and those that it starts. Mounts made later on the host
/// are not seen, those that go are let go.
fn own_run() -> io::Result<()> {
    // SAFETY: concerns this thread alone, which ends after its work.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let no_way_back = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", no_way_back)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(tmpfs()?, "", rustix::fs::CWD, RUN, flags)?)
}

fn tmpfs() -> io::Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("mode", "0755"), ("size", "4m"), ("nr_inodes", "64")] {
        fsconfig_set_string(fs.as_fd(), key, value)?;
    }
    fsconfig_create(fs.as_fd())?;
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, safe)?)
}
