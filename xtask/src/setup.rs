//! Installing what a fresh Debian machine lacks.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::agents;
use crate::node;
use crate::step::{on_path, run_over_network, step};

/// Program on the path → Debian package, for running sandboxes.
const RUNTIME: &[(&str, &str)] = &[
    ("nft", "nftables"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mmdebstrap", "mmdebstrap"),
    ("zstd", "zstd"),
];

/// Additionally, for the tests.
const TESTS: &[(&str, &str)] = &[
    ("node", "nodejs"),
    ("npm", "npm"),
    ("python3", "python3"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("psql", "postgresql"),
    ("chromium", "chromium"),
    ("redis-server", "redis-server"),
    ("curl", "curl"),
    ("git", "git"),
    ("kill", "procps"),
];

/// Additionally, what the benchmark compares with and measures by.
const BENCH: &[(&str, &str)] = &[
    ("bwrap", "bubblewrap"),
    ("runc", "runc"),
    ("nats-server", "nats-server"),
];

/// How much is installed; each has what those before it have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// What running sandboxes needs.
    Run,
    /// What the tests need.
    Tests,
    /// What the benchmark needs.
    Bench,
}

/// The JavaScript SDK's releases that must work: the last of the first API generation and the
/// newest.
pub(crate) const JS_SDKS: &[&str] = &["2.50.0", "2.51.0"];
/// The Python SDK's releases that must work.
pub(crate) const PYTHON_SDKS: &[&str] = &["2.45.1", "2.63.0"];

/// Installs; what is there already is left alone.
pub(crate) fn run(level: Level) -> Result<()> {
    let mut wanted: Vec<(&str, &str)> = RUNTIME.to_vec();
    if level >= Level::Tests {
        wanted.extend_from_slice(TESTS);
    }
    if level >= Level::Bench {
        wanted.extend_from_slice(BENCH);
    }
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| !on_path(program) && !on_sbin(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        println!("packages: everything is there");
    } else {
        step(&format!("install {}", missing.join(" ")), || apt(&missing))?;
    }
    if level >= Level::Tests {
        step("Node and Python packages", || {
            node::ensure(&cache())?;
            agents::ensure(&cache())?;
            JS_SDKS.iter().try_for_each(|version| javascript(version))?;
            PYTHON_SDKS.iter().try_for_each(|version| python(version))
        })?;
    }
    Ok(())
}

fn on_sbin(program: &str) -> bool {
    ["/usr/sbin", "/sbin"]
        .iter()
        .any(|dir| Path::new(dir).join(program).is_file())
}

fn apt(packages: &[&str]) -> Result<()> {
    if !on_path("apt-get") {
        bail!(
            "this machine has no apt-get; install by hand: {}",
            packages.join(" ")
        );
    }
    run_apt(&["update", "-qq"])?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend_from_slice(packages);
    run_apt(&args)
}

fn run_apt(args: &[&str]) -> Result<()> {
    run_over_network(
        Command::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// Where a release of the JavaScript SDK is installed.
pub(crate) fn javascript_dir(version: &str) -> PathBuf {
    cache().join(format!("js-{version}"))
}

/// The Node that the SDK's programs run with.
pub(crate) fn node_program() -> PathBuf {
    node::program(&cache())
}

/// The Python of the environment that a release of the Python SDK is installed in.
pub(crate) fn python_program(version: &str) -> PathBuf {
    cache().join(format!("py-{version}")).join("bin/python")
}

fn cache() -> PathBuf {
    crate::server::root().join("target/sdk")
}

fn javascript(version: &str) -> Result<()> {
    let dir = javascript_dir(version);
    if dir.join("node_modules/e2b/package.json").is_file() {
        return Ok(());
    }
    println!("npm: e2b {version}");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(
        dir.join("package.json"),
        "{\"private\":true,\"type\":\"module\"}\n",
    )?;
    let package = format!("e2b@{version}");
    run_over_network(
        Command::new("npm")
            .args([
                "install",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
                &package,
            ])
            .current_dir(&dir),
    )
    .context("install the JavaScript SDK")
}

fn python(version: &str) -> Result<()> {
    let program = python_program(version);
    let marker = cache().join(format!("py-{version}/.installed"));
    if marker.is_file() {
        return Ok(());
    }
    println!("pip: e2b {version}");
    let dir = cache().join(format!("py-{version}"));
    if crate::step::run(Command::new("python3").args(["-m", "venv"]).arg(&dir)).is_err() {
        apt(&["python3-venv"])?;
        crate::step::run(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&dir),
        )?;
    }
    run_over_network(
        Command::new(program)
            .args(["-m", "pip", "install", "-q"])
            .arg(format!("e2b=={version}")),
    )
    .context("install the Python SDK")?;
    std::fs::write(marker, "")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every Debian machine that builds the tree has.
    const THERE: &[&str] = &[
        "apt-get",
        "bash",
        "cargo",
        "chmod",
        "date",
        "fallocate",
        "grep",
        "install",
        "ldd",
        "mkfifo",
        "mount",
        "perl",
        "sh",
        "sync",
        "timeout",
        "umount",
    ];

    /// Programs that sources below `dir` start by name.
    fn started(dir: &Path, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                started(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let marker = ["Command::", "new(\""].concat();
                let named = text.split(marker.as_str()).skip(1);
                names.extend(named.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }

    #[test]
    fn what_tests_start_is_installed_for_them() {
        let root = crate::server::root();
        let mut names = Vec::new();
        started(&root.join("bin/woodfrog/tests"), &mut names);
        started(&root.join("xtask/src"), &mut names);
        started(&root.join("crates/testkit/src"), &mut names);
        for one in std::fs::read_dir(root.join("crates")).into_iter().flatten() {
            started(&one.expect("a crate").path().join("tests"), &mut names);
        }
        assert!(names.len() > 30, "{names:?}");
        let listed = |name: &&String| {
            let mut all = RUNTIME.iter().chain(TESTS);
            THERE.contains(&name.as_str()) || all.any(|(program, _)| program == name)
        };
        let lacking: Vec<&String> = names.iter().filter(|name| !listed(name)).collect();
        assert!(lacking.is_empty(), "in no list: {lacking:?}");
    }
}
