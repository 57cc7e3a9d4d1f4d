//! Root file systems: an overlay over id-mapped directories, as a detached mount.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::idmap::mapped_tree;

/// The most layers one overlay takes (the kernel's own limit is 500).
pub const MAX_LAYERS: usize = 400;

/// Why no root file system was made.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// Too few or too many layers.
    #[error("an overlay takes 1 to {MAX_LAYERS} layers, not {0}")]
    Layers(usize),
    /// A directory could not be opened or id-mapped.
    #[error("cannot id-map {path}")]
    Map {
        /// The directory.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the overlay.
    #[error("cannot mount an overlay ({step})")]
    Mount {
        /// The step, with what the kernel's log for the mount says.
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Mounts `layers` (top first) read-only below `upper_dir`, which holds `u/` and `w/`, all mapped
/// by `namespace` (see [`crate::idmap::mapping_namespace`]). Device nodes work; inotify and file
/// handles survive a checkpoint (`index`, `nfs_export`).
///
/// The result belongs to no mount table until moved to a path. Needs kernel 6.13 (layers given
/// as descriptors).
pub fn mount(
    layers: &[String],
    upper_dir: &str,
    namespace: BorrowedFd<'_>,
) -> Result<OwnedFd, OverlayError> {
    if layers.is_empty() || layers.len() > MAX_LAYERS {
        return Err(OverlayError::Layers(layers.len()));
    }
    let map = |path: &str| {
        mapped_tree(path, namespace).map_err(|source| OverlayError::Map {
            path: path.to_owned(),
            source,
        })
    };
    // The copies are anonymous mounts that dissolve with their descriptors: all are kept until
    // the overlay holds its own.
    let trees = layers
        .iter()
        .map(|layer| map(layer))
        .collect::<Result<Vec<_>, _>>()?;
    let upper_tree = map(upper_dir)?;
    let part = |name: &str| {
        openat(
            &upper_tree,
            name,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| OverlayError::Map {
            path: format!("{upper_dir}/{name}"),
            source: e.into(),
        })
    };
    let (upper, work) = (part("u")?, part("w")?);
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(plain("open"))?;
    let told = |step: &'static str| {
        let fs = fs.as_fd();
        move |e: rustix::io::Errno| OverlayError::Mount {
            step: format!("{step}: {}", kernel_log(fs)),
            source: e.into(),
        }
    };
    for tree in &trees {
        fsconfig_set_fd(fs.as_fd(), "lowerdir+", tree.as_fd()).map_err(told("lower layer"))?;
    }
    fsconfig_set_fd(fs.as_fd(), "upperdir", upper.as_fd()).map_err(told("upper layer"))?;
    fsconfig_set_fd(fs.as_fd(), "workdir", work.as_fd()).map_err(told("work directory"))?;
    for option in ["index", "nfs_export"] {
        fsconfig_set_string(fs.as_fd(), option, "on").map_err(told(option))?;
    }
    fsconfig_create(fs.as_fd()).map_err(told("create"))?;
    fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .map_err(told("mount"))
}

fn plain(step: &'static str) -> impl Fn(rustix::io::Errno) -> OverlayError {
    move |e| OverlayError::Mount {
        step: step.to_owned(),
        source: e.into(),
    }
}

/// What the kernel has said about this mount, one message after the other.
fn kernel_log(fs: BorrowedFd<'_>) -> String {
    let mut text = String::new();
    let mut buffer = [0u8; 512];
    while let Ok(len) = rustix::io::read(fs, &mut buffer) {
        if len == 0 || text.len() > 2048 {
            break;
        }
        text.push_str(String::from_utf8_lossy(&buffer[..len]).trim_end());
        text.push_str("; ");
    }
    text
}
