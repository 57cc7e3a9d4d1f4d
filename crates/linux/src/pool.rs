//! Where sandboxes' files are: a btrfs file system if there can be one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{btrfs, command};

mod loopdev;

/// The smallest image that is made.
pub const MIN_IMAGE_BYTES: u64 = 1 << 30;
const MKFS_TIMEOUT: Duration = Duration::from_secs(60);

/// A pool that is ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its directory.
    pub path: PathBuf,
    /// What it is made of.
    pub kind: PoolKind,
    /// Whether quotas are on, else why not.
    pub disk_limits: Result<(), String>,
}

/// What a pool is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolKind {
    /// A directory of a btrfs file system.
    BtrfsDirectory,
    /// A btrfs file system in an image file.
    BtrfsImage,
    /// A plain directory: no cheap snapshots, no limits on disk use.
    Plain {
        /// Why not btrfs.
        reason: String,
    },
}

/// Space in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The size of the file system.
    pub total: u64,
    /// What can still be written.
    pub free: u64,
}

impl Pool {
    /// Makes `dir/pool` ready: nothing to do where it is already, else mounted from
    /// `dir/pool.img`, which is made (sparse, `image_bytes` long) where there is none. Quotas are
    /// turned on if the kernel has them. Falls back to a plain directory, unless an image exists
    /// that cannot be mounted: sandboxes may be in it.
    pub fn set_up(dir: &Path, image_bytes: u64) -> io::Result<Self> {
        let path = dir.join("pool");
        fs::create_dir_all(&path)?;
        let image = dir.join("pool.img");
        let kind = if btrfs::is_btrfs(&path)? {
            if image.exists() {
                PoolKind::BtrfsImage
            } else {
                PoolKind::BtrfsDirectory
            }
        } else if image.exists() {
            mount_image(&image, &path)?;
            PoolKind::BtrfsImage
        } else if fs::read_dir(&path)?.next().is_some() {
            PoolKind::Plain {
                reason: "the pool is a plain directory with files in it".to_owned(),
            }
        } else {
            match make_image(&image, image_bytes).and_then(|()| mount_image(&image, &path)) {
                Ok(()) => PoolKind::BtrfsImage,
                Err(error) => {
                    let _ = fs::remove_file(&image);
                    PoolKind::Plain {
                        reason: error.to_string(),
                    }
                }
            }
        };
        let disk_limits = match &kind {
            PoolKind::Plain { reason } => Err(reason.clone()),
            PoolKind::BtrfsDirectory | PoolKind::BtrfsImage => {
                btrfs::enable_quotas(&path).map_err(|e| format!("no quotas on the pool: {e}"))
            }
        };
        Ok(Self {
            path,
            kind,
            disk_limits,
        })
    }

    /// How much room there is.
    pub fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space {
            total: bytes(stat.f_blocks),
            free: bytes(stat.f_bavail),
        })
    }

    /// Unmounts an image. The loop device goes with it.
    pub fn unmount(&self) -> io::Result<()> {
        match self.kind {
            PoolKind::BtrfsImage => Ok(rustix::mount::unmount(
                &self.path,
                rustix::mount::UnmountFlags::empty(),
            )?),
            PoolKind::BtrfsDirectory | PoolKind::Plain { .. } => Ok(()),
        }
    }
}

/// Makes a file system in a new image. The name appears once it is complete.
fn make_image(image: &Path, bytes: u64) -> io::Result<()> {
    if bytes < MIN_IMAGE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the pool image is too small",
        ));
    }
    let mut scratch = image.as_os_str().to_owned();
    scratch.push(".new");
    let scratch = PathBuf::from(scratch);
    fs::File::create(&scratch)?.set_len(bytes)?;
    let made = make_filesystem(&scratch)
        .and_then(|()| fs::File::open(&scratch)?.sync_all())
        .and_then(|()| fs::rename(&scratch, image));
    if made.is_err() {
        let _ = fs::remove_file(&scratch);
    }
    made
}

fn make_filesystem(image: &Path) -> io::Result<()> {
    let path = image
        .to_str()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path that is not text"))?;
    let ran = command::run(&["mkfs.btrfs", "-q", "-f", path], MKFS_TIMEOUT)
        .map_err(|e| io::Error::new(e.kind(), format!("mkfs.btrfs (btrfs-progs): {e}")))?;
    match ran.code {
        Some(0) => Ok(()),
        _ => Err(io::Error::other(format!(
            "mkfs.btrfs failed: {}",
            ran.output.trim()
        ))),
    }
}

fn mount_image(image: &Path, at: &Path) -> io::Result<()> {
    use rustix::mount::{MountFlags, mount};
    let device = loopdev::attach(image)?;
    // The device detaches itself when it is unmounted, or closed here unmounted.
    mount(device.path(), at, "btrfs", MountFlags::NOATIME, None)?;
    Ok(())
}
