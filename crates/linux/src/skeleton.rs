//! The skeleton layer: what every root file system needs from us, as its topmost lower layer.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// Where the guest is, inside.
pub const GUEST_PATH: &str = "/usr/lib/woodfrog/guest";

/// Mount points and directories, with their modes.
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("dev/pts", 0o755),
    ("dev/shm", 0o1777),
    ("proc", 0o555),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("run", 0o755),
    ("usr", 0o755),
    ("usr/lib", 0o755),
    ("usr/lib/woodfrog", 0o755),
];

/// Character devices: name, major, minor.
const DEVICES: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
];

/// Links in /dev. `tty` is one because a process holding the real device open cannot be
/// checkpointed when the other end of its terminal is held by another process.
const LINKS: &[(&str, &str)] = &[
    ("tty", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Makes the layer at `dir` with this guest program in it.
///
/// A layer in use is never changed: it is built beside `dir` and renamed into place, and when
/// `dir` exists already it must hold the same guest, else this is an error (name layers by the
/// guest's digest).
pub fn create(dir: &Path, guest: &[u8]) -> io::Result<()> {
    if dir.exists() {
        return check(dir, guest);
    }
    let mut name = dir.as_os_str().to_owned();
    name.push(format!(".tmp{}", std::process::id()));
    let scratch = PathBuf::from(name);
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    build(&scratch, guest)?;
    match fs::rename(&scratch, dir) {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = fs::remove_dir_all(&scratch);
            // Somebody else was first.
            if dir.exists() {
                check(dir, guest)
            } else {
                Err(error)
            }
        }
    }
}

fn check(dir: &Path, guest: &[u8]) -> io::Result<()> {
    if fs::read(dir.join(&GUEST_PATH[1..]))? == guest {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        "skeleton layer with another guest",
    ))
}

fn build(root: &Path, guest: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(root)?;
    fs::set_permissions(root, Permissions::from_mode(0o755))?;
    for (name, mode) in DIRECTORIES {
        fs::create_dir(root.join(name))?;
        // Apart from creation, because of the umask.
        fs::set_permissions(root.join(name), Permissions::from_mode(*mode))?;
    }
    for (name, major, minor) in DEVICES {
        let path = root.join("dev").join(name);
        let device = makedev(*major, *minor);
        mknodat(
            CWD,
            &path,
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            device,
        )?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    }
    for (name, target) in LINKS {
        symlink(target, root.join("dev").join(name))?;
    }
    let guest_path = root.join(&GUEST_PATH[1..]);
    fs::write(&guest_path, guest)?;
    fs::set_permissions(&guest_path, Permissions::from_mode(0o755))?;
    fs::File::open(&guest_path)?.sync_all()
}
