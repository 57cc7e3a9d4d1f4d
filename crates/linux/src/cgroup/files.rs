//! Small files of the cgroup file systems.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// One write to a file that exists.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|e| named(path, &e))
}

pub(super) fn mkdir_all(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) => fs::create_dir_all(path).map_err(|e| named(path, &e)),
    }
}

pub(super) fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map_err(|e| named(path, &e))
}

/// A file that holds one number; `max` counts as the largest.
pub(super) fn read_number(path: &Path) -> io::Result<u64> {
    let text = read(path)?;
    match text.trim() {
        "max" => Ok(u64::MAX),
        text => text.parse().map_err(|_| invalid(path)),
    }
}

/// The number after `key` in a file of `key number` lines; 0 if there is none.
pub(super) fn read_key(path: &Path, key: &str) -> io::Result<u64> {
    for line in read(path)?.lines() {
        if let Some((name, value)) = line.split_once(' ')
            && name == key
        {
            return value.trim().parse().map_err(|_| invalid(path));
        }
    }
    Ok(0)
}

fn invalid(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("unreadable {}", path.display()),
    )
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
