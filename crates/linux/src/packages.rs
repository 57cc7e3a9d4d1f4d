//! Brings a program that the machine's release lacks, or has too old, with everything it needs,
//! into a directory of its own. apt works in a scratch directory as if nothing were installed, so that the
//! system's packages and lists are neither read nor touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{self, Ran};

mod apt;

use apt::{Apt, Mirror, Validity};

const UNPACK_TIMEOUT: Duration = Duration::from_secs(120);
/// The most packages that are unpacked; CRIU needs about 30.
const MAX_PACKAGES: usize = 200;

/// What is worth telling while it is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A step begins.
    Step(String),
    /// Something is not as it should be, and the installation goes on.
    Warning(String),
}

/// Something to be installed.
pub(crate) struct Wanted {
    /// For people.
    pub(crate) what: &'static str,
    /// The package that has it.
    pub(crate) package: &'static str,
    /// Debian's suites that it may come from, tried in this order.
    pub(crate) suites: &'static [&'static str],
}

/// Why it was not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// apt or dpkg is not there.
    #[error("it is installed from Debian's packages, but `{0}` is not on this machine")]
    NoTool(&'static str),
    /// apt knows no mirror of Debian.
    #[error("apt on this machine has no Debian archive configured")]
    NoMirror,
    /// No mirror and suite gave one; what each said.
    #[error("no mirror has one that can be used: {}", .0.join("; "))]
    Exhausted(Vec<String>),
    /// A program failed.
    #[error("{what} failed: {output}")]
    Failed {
        /// What was done.
        what: &'static str,
        /// The end of what it said.
        output: String,
    },
    /// The installed one does not start.
    #[error("the installed program does not start")]
    Broken(#[source] io::Error),
    /// The files could not be put into place.
    #[error("installing into {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Makes sure that there is what is wanted below `prefix`, from the mirrors apt is configured with.
/// `good` tells whether what is below a directory can be used, by starting it: what is there
/// already and good is kept. `prefix` is replaced as a whole or not at all; concurrent callers wait
/// for each other.
pub(crate) fn install<T>(
    prefix: &Path,
    wanted: &Wanted,
    good: impl Fn(&Path) -> Result<T, InstallError>,
    tell: &mut dyn FnMut(Note),
) -> Result<T, InstallError> {
    let at = |source| InstallError::Io {
        path: prefix.to_owned(),
        source,
    };
    let place = Place::lock(prefix).map_err(at)?;
    if let Ok(found) = good(prefix) {
        return Ok(found);
    }
    let mirrors = Mirror::configured()?;
    let mut refusals = Vec::new();
    for suite in wanted.suites {
        for mirror in &mirrors {
            place.clear().map_err(at)?;
            let fetched = fetch(&place, mirror, suite, wanted, tell)
                .and_then(|()| good(&place.root()).map(drop));
            match fetched {
                Ok(()) => {
                    place.commit(prefix).map_err(at)?;
                    return good(prefix);
                }
                Err(error @ (InstallError::NoTool(_) | InstallError::Io { .. })) => {
                    return Err(error);
                }
                Err(error) => {
                    tell(Note::Warning(format!(
                        "{} of {}: {error}",
                        suite,
                        mirror.uri()
                    )));
                    refusals.push(format!("{suite}: {error}"));
                }
            }
        }
    }
    Err(InstallError::Exhausted(refusals))
}

/// Downloads and unpacks into the scratch directory.
fn fetch(
    place: &Place,
    mirror: &Mirror,
    suite: &str,
    wanted: &Wanted,
    tell: &mut dyn FnMut(Note),
) -> Result<(), InstallError> {
    let at = |source| InstallError::Io {
        path: place.scratch.clone(),
        source,
    };
    tell(Note::Step(format!(
        "reading the list of {suite} from {}",
        mirror.uri()
    )));
    let apt = Apt::new(&place.scratch.join("apt"), mirror, suite).map_err(at)?;
    let mut validity = Validity::Checked;
    if let Err(error) = apt.update(validity) {
        // Only for this one fetch, and only when age is the complaint: signatures stay checked.
        if !error.is_about_age() {
            return Err(error.into());
        }
        tell(Note::Warning(format!(
            "the list of {suite} is past its date; using it all the same, its signature checked"
        )));
        validity = Validity::Ignored;
        apt.update(validity)?;
    }
    tell(Note::Step(format!("downloading {}", wanted.what)));
    let packages = apt.download(wanted.package, validity)?;
    tell(Note::Step(format!("unpacking {} packages", packages.len())));
    unpack(&packages, &place.root()).map_err(at)?
}

fn unpack(packages: &[PathBuf], root: &Path) -> io::Result<Result<(), InstallError>> {
    fs::create_dir(root)?;
    let text = |path: &Path| -> io::Result<String> {
        let text = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(text.to_owned())
    };
    if packages.len() > MAX_PACKAGES {
        return Err(io::Error::other("too many packages"));
    }
    for package in packages {
        let argv = ["dpkg-deb", "-x", &text(package)?, &text(root)?];
        let Ran { code, output } = command::run(&argv, UNPACK_TIMEOUT)?;
        if code != Some(0) {
            let what = "unpacking a package";
            return Ok(Err(InstallError::Failed { what, output }));
        }
    }
    Ok(Ok(()))
}

/// The scratch directory beside the prefix, ours alone while this lives.
struct Place {
    scratch: PathBuf,
    _lock: fs::File,
}

impl Place {
    fn lock(prefix: &Path) -> io::Result<Self> {
        let name = prefix.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = prefix.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(parent)?;
        let beside = |suffix: &str| {
            let mut name = std::ffi::OsString::from(name);
            name.push(suffix);
            parent.join(name)
        };
        let lock = fs::File::create(beside(".lock"))?;
        lock.lock()?;
        Ok(Self {
            scratch: beside(".tmp"),
            _lock: lock,
        })
    }

    fn root(&self) -> PathBuf {
        self.scratch.join("root")
    }

    /// An empty scratch directory; what an interrupted installation left goes.
    fn clear(&self) -> io::Result<()> {
        remove(&self.scratch)?;
        fs::create_dir(&self.scratch)
    }

    fn commit(&self, prefix: &Path) -> io::Result<()> {
        match fs::rename(prefix, self.scratch.join("old")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(self.root(), prefix)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays is removed by the next installation.
        let _ = remove(&self.scratch);
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_one_is_replaced_as_a_whole_and_leftovers_go() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("a/criu");
        let place = Place::lock(&prefix).unwrap();
        fs::create_dir_all(place.scratch.join("leftover")).unwrap();
        for version in ["1", "2"] {
            place.clear().unwrap();
            assert!(!place.scratch.join("leftover").exists());
            fs::create_dir(place.root()).unwrap();
            fs::write(place.root().join(version), "").unwrap();
            place.commit(&prefix).unwrap();
        }
        drop(place);
        assert!(prefix.join("2").exists() && !prefix.join("1").exists());
        let left: Vec<_> = fs::read_dir(dir.path().join("a")).unwrap().collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
