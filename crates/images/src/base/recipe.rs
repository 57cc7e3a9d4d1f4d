//! What the base template is made of, and the name that follows from it.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{BaseError, sources};
use crate::digest::Digest;

/// Raise it when the way of building changes in a manner the other inputs do not show.
const RECIPE_VERSION: u32 = 1;

const CUSTOMIZE: &str = include_str!("customize.sh");

const PACKAGES: [&str; 14] = [
    "bash",
    "ca-certificates",
    "coreutils",
    "curl",
    "git",
    "iproute2",
    "less",
    "procps",
    "python-is-python3",
    "python3",
    "python3-pip",
    "python3-venv",
    "sudo",
    "tzdata",
];

pub(super) struct Recipe {
    codename: String,
    sources: Vec<String>,
    apt_options: String,
}

impl Recipe {
    /// Read from this machine's configuration.
    pub(super) fn of_machine() -> Result<Self, BaseError> {
        let root = Path::new("/");
        let codename = sources::codename(root)?;
        let sources = sources::debian_sources(root, &codename)?;
        let dump = Command::new("apt-config")
            .arg("dump")
            .stdin(Stdio::null())
            .output()
            .map_err(|source| BaseError::Read {
                what: "apt-config dump",
                source,
            })?;
        let apt_options = sources::transport_options(&String::from_utf8_lossy(&dump.stdout));
        Ok(Self {
            codename,
            sources,
            apt_options,
        })
    }

    /// Changes with everything that shapes the result, but not with how mirrors are reached.
    pub(super) fn hash(&self) -> Digest {
        let parts = (
            RECIPE_VERSION,
            &self.codename,
            &self.sources,
            self.packages(),
            CUSTOMIZE,
        );
        let arch = std::env::consts::ARCH;
        Digest::of(format!("{parts:?} {arch}").as_bytes())
    }

    pub(super) fn codename(&self) -> &str {
        &self.codename
    }

    pub(super) fn sources(&self) -> &[String] {
        &self.sources
    }

    pub(super) fn packages(&self) -> &'static [&'static str] {
        &PACKAGES
    }

    pub(super) fn apt_options(&self) -> &str {
        &self.apt_options
    }

    pub(super) fn customize(&self) -> &'static str {
        CUSTOMIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// While the script runs, the host's own /dev/shm is bind-mounted beneath the new root.
    #[test]
    fn customizing_never_deletes_in_mounted_directories() {
        let commands = CUSTOMIZE
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        for line in commands {
            for mounted in ["/dev", "/proc", "/sys"] {
                assert!(!line.contains(mounted), "{line}");
            }
            assert!(
                !line.contains("rm -rf") || line.contains("--one-file-system"),
                "{line}"
            );
        }
    }
}
