//! The pool: the file system that layers and sandboxes live on.
//!
//! btrfs gives each sandbox a hard disk limit and, later, snapshots at once. Where the data
//! directory is on something else, a sparse image with a btrfs in it is mounted.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{statfs, statvfs};

use crate::btrfs;

/// What is left to the rest of the disk when the image's size is not given.
const SHARE_OF_FREE: u64 = 90;
/// Smaller than this btrfs is of no use.
const SIZE_MIN: u64 = 512 << 20;

/// What the pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// btrfs with quotas: disk limits hold.
    Btrfs,
    /// A directory of some other file system; the reason why.
    Plain { why: String },
}

/// A failed step of the set-up.
#[derive(Debug, thiserror::Error)]
#[error("{step} ({path})")]
pub struct PoolError {
    pub step: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PoolError {
    move |source| PoolError { step, path: path.into(), source }
}

/// Makes the pool usable at `dir`, with its image at `image` if one is needed: creates, mounts
/// and switches quotas on, whatever of it is not done yet. `size` is that of a new image.
pub fn set_up(dir: &Path, image: &Path, size: Option<u64>) -> Result<Kind, PoolError> {
    fs::create_dir_all(dir).map_err(failed("make the pool's folder", dir))?;
    if !is_btrfs(dir).map_err(failed("look at the pool", dir))? {
        if let Err(why) = mount_image(dir, image, size)? {
            return Ok(Kind::Plain { why });
        }
    }
    let root = File::open(dir).map_err(failed("open the pool", dir))?;
    match btrfs::quota_enable(root.as_fd()) {
        Ok(()) => Ok(Kind::Btrfs),
        Err(error) => Ok(Kind::Plain {
            why: format!("the kernel has no simple quotas (6.7 or newer is needed): {error}"),
        }),
    }
}

fn is_btrfs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.f_type == btrfs::MAGIC)
}

/// The inner error says why there can be none here.
fn mount_image(
    dir: &Path,
    image: &Path,
    size: Option<u64>,
) -> Result<Result<(), String>, PoolError> {
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.contains("btrfs") && run(Command::new("modprobe").arg("btrfs")).is_err() {
        return Ok(Err("the kernel has no btrfs".into()));
    }
    if !image.exists() {
        if let Err(error) = run(Command::new("mkfs.btrfs").arg("--version")) {
            return Ok(Err(format!("mkfs.btrfs is missing (apt-get install btrfs-progs): {error}")));
        }
        create_image(image, size)?;
    }
    let mount = Command::new("mount")
        .args(["-t", "btrfs", "-o", "loop,noatime,discard=async"])
        .arg(image)
        .arg(dir)
        .output()
        .map_err(failed("start mount", dir))?;
    if !mount.status.success() {
        let said = String::from_utf8_lossy(&mount.stderr);
        return Ok(Err(format!("the image cannot be mounted: {}", said.trim())));
    }
    bypass_cache(image);
    Ok(Ok(()))
}

/// Made under another name, then renamed: a half-made image is never used.
fn create_image(image: &Path, size: Option<u64>) -> Result<(), PoolError> {
    let parent = image.parent().unwrap_or(Path::new("/"));
    let free = statvfs(parent).map_err(|e| failed("look at the disk", parent)(e.into()))?;
    let size = size.unwrap_or(free.f_bavail * free.f_frsize / 100 * SHARE_OF_FREE);
    if size < SIZE_MIN {
        let error = io::Error::new(io::ErrorKind::StorageFull, "less than 512 MiB for the pool");
        return Err(failed("size the pool's image", image)(error));
    }
    let scratch = image.with_extension("tmp");
    let file = File::create(&scratch).map_err(failed("make the pool's image", &scratch))?;
    file.set_len(size).map_err(failed("size the pool's image", &scratch))?;
    drop(file);
    let mut mkfs = Command::new("mkfs.btrfs");
    mkfs.args(["-q", "-f", "-m", "single", "-d", "single", "-L", "woodfrog"]).arg(&scratch);
    run(&mut mkfs).map_err(failed("format the pool's image", &scratch))?;
    fs::rename(&scratch, image).map_err(failed("name the pool's image", image))
}

/// Keeps the host from caching the image beside the pool's own cache. Only speed is lost if it
/// cannot be done.
fn bypass_cache(image: &Path) {
    let Ok(devices) = Command::new("losetup").args(["-n", "-O", "NAME", "-j"]).arg(image).output()
    else {
        return;
    };
    for device in String::from_utf8_lossy(&devices.stdout).split_whitespace() {
        let _ = run(Command::new("losetup").arg("--direct-io=on").arg(device));
    }
}

/// Unmounts the pool if it is a mount of its own.
pub fn unmount(dir: &Path) -> Result<(), PoolError> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    match (device(dir), device(parent)) {
        (Ok(own), Ok(outer)) if own != outer => rustix::mount::unmount(
            dir,
            rustix::mount::UnmountFlags::empty(),
        )
        .map_err(|e| failed("unmount the pool", dir)(e.into())),
        _ => Ok(()),
    }
}

/// Bytes of the file system in all, and free.
pub fn space(dir: &Path) -> io::Result<(u64, u64)> {
    let stat = statvfs(dir)?;
    Ok((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(if said.is_empty() { output.status.to_string() } else { said }))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io::Write;

    use super::*;

    #[test]
    fn an_image_is_made_mounted_limited_and_removed() {
        let base = std::env::temp_dir().join(format!("wf-pool-test-{}", std::process::id()));
        let (dir, image) = (base.join("pool"), base.join("pool.img"));
        let kind = set_up(&dir, &image, Some(1 << 30)).expect("set up");
        assert_eq!(kind, Kind::Btrfs);
        assert_eq!(set_up(&dir, &image, None).expect("again"), Kind::Btrfs);
        let parent = File::open(&dir).expect("open");
        let name = OsStr::new("sub");
        btrfs::subvolume_create(&parent, name).expect("create");
        let sub = File::open(dir.join("sub")).expect("open");
        btrfs::limit(&sub, 8 << 20).expect("limit");
        let mut file = File::create(dir.join("sub/fill")).expect("file");
        let block = vec![7; 1 << 20];
        let error = (0..64).find_map(|_| file.write_all(&block).and_then(|()| file.sync_data()).err());
        assert_eq!(error.and_then(|e| e.raw_os_error()), Some(libc::EDQUOT));
        let used = btrfs::usage(&sub).expect("usage").expect("quota");
        assert!((1 << 20..=8 << 20).contains(&used), "{used}");
        drop((file, sub));
        btrfs::subvolume_delete(&parent, name).expect("delete");
        drop(parent);
        unmount(&dir).expect("unmount");
        fs::remove_dir_all(&base).expect("remove");
    }
}
