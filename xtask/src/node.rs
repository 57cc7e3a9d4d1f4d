//! A Node that is new enough for the JavaScript SDK: the system's, or one from npm.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The oldest major version that the newest SDK runs on.
const MAJOR_MIN: u32 = 20;
/// What is installed where the system's is older.
const PACKAGE: &str = "node@22";

/// The program to run the SDK's programs with.
pub(crate) fn program(cache: &Path) -> PathBuf {
    let system = PathBuf::from("node");
    match is_new_enough(&system) {
        true => system,
        false => own(cache),
    }
}

/// Installs one into `cache` unless the system's, or one that is there, is new enough.
pub(crate) fn ensure(cache: &Path) -> Result<()> {
    if is_new_enough(&program(cache)) {
        return Ok(());
    }
    println!("npm: {PACKAGE} (the system's is older than {MAJOR_MIN})");
    let dir = dir(cache);
    std::fs::create_dir_all(&dir)?;
    let mut install = Command::new("npm");
    install.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]);
    crate::step::run_over_network(install.arg("--prefix").arg(&dir).arg(PACKAGE))
        .with_context(|| format!("install {PACKAGE}"))?;
    let program = own(cache);
    if !is_new_enough(&program) {
        bail!("{} does not run, or is too old", program.display());
    }
    Ok(())
}

fn dir(cache: &Path) -> PathBuf {
    cache.join("node")
}

fn own(cache: &Path) -> PathBuf {
    dir(cache).join("node_modules/node/bin/node")
}

fn is_new_enough(program: &Path) -> bool {
    let said = Command::new(program).arg("--version").output();
    said.is_ok_and(|said| major(&String::from_utf8_lossy(&said.stdout)) >= Some(MAJOR_MIN))
}

/// The major version in what `node --version` prints.
fn major(said: &str) -> Option<u32> {
    let numbers = said.trim().strip_prefix('v')?;
    numbers.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (said, enough) in [
            ("v20.20.2\n", true),
            ("v20.0.0", true),
            ("v22.11.0\n", true),
            ("v100.1.0", true),
            ("v18.19.0\n", false),
            ("v9.9.9", false),
            ("", false),
            ("20.1.0", false),
            ("node: not found", false),
        ] {
            assert_eq!(major(said) >= Some(MAJOR_MIN), enough, "{said:?}");
        }
    }
}
