//! Files of a sandbox, put into its writable layer before it is mounted.
//!
//! A layer that comes from a snapshot was written by a sandbox: nothing here follows a link in it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat2, renameat, unlinkat,
};
use woodfrog_guest_proto::tcp::SECRET_LEN;

/// Where the guest finds its secret, which it removes. The file also keeps `runsc` from mounting a
/// memory file system over an empty `/tmp`.
pub(crate) const SECRET_PATH: &str = "tmp/.woodfrog-secret";

/// Fresh randomness, hexadecimal.
pub(crate) fn new_secret() -> io::Result<String> {
    let mut secret = [0; SECRET_LEN];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    Ok(hex::encode(secret))
}

/// Leaves the secret for a guest that is about to boot.
pub(crate) fn leave_secret(upper: &Path, secret: &str) -> io::Result<()> {
    let secret = hex::decode(secret).map_err(io::Error::other)?;
    let root = open_dir(upper)?;
    let (dir, name) = SECRET_PATH.split_once('/').unwrap_or_default();
    let tmp = match sub_dir(&root, dir) {
        Ok(tmp) => tmp,
        // What is there in its place cannot be used as a directory by anybody.
        Err(_) => {
            unlinkat(&root, dir, AtFlags::empty())?;
            sub_dir(&root, dir)?
        }
    };
    fchmod(&tmp, Mode::from_raw_mode(0o1777))?;
    put(&tmp, name, &secret, 0o600)
}

/// Gives a layer that was written elsewhere another host name. Where it has no `/etc` of its own, or
/// something else in its place, nothing is changed.
pub(crate) fn rename_host(upper: &Path, hostname: &str) -> io::Result<()> {
    let Ok(etc) = in_dir(&open_dir(upper)?, "etc") else {
        return Ok(());
    };
    let hosts = format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
    put(&etc, "hostname", format!("{hostname}\n").as_bytes(), 0o644)?;
    put(&etc, "hosts", hosts.as_bytes(), 0o644)
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn in_dir(dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(openat2(dir, name, flags, Mode::empty(), resolve)?)
}

/// One that is there, or a new one.
fn sub_dir(dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    match mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => in_dir(dir, name),
        Err(error) => Err(error.into()),
    }
}

/// Replaces a file, whatever it is.
fn put(dir: &OwnedFd, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let scratch = format!(".{name}.new");
    match unlinkat(dir, &scratch, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = openat2(dir, &scratch, flags, Mode::from_raw_mode(mode), resolve)?;
    fchmod(&file, Mode::from_raw_mode(mode))?;
    File::from(file).write_all(bytes)?;
    Ok(renameat(dir, &scratch, dir, name)?)
}

/// Removes a file; none is fine.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_file(path))
}

/// Removes a folder with all that is in it; none is fine.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_dir_all(path))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn links_that_a_sandbox_left_are_not_followed() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (upper, outside) = (dir.path().join("u"), dir.path().join("outside"));
        fs::create_dir(&upper)?;
        fs::create_dir(&outside)?;
        symlink(&outside, upper.join("tmp"))?;
        symlink(&outside, upper.join("etc"))?;
        let secret = new_secret()?;
        leave_secret(&upper, &secret)?;
        rename_host(&upper, "x")?;
        assert_eq!(fs::read_dir(&outside)?.count(), 0);
        let path = upper.join(SECRET_PATH);
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        assert_eq!(hex::encode(fs::read(path)?), secret);
        fs::remove_file(upper.join("etc"))?;
        fs::create_dir(upper.join("etc"))?;
        symlink(outside.join("planted"), upper.join("etc/hosts"))?;
        rename_host(&upper, "box")?;
        assert_eq!(fs::read_dir(&outside)?.count(), 0);
        assert!(fs::read_to_string(upper.join("etc/hosts"))?.contains("127.0.1.1\tbox"));
        Ok(())
    }
}
