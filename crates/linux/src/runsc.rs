//! gVisor's `runsc`: finding it and installing it apart from the system.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{self, Ran};
use crate::packages::{self, InstallError, Note, Wanted};

const DEFAULT_PREFIX: &str = "/opt/woodfrog/runsc";
/// Overrides where the private one is.
const PREFIX_VARIABLE: &str = "WOODFROG_RUNSC_PREFIX";
/// Where systems keep theirs.
const SYSTEM: [&str; 2] = ["/usr/local/bin/runsc", "/usr/bin/runsc"];
const TIMEOUT: Duration = Duration::from_secs(10);

const RUNSC: Wanted = Wanted {
    what: "gVisor",
    package: "runsc",
    suites: &["bookworm-backports", "trixie", "sid"],
};

/// A `runsc` that starts. It is one static program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runsc {
    /// Where it is.
    pub program: PathBuf,
    /// What it says it is.
    pub version: String,
}

impl Runsc {
    /// One that is asked for its version.
    ///
    /// # Errors
    /// It does not start, or tells none.
    pub fn at(program: &Path) -> io::Result<Self> {
        let text = program.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        let Ran { code, output } = command::run(&[text, "--version"], TIMEOUT)?;
        let version = output
            .lines()
            .find_map(|line| line.strip_prefix("runsc version "));
        match (code, version) {
            (Some(0), Some(version)) => Ok(Self {
                program: program.to_owned(),
                version: version.trim().to_owned(),
            }),
            _ => Err(io::Error::other(output.trim().to_owned())),
        }
    }

    fn below(prefix: &Path) -> io::Result<Self> {
        Self::at(&prefix.join("usr/bin/runsc"))
    }
}

/// Where the private one is: `WOODFROG_RUNSC_PREFIX`, else `/opt/woodfrog/runsc`.
pub fn default_prefix() -> PathBuf {
    let prefix = std::env::var_os(PREFIX_VARIABLE).filter(|prefix| !prefix.is_empty());
    prefix.map_or_else(|| DEFAULT_PREFIX.into(), PathBuf::from)
}

/// Looks for one: below `prefix`, then the system's.
pub fn find(prefix: &Path) -> Option<Runsc> {
    let private = std::iter::once_with(|| Runsc::below(prefix));
    let system = SYSTEM
        .iter()
        .map(Path::new)
        .filter(|path| path.is_file())
        .map(Runsc::at);
    private.chain(system).find_map(Result::ok)
}

/// Makes sure that there is one below `prefix`, from the mirrors apt is configured with. Takes some
/// seconds and 7 MB of downloads.
///
/// # Errors
/// No mirror has it, or it does not start here.
pub fn install(prefix: &Path, tell: &mut dyn FnMut(Note)) -> Result<Runsc, InstallError> {
    let good = |prefix: &Path| Runsc::below(prefix).map_err(InstallError::Broken);
    packages::install(prefix, &RUNSC, good, tell)
}
