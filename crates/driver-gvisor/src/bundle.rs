//! The OCI bundle: what `runsc` is told of a container.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use woodfrog_linux::skeleton::GUEST_PATH;

use crate::files::SECRET_PATH;

/// Where the guest listens, inside. Not among the ports that systems give out by themselves.
pub(crate) const GUEST_PORT: u16 = 61_907;
/// The folder in a bundle that the root file system is mounted at.
pub(crate) const ROOT: &str = "rootfs";

/// What processes of a sandbox may hold with the native driver, and for init the right to set the
/// host name, which it does not hand on.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    oci_version: &'static str,
    process: Process,
    root: Root,
    hostname: &'a str,
    mounts: Vec<Mount>,
    linux: Linux,
}

#[derive(Serialize)]
struct Process {
    user: User,
    args: Vec<String>,
    env: Vec<&'static str>,
    cwd: &'static str,
    capabilities: Capabilities,
}

#[derive(Serialize)]
struct User {
    uid: u32,
    gid: u32,
}

#[derive(Serialize)]
struct Capabilities {
    bounding: &'static [&'static str],
    effective: &'static [&'static str],
    permitted: &'static [&'static str],
}

#[derive(Serialize)]
struct Root {
    path: &'static str,
}

#[derive(Serialize)]
struct Mount {
    destination: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    source: &'static str,
    options: Vec<String>,
}

#[derive(Serialize)]
struct Linux {
    namespaces: Vec<Namespace>,
}

#[derive(Serialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'static str>,
}

/// Makes the bundle in `dir`, which is made too.
pub(crate) fn write(dir: &Path, hostname: &str, memory_bytes: u64) -> io::Result<()> {
    fs::create_dir(dir)?;
    fs::create_dir(dir.join(ROOT))?;
    let config = serde_json::to_vec(&config(hostname, memory_bytes))?;
    fs::write(dir.join("config.json"), config)
}

fn config(hostname: &str, memory_bytes: u64) -> Config<'_> {
    Config {
        oci_version: "1.0.2",
        process: Process {
            user: User { uid: 0, gid: 0 },
            args: vec![
                GUEST_PATH.to_owned(),
                "--listen-tcp".to_owned(),
                GUEST_PORT.to_string(),
                format!("/{SECRET_PATH}"),
            ],
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            cwd: "/",
            capabilities: Capabilities {
                bounding: &CAPABILITIES,
                effective: &CAPABILITIES,
                permitted: &CAPABILITIES,
            },
        },
        root: Root { path: ROOT },
        hostname,
        mounts: mounts(memory_bytes),
        linux: Linux {
            namespaces: namespaces(),
        },
    }
}

fn mounts(memory_bytes: u64) -> Vec<Mount> {
    // A quarter of the memory each, so that filling them cannot take all of it.
    let size = format!("size={}", (memory_bytes / 4).max(1 << 20));
    let mount = |destination, kind, options: &[&str]| Mount {
        destination,
        kind,
        source: kind,
        options: options.iter().map(|o| (*o).to_owned()).collect(),
    };
    let guarded = ["nosuid", "nodev", "noexec"];
    vec![
        mount("/proc", "proc", &guarded),
        mount("/dev", "tmpfs", &["nosuid"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec"]),
        mount(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "nodev", "mode=1777", &size],
        ),
        mount("/sys", "sysfs", &["nosuid", "nodev", "noexec", "ro"]),
        mount("/run", "tmpfs", &["nosuid", "nodev", "mode=755", &size]),
    ]
}

fn namespaces() -> Vec<Namespace> {
    let new = |kind| Namespace { kind, path: None };
    vec![
        new("pid"),
        new("ipc"),
        new("uts"),
        new("mount"),
        Namespace {
            kind: "network",
            // That of runsc itself, which is started in the sandbox's.
            path: Some("/proc/self/ns/net"),
        },
    ]
}
