//! Programs that are called.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{Probe, Status, Subject};
use crate::command::{self, Ran};

/// The name of what tells about gVisor.
pub const GVISOR: &str = "gVisor";

const TIMEOUT: Duration = Duration::from_secs(5);

/// Where a program is, in our `PATH` and the usual places.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ];
    std::env::split_paths(&path)
        .chain(usual.map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// The output of a program that ends well.
fn output(argv: &[&str]) -> io::Result<String> {
    let Ran { code, output } = command::run(argv, TIMEOUT)?;
    match code {
        Some(0) => Ok(output),
        _ => Err(io::Error::other(format!(
            "{} failed: {}",
            argv.join(" "),
            output.trim()
        ))),
    }
}

pub(super) fn nft() -> Probe {
    let subject = Subject::new(
        "nftables",
        "sandboxes have no way out, and no rules about it",
        "install nftables; a kernel with CONFIG_NF_TABLES",
    )
    .packages(&["nftables"]);
    subject.from(try_nft())
}

/// One transaction that leaves nothing: the kernel must know tables, NAT and sets of addresses.
fn try_nft() -> io::Result<String> {
    let table = format!("inet woodfrog_probe_{}", std::process::id());
    let transaction = format!(
        "add table {table}; \
         add chain {table} out {{ type nat hook postrouting priority 100; }}; \
         add set {table} deny {{ type ipv4_addr; flags interval; }}; \
         add rule {table} out ip daddr @deny masquerade; \
         delete table {table}"
    );
    output(&["nft", &transaction])?;
    Ok(output(&["nft", "--version"])?.trim().to_owned())
}

/// Makes a pair of interfaces and removes it.
pub(super) fn veth() -> Probe {
    let subject = Subject::new(
        "veth",
        "sandboxes have no network but their own loopback",
        "a kernel with CONFIG_VETH; install iproute2 to try it",
    )
    .packages(&["iproute2"]);
    if find("ip").is_none() {
        return subject.found(Status::Degraded, "could not be tried: no `ip`");
    }
    let (near, far) = (
        format!("wfp{}a", std::process::id()),
        format!("wfp{}b", std::process::id()),
    );
    let made = output(&[
        "ip", "link", "add", &near, "type", "veth", "peer", "name", &far,
    ]);
    let removed = made.and_then(|_| output(&["ip", "link", "delete", &near]));
    subject.from(removed.map(|_| "made and removed".to_owned()))
}

/// What makes the base template.
pub(super) fn bootstrap() -> Probe {
    let subject = Subject::new(
        "mmdebstrap",
        "the base template cannot be made on this machine; import one",
        "install mmdebstrap and util-linux",
    )
    .packages(&["mmdebstrap", "util-linux"]);
    let lacking: Vec<&str> = ["mmdebstrap", "unshare"]
        .into_iter()
        .filter(|name| find(name).is_none())
        .collect();
    if lacking.is_empty() {
        return subject.found(Status::Ok, "there");
    }
    subject.found(Status::Missing, format!("no {}", lacking.join(", no ")))
}

pub(super) fn runsc() -> Probe {
    let subject = Subject::new(
        GVISOR,
        "no sandboxes with gVisor",
        "`woodfrog doctor --fix` installs it apart from the system",
    );
    match crate::runsc::find(&crate::runsc::default_prefix()) {
        Some(runsc) => {
            let detail = format!("{} at {}", runsc.version, runsc.program.display());
            subject.found(Status::Ok, detail)
        }
        None => subject.found(Status::Missing, "not installed"),
    }
}

pub(super) fn archivers() -> Probe {
    let subject = Subject::new(
        "tar and gzip",
        "checkpoints fail: CRIU calls them for memory file systems",
        "install tar and gzip",
    )
    .packages(&["tar", "gzip"]);
    let lacking: Vec<&str> = ["tar", "gzip"]
        .into_iter()
        .filter(|name| find(name).is_none())
        .collect();
    if lacking.is_empty() {
        return subject.found(Status::Ok, "there");
    }
    subject.found(Status::Missing, format!("no {}", lacking.join(", no ")))
}
