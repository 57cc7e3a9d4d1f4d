//! A newer CRIU than the machine's release has, apart from the system.

use std::path::Path;

use super::find::Criu;
use crate::packages::{self, InstallError, Note, Wanted};

const CRIU: Wanted = Wanted {
    what: "CRIU and its libraries",
    package: "criu",
    suites: &["forky", "sid"],
};

/// Makes sure that there is a CRIU below `prefix` that suits the kernel, from the mirrors apt is
/// configured with. One that is there and suits is kept. `prefix` is replaced as a whole or not
/// at all; concurrent callers wait for each other. Takes some seconds and 30 MB of downloads.
pub fn install(prefix: &Path, tell: &mut dyn FnMut(Note)) -> Result<Criu, InstallError> {
    packages::install(prefix, &CRIU, good, tell)
}

fn good(prefix: &Path) -> Result<Criu, InstallError> {
    let criu = Criu::below(prefix).map_err(InstallError::Broken)?;
    match criu.suits() {
        Ok(()) => Ok(criu),
        Err(needed) => Err(InstallError::Failed {
            what: "the check of its version",
            output: format!("{} where {needed} is needed", criu.version()),
        }),
    }
}
