//! Volumes in sandboxes: directories of the host's, id-mapped, that several sandboxes may see.
//!
//! They are no part of a snapshot: CRIU is told to leave them out, and given them anew.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};
use woodfrog_linux::criu::ExternalMount;
use woodfrog_linux::launcher::{DIRECTORIES_STEP, Directory, Failure};
use woodfrog_sandbox::{DriverError, LaunchSpec, Result, VolumeSpec};
use woodfrog_types::SnapshotId;

use crate::launch::text;
use crate::manifest::Manifest;

/// What is wrong is wrong with this part of a spec.
const FIELD: &str = "volumes";

/// One place at which a saved sandbox had a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mounted {
    /// Its name in CRIU's images.
    pub(crate) name: String,
    /// The volume's id.
    pub(crate) volume: String,
    /// Where it was, which need not be where it was put: directories above it may be renamed.
    pub(crate) path: String,
}

/// Refuses volumes whose files are gone. Blocking.
pub(crate) fn check(spec: &LaunchSpec) -> Result<()> {
    let gone = |volume: &&VolumeSpec| {
        let found = fs::symlink_metadata(&volume.source);
        !found.is_ok_and(|found| found.is_dir())
    };
    match spec.volumes.iter().find(gone) {
        None => Ok(()),
        Some(volume) => Err(invalid(format!(
            "the files of the volume '{}' are not on this server's disk",
            volume.name
        ))),
    }
}

fn invalid(detail: String) -> DriverError {
    DriverError::Invalid {
        field: FIELD.to_owned(),
        detail,
    }
}

/// What the launcher is told of them.
pub(crate) fn directories(spec: &LaunchSpec) -> Result<Vec<Directory>> {
    let directory = |volume: &VolumeSpec| {
        Ok(Directory {
            source: text(&volume.source)?,
            path: volume.path.clone(),
        })
    };
    spec.volumes.iter().map(directory).collect()
}

/// What a launcher says of a place that it cannot mount at, for whoever chose it.
pub(crate) fn refusal(failure: &Failure) -> Option<DriverError> {
    if failure.step != DIRECTORIES_STEP {
        return None;
    }
    let errno = rustix::io::Errno::from_raw_os_error(failure.errno);
    let why = match errno {
        rustix::io::Errno::LOOP => "it goes through a symbolic link of the sandbox",
        rustix::io::Errno::NOTDIR => "it goes through a file of the sandbox",
        rustix::io::Errno::XDEV => "it goes through a file system of the server's",
        _ => return None,
    };
    let path = failure.path.as_deref().unwrap_or_default();
    Some(invalid(format!(
        "a volume cannot be mounted at '{path}': {why}"
    )))
}

/// Where the sandbox of this init has these volumes.
pub(crate) fn mounted(init: u32, volumes: &[String]) -> io::Result<Vec<Mounted>> {
    if volumes.is_empty() {
        return Ok(Vec::new());
    }
    let table = fs::read_to_string(format!("/proc/{init}/mountinfo"))?;
    Ok(in_table(&table, volumes))
}

/// The kernel names the directory of a mount in its file system, whose last part is the volume's
/// id, and where the mount is.
fn in_table(table: &str, volumes: &[String]) -> Vec<Mounted> {
    let entries = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (dir, path) = (fields.next()?, fields.next()?);
        let (_, last) = dir.rsplit_once('/')?;
        let volume = volumes.iter().find(|volume| *volume == last)?;
        Some((volume, unescape(path)))
    });
    let named = entries.enumerate().map(|(n, (volume, path))| Mounted {
        name: format!("volume-{n}"),
        volume: volume.clone(),
        path,
    });
    named.collect()
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        (rest, _) = match code {
            Some(code) => (&after[3..], bytes.push(code)),
            None => (after, bytes.push(*first)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What CRIU leaves out of a checkpoint.
pub(crate) fn left_out(mounted: &[Mounted]) -> Vec<ExternalMount> {
    let external = |one: &Mounted| ExternalMount {
        name: one.name.clone(),
        path: one.path.clone(),
    };
    mounted.iter().map(external).collect()
}

/// The volumes that take the places of those that were left out, in their order.
pub(crate) fn given_back<'a>(
    spec: &'a LaunchSpec,
    snapshot: &SnapshotId,
    manifest: &'a Manifest,
) -> Result<Vec<(&'a Mounted, &'a VolumeSpec)>> {
    let volume = |one: &'a Mounted| {
        let found = (spec.volumes.iter()).find(|volume| volume.volume.as_str() == one.volume);
        let found = found.map(|volume| (one, volume));
        found.ok_or_else(|| DriverError::Snapshot {
            id: snapshot.to_string(),
            reason: format!("it needs the volume {} at '{}'", one.volume, one.path),
        })
    };
    manifest.volumes.iter().map(volume).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_found_where_they_are() {
        let table = "\
42 46 254:0 /data/volumes/content/vo1 /mnt/a\\040b\\134c rw,nosuid - ext4 /dev/vda rw
43 46 254:0 /data/volumes/content/vo2 /x rw - ext4 /dev/vda rw
44 46 0:39 / / rw - overlay overlay rw
45 46 254:0 /data/vo1/other /y rw - ext4 /dev/vda rw
odd line
";
        let found = in_table(table, &["vo1".to_owned()]);
        let expected = Mounted {
            name: "volume-0".to_owned(),
            volume: "vo1".to_owned(),
            path: "/mnt/a b\\c".to_owned(),
        };
        assert_eq!(found, [expected]);
        assert_eq!(in_table(table, &[]), []);
        assert_eq!(
            in_table(table, &["vo1".to_owned(), "vo2".to_owned()]).len(),
            2
        );
    }

    #[test]
    fn text_without_escapes_stays() {
        for text in ["", "/", "/a\\", "/a\\04", "/a\\xyz", "/ü"] {
            assert_eq!(unescape(text), text);
        }
    }
}
