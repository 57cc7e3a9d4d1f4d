//! Root file systems: an overlay over id-mapped directories, as a detached mount.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::idmap::mapped_tree;

mod by_path;
mod marks;

pub use marks::renew_marks;

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

/// How overlayfs is told its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As descriptors of detached mounts: kernel 6.13.
    Descriptors,
    /// As paths in a mount namespace that exists for the moment: kernel 5.19. Slower.
    Paths,
}

/// Mounts `layers` (top first) read-only below `upper_dir`, which holds `u/` and `w/`, all mapped
/// by `namespace` (see [`crate::idmap::mapping_namespace`]). Device nodes work; inotify and file
/// handles survive a checkpoint (`index`, `nfs_export`).
///
/// The result belongs to no mount table until moved to a path. It was made by descriptors, or by
/// paths where the kernel does not know the former.
pub fn mount(
    layers: &[String],
    upper_dir: &str,
    namespace: BorrowedFd<'_>,
) -> Result<(OwnedFd, Way), OverlayError> {
    by(layers, upper_dir, Options::Restorable, |path| {
        mapped_tree(path, namespace)
    })
}

/// As [`mount`], with the ids that the files have on disk, and without what only a checkpoint of
/// host processes needs: `upper_dir` may be a copy of one that was used elsewhere.
pub fn mount_unmapped(layers: &[String], upper_dir: &str) -> Result<OwnedFd, OverlayError> {
    let copy = |path: &str| {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(open_tree(rustix::fs::CWD, path, flags)?)
    };
    by(layers, upper_dir, Options::Plain, copy).map(|(mount, _)| mount)
}

/// What overlayfs is asked for beyond its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Options {
    /// File handles that last.
    Restorable,
    Plain,
}

impl Options {
    /// Names of options to be turned on.
    const fn on(self) -> &'static [&'static str] {
        match self {
            Self::Restorable => &["index", "nfs_export"],
            Self::Plain => &[],
        }
    }
}

fn by(
    layers: &[String],
    upper_dir: &str,
    options: Options,
    tree: impl Fn(&str) -> io::Result<OwnedFd>,
) -> Result<(OwnedFd, Way), OverlayError> {
    if layers.is_empty() || layers.len() > MAX_LAYERS {
        return Err(OverlayError::Layers(layers.len()));
    }
    let map = |path: &str| {
        tree(path).map_err(|source| OverlayError::Map {
            path: path.to_owned(),
            source,
        })
    };
    // The copies are anonymous mounts that dissolve with their descriptors: all are kept until
    // the overlay holds its own.
    let trees = Trees {
        layers: layers
            .iter()
            .map(|layer| map(layer))
            .collect::<Result<_, _>>()?,
        upper: map(upper_dir)?,
    };
    let (upper, work) = (trees.part(upper_dir, "u")?, trees.part(upper_dir, "w")?);
    if let Some(mount) = by_descriptor(&trees.layers, &upper, &work, options)? {
        return Ok((mount, Way::Descriptors));
    }
    Ok((by_path::mount(&trees, options)?, Way::Paths))
}

/// Id-mapped copies of the directories.
struct Trees {
    layers: Vec<OwnedFd>,
    /// Holds `u/` and `w/`.
    upper: OwnedFd,
}

impl Trees {
    fn part(&self, upper_dir: &str, name: &str) -> Result<OwnedFd, OverlayError> {
        openat(
            &self.upper,
            name,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| OverlayError::Map {
            path: format!("{upper_dir}/{name}"),
            source: e.into(),
        })
    }
}

/// `None` if the kernel takes no layers by descriptor.
fn by_descriptor(
    layers: &[OwnedFd],
    upper: &OwnedFd,
    work: &OwnedFd,
    options: Options,
) -> Result<Option<OwnedFd>, OverlayError> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(plain("open"))?;
    let told = |step: &'static str| {
        let fs = fs.as_fd();
        move |e: Errno| OverlayError::Mount {
            step: format!("{step}: {}", kernel_log(fs)),
            source: e.into(),
        }
    };
    for (index, layer) in layers.iter().enumerate() {
        match fsconfig_set_fd(fs.as_fd(), "lowerdir+", layer.as_fd()) {
            Err(e) if index == 0 && is_unknown(e) => return Ok(None),
            other => other.map_err(told("lower layer"))?,
        }
    }
    fsconfig_set_fd(fs.as_fd(), "upperdir", upper.as_fd()).map_err(told("upper layer"))?;
    fsconfig_set_fd(fs.as_fd(), "workdir", work.as_fd()).map_err(told("work directory"))?;
    for option in options.on() {
        fsconfig_set_string(fs.as_fd(), *option, "on").map_err(told(option))?;
    }
    fsconfig_create(fs.as_fd()).map_err(told("create"))?;
    fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .map(Some)
    .map_err(told("mount"))
}

/// What kernels say to a layer by descriptor: before 6.5 the file system takes none at all, then
/// no such option, then text only.
fn is_unknown(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::INVAL | Errno::BADF)
}

fn plain(step: &'static str) -> impl Fn(Errno) -> OverlayError {
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
