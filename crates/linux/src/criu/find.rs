//! Which CRIU there is, and whether it is new enough for the kernel that runs.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::command::{self, Ran};

const DEFAULT_PREFIX: &str = "/opt/woodfrog/criu";
/// Overrides where the private CRIU is.
const PREFIX_VARIABLE: &str = "WOODFROG_CRIU_PREFIX";
/// Where systems keep theirs.
const SYSTEM: [&str; 4] = [
    "/usr/local/sbin/criu",
    "/usr/local/bin/criu",
    "/usr/sbin/criu",
    "/usr/bin/criu",
];
const TIMEOUT: Duration = Duration::from_secs(5);

/// From this kernel on, CRIU before 4.2 cannot dump any network socket: it asks TCP sockets for
/// `SO_PASSCRED`, which only unix sockets still have.
const STRICT_KERNEL: Version = Version(6, 16);
const FOR_STRICT_KERNEL: Version = Version(4, 2);
/// The oldest that is relied on elsewhere.
const OLDEST: Version = Version(4, 1);

/// The first two numbers of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// The first version in a text like "Version: 4.2.1".
    pub(crate) fn in_text(text: &str) -> Option<Self> {
        let start = text.find(|c: char| c.is_ascii_digit())?;
        let mut parts = text[start..].split(|c: char| !c.is_ascii_digit());
        Some(Self(
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
        ))
    }

    /// The kernel that runs; 0.0 if it does not tell, which asks for the least.
    fn of_kernel() -> Self {
        let release = rustix::system::uname();
        Self::in_text(&release.release().to_string_lossy()).unwrap_or(Self(0, 0))
    }

    /// The oldest CRIU for a kernel.
    fn needed_on(kernel: Self) -> Self {
        if kernel >= STRICT_KERNEL {
            FOR_STRICT_KERNEL
        } else {
            OLDEST
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A CRIU that starts.
#[derive(Debug, Clone)]
pub struct Criu {
    /// The program and its first arguments.
    start: Vec<PathBuf>,
    program: PathBuf,
    version: Version,
    /// What it knows about the kernel, where it cannot keep that itself.
    pub(super) cache: Option<Arc<[u8]>>,
}

impl Criu {
    /// What it says it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The CRIU program itself (which may need another to start it, see [`Criu::argv`]).
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// How to start it with these arguments: the first is the path of the program to execute.
    ///
    /// # Errors
    /// An argument with a zero byte.
    pub fn argv(&self, args: &[&str]) -> io::Result<Vec<CString>> {
        let start = self.start.iter().map(|part| part.as_os_str().as_bytes());
        let all = start.chain(args.iter().map(|arg| arg.as_bytes()));
        Ok(all.map(CString::new).collect::<Result<_, _>>()?)
    }

    /// Runs it with these arguments; what it wrote if it ended well.
    pub fn run(&self, args: &[&str]) -> io::Result<String> {
        run(&self.start, args)
    }

    /// A system's, which its own loader starts.
    fn of_system(program: &Path) -> io::Result<Self> {
        Self::asked(vec![program.to_owned()], program.to_owned())
    }

    /// One unpacked below `prefix` with its own loader and libraries.
    pub(super) fn below(prefix: &Path) -> io::Result<Self> {
        let (loader, libraries) = match std::env::consts::ARCH {
            "aarch64" => ("usr/lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu"),
            _ => ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu"),
        };
        let program = prefix.join("usr/sbin/criu");
        let start = vec![
            prefix.join(loader),
            "--library-path".into(),
            prefix.join(libraries),
            program.clone(),
        ];
        Self::asked(start, program)
    }

    fn asked(start: Vec<PathBuf>, program: PathBuf) -> io::Result<Self> {
        let text = run(&start, &["--version"])?;
        let version =
            Version::in_text(&text).ok_or_else(|| io::Error::other("it tells no version"))?;
        Ok(Self {
            start,
            program,
            version,
            cache: None,
        })
    }

    /// Whether it is new enough for the kernel that runs; if not, which one would be.
    pub(super) fn suits(&self) -> Result<(), Version> {
        let needed = Version::needed_on(Version::of_kernel());
        if self.version >= needed {
            Ok(())
        } else {
            Err(needed)
        }
    }
}

fn run(start: &[PathBuf], args: &[&str]) -> io::Result<String> {
    let mut argv = Vec::with_capacity(start.len() + args.len());
    for part in start {
        argv.push(part.to_str().ok_or(io::ErrorKind::InvalidInput)?);
    }
    argv.extend(args);
    let Ran { code, output } = command::run(&argv, TIMEOUT)?;
    match code {
        Some(0) => Ok(output),
        _ => Err(io::Error::other(output.trim().to_owned())),
    }
}

/// What [`find`] has found.
#[derive(Debug)]
pub enum Found {
    /// One that suits the kernel.
    Suitable(Criu),
    /// Only one that does not.
    TooOld {
        /// It.
        criu: Criu,
        /// The oldest that would do.
        needed: Version,
    },
    /// None that starts.
    None,
}

/// Where the private one is: `WOODFROG_CRIU_PREFIX`, else `/opt/woodfrog/criu`.
pub fn default_prefix() -> PathBuf {
    let prefix = std::env::var_os(PREFIX_VARIABLE).filter(|prefix| !prefix.is_empty());
    prefix.map_or_else(|| DEFAULT_PREFIX.into(), PathBuf::from)
}

/// Looks for CRIU: the private one below `prefix`, then the system's.
pub fn find(prefix: &Path) -> Found {
    let private = std::iter::once_with(|| Criu::below(prefix));
    let system = SYSTEM
        .iter()
        .map(Path::new)
        .filter(|path| path.is_file())
        .map(Criu::of_system);
    let mut found = Found::None;
    for criu in private.chain(system).flatten() {
        match criu.suits() {
            Ok(()) => return Found::Suitable(criu),
            Err(needed) => {
                if matches!(found, Found::None) {
                    found = Found::TooOld { criu, needed };
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_judged() {
        assert_eq!(
            Version::in_text("Version: 4.2.1\nGitID: v4.2.1"),
            Some(Version(4, 2))
        );
        assert_eq!(Version::in_text("6.18.44-fc"), Some(Version(6, 18)));
        assert_eq!(Version::in_text("Version: 3.17"), Some(Version(3, 17)));
        assert_eq!(Version::in_text("none"), None);
        assert_eq!(Version::needed_on(Version(6, 16)), Version(4, 2));
        assert_eq!(Version::needed_on(Version(6, 15)), Version(4, 1));
        assert!(Version(4, 10) > Version(4, 9));
    }
}
