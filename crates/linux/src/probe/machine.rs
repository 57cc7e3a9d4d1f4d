//! Namespaces, mounts, cgroups and devices.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::{Probe, Status, Subject};
use crate::cgroup::{Group, Hierarchies, Limits};
use crate::overlay::{OverlayError, Way};
use crate::seccomp::{Filter, SeccompPolicy};
use crate::{btrfs, idmap, netns, overlay};

/// An id range for trying; nothing is kept on disk under it.
const TRIAL_BASE: u32 = 1_000_000;

const NEEDED: &[(u32, &str)] = &[
    (21, "SYS_ADMIN"),
    (19, "SYS_PTRACE"),
    (12, "NET_ADMIN"),
    (7, "SETUID"),
    (6, "SETGID"),
    (27, "MKNOD"),
    (18, "SYS_CHROOT"),
    (40, "CHECKPOINT_RESTORE"),
];
const CAP_SYS_RESOURCE: u32 = 24;

pub(super) fn privileges() -> Probe {
    let subject = Subject::new(
        "privileges",
        "no sandboxes without the required ones; without CAP_SYS_RESOURCE, hard limits cannot be raised",
        "run as root (in a container: with --privileged)",
    )
    .required();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |cap: u32| effective & (1 << cap) != 0;
    let lacking: Vec<&str> = NEEDED
        .iter()
        .filter(|(cap, _)| !has(*cap))
        .map(|(_, name)| *name)
        .collect();
    if !rustix::process::geteuid().is_root() {
        return subject.found(Status::Missing, "not root");
    }
    if !lacking.is_empty() {
        return subject.found(
            Status::Missing,
            format!("without CAP_{}", lacking.join(", CAP_")),
        );
    }
    if !has(CAP_SYS_RESOURCE) {
        let detail = "root, without CAP_SYS_RESOURCE: hard limits cannot be raised";
        return subject.found(Status::Degraded, detail);
    }
    subject.found(Status::Ok, "root")
}

pub(super) fn user_namespaces() -> Probe {
    let subject = Subject::new(
        "user namespaces",
        "sandboxes cannot be made at all",
        "sysctl user.max_user_namespaces above 0, CONFIG_USER_NS",
    )
    .required();
    subject.from(idmap::mapping_namespace(TRIAL_BASE).map(|_| "mapped".to_owned()))
}

/// Id-mapped mounts and the overlay over them.
pub(super) fn overlay(state_dir: &Path) -> Vec<Probe> {
    let mapped = Subject::new(
        "id-mapped mounts",
        "sandboxes cannot be made on this file system",
        "keep the data on ext4, xfs or btrfs, kernel 5.19 or later",
    )
    .required();
    let layered = Subject::new(
        "overlay",
        "sandboxes cannot be made",
        "a kernel with CONFIG_OVERLAY_FS; 6.13 or later is faster and is what is tested",
    )
    .required();
    match try_overlay(state_dir) {
        Ok(way) => vec![
            mapped.found(Status::Ok, "works here"),
            layered.found(
                Status::Ok,
                match way {
                    Way::Descriptors => "layers by descriptor, index, nfs_export",
                    Way::Paths => {
                        "layers by path (slower; kernels before 6.13 are untested), index, nfs_export"
                    }
                },
            ),
        ],
        Err(Trial::Overlay(OverlayError::Map { path, source })) => vec![
            mapped.found(Status::Missing, format!("{path}: {source}")),
            layered.found(Status::Missing, "not tried without id-mapped mounts"),
        ],
        Err(Trial::Overlay(OverlayError::Mount { step, source })) => vec![
            mapped.found(Status::Ok, "works here"),
            layered.found(Status::Missing, format!("{step}: {source}")),
        ],
        Err(other) => vec![mapped.found(Status::Missing, format!("could not be tried: {other}"))],
    }
}

#[derive(Debug, thiserror::Error)]
enum Trial {
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn try_overlay(state_dir: &Path) -> Result<Way, Trial> {
    let scratch = Scratch::new(state_dir)?;
    for part in ["lower", "upper/u", "upper/w"] {
        fs::create_dir_all(scratch.0.join(part))?;
    }
    let namespace = idmap::mapping_namespace(TRIAL_BASE)?;
    let text = |part: &str| scratch.0.join(part).to_string_lossy().into_owned();
    let (_, way) = overlay::mount(&[text("lower")], &text("upper"), namespace.as_fd())?;
    Ok(way)
}

/// A directory that goes when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> io::Result<Self> {
        let path = parent.join(format!(".probe-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn cgroups() -> Vec<Probe> {
    let limits = Subject::new(
        "cgroup limits",
        "memory, CPU and process limits are refused",
        "mount cgroups with the memory, cpu and pids controllers",
    );
    let freezer = Subject::new(
        "cgroup freezer",
        "sandboxes cannot be paused in memory without a checkpoint",
        "mount a cgroup2 tree, or the version 1 freezer",
    );
    let name = format!("woodfrog-probe-{}", std::process::id());
    let trial = Limits {
        memory_bytes: Some(64 << 20),
        cpu_millicores: Some(1000),
        pids: Some(64),
    };
    let made = Hierarchies::detect().and_then(|found| {
        let group = found.create(&name, &trial)?;
        let detail = match found {
            Hierarchies::Unified { .. } => "version 2",
            Hierarchies::Split {
                unified: Some(_), ..
            } => "version 1, version 2 beside it",
            Hierarchies::Split { unified: None, .. } => "version 1",
        };
        Ok((group, detail))
    });
    match made {
        Ok((group, detail)) => {
            let frozen = try_freezer(&group);
            let removed = group.remove().map(|()| detail.to_owned());
            vec![limits.from(removed), freezer.from(frozen)]
        }
        Err(error) => vec![
            limits.found(Status::Missing, error.to_string()),
            freezer.found(Status::Missing, "not tried without a cgroup"),
        ],
    }
}

fn try_freezer(group: &Group) -> io::Result<String> {
    group.freeze()?;
    group.thaw()?;
    Ok("freezes and thaws".to_owned())
}

pub(super) fn seccomp() -> Probe {
    let subject = Subject::new(
        "seccomp",
        "sandboxes cannot be made: their system calls would be unfiltered",
        "a kernel with CONFIG_SECCOMP_FILTER",
    )
    .required();
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    subject.from(actions.and_then(|actions| {
        Filter::new(SeccompPolicy::default())?;
        Ok(format!("filters compile; actions {}", actions.trim()))
    }))
}

pub(super) fn network_namespaces() -> Probe {
    let subject = Subject::new(
        "network namespaces",
        "sandboxes cannot be made",
        "a kernel with CONFIG_NET_NS",
    )
    .required();
    subject.from(netns::create().map(|_| "made, with loopback up".to_owned()))
}

pub(super) fn run_tmpfs() -> Probe {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let subject = Subject::new(
        "/run in memory",
        "what CRIU knows about the kernel is not kept",
        "mount a tmpfs on /run",
    );
    match rustix::fs::statfs("/run") {
        Ok(stat) if stat.f_type == TMPFS_MAGIC => subject.found(Status::Ok, "tmpfs"),
        Ok(_) => subject.found(
            Status::Ok,
            "not a tmpfs: the server itself keeps what CRIU knows about the kernel",
        ),
        Err(error) => subject.found(Status::Missing, error.to_string()),
    }
}

pub(super) fn pool(state_dir: &Path) -> Probe {
    let subject = Subject::new(
        "btrfs pool",
        "no limits on disk use; checkpoints copy files",
        "install btrfs-progs, with btrfs and loop in the kernel, or keep the data on btrfs",
    )
    .packages(&["btrfs-progs", "util-linux"]);
    if btrfs::is_btrfs(state_dir).unwrap_or(false) {
        return subject.found(Status::Ok, "the data directory is on btrfs");
    }
    let mut lacking = vec![];
    if !has_btrfs() {
        lacking.push("no btrfs in the kernel");
    }
    if !Path::new("/dev/loop-control").exists() {
        lacking.push("no /dev/loop-control");
    }
    if super::programs::find("mkfs.btrfs").is_none() {
        lacking.push("no mkfs.btrfs");
    }
    if lacking.is_empty() {
        return subject.found(Status::Ok, "in an image file on a loop device");
    }
    subject.found(Status::Missing, lacking.join(", "))
}

/// Whether this kernel has btrfs, or has it as a module: the first mount loads that.
fn has_btrfs() -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.trim() == "btrfs") {
        return true;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    has_module(&Path::new("/lib/modules").join(release.trim()), "btrfs")
}

/// Whether the modules of a kernel, kept in `dir`, have this one, built in or to be loaded.
fn has_module(dir: &Path, name: &str) -> bool {
    let is_it = |line: &str| {
        // `kernel/fs/btrfs/btrfs.ko.xz: what it needs`, whatever it is compressed with.
        let path = line.split(':').next().unwrap_or_default();
        let file = path.trim().rsplit('/').next().unwrap_or_default();
        let rest = file.strip_prefix(name);
        rest.is_some_and(|rest| rest == ".ko" || rest.starts_with(".ko."))
    };
    ["modules.dep", "modules.builtin"].iter().any(|list| {
        let list = fs::read_to_string(dir.join(list)).unwrap_or_default();
        list.lines().any(is_it)
    })
}

pub(super) fn kvm() -> Probe {
    let subject = Subject::new(
        "/dev/kvm",
        "no virtual machine drivers",
        "hardware virtualisation, or nesting on the host",
    );
    let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
    subject.from(opened.map(|_| "usable".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_there_before_it_is_loaded() {
        let dir = tempfile::tempdir().expect("tempdir");
        let listed = |list: &str, text: &str| {
            fs::write(dir.path().join(list), text).expect("written");
            has_module(dir.path(), "btrfs")
        };
        assert!(!has_module(dir.path(), "btrfs"), "no lists");
        let needed = "kernel/fs/x/x.ko: kernel/fs/btrfs/btrfs.ko\n";
        let alike = "kernel/fs/btrfs/btrfs-test.ko:\nkernel/lib/raid6_btrfs.ko:\n";
        assert!(!listed("modules.dep", &format!("{needed}{alike}")));
        assert!(!listed("modules.builtin", "kernel/fs/ext4/ext4.ko\n"));
        for suffix in ["", ".xz", ".zst", ".gz"] {
            let own =
                format!("{alike}kernel/fs/btrfs/btrfs.ko{suffix}: kernel/lib/raid6/raid6.ko\n");
            assert!(listed("modules.dep", &own), "{own}");
        }
        assert!(!listed("modules.dep", ""));
        assert!(listed("modules.builtin", "kernel/fs/btrfs/btrfs.ko\n"));
    }
}
