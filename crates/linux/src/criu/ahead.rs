//! A look at a sandbox before its checkpoint: what is known to keep it from being made.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::refusal::Refusal;

/// What stands in the way of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// What it is.
    pub refusal: Refusal,
    /// The process, by its pid on the host.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// Looks at these processes of the sandbox of `init` (see [`crate::cgroup::Group::pids`]). Takes
/// microseconds for each and stops nothing; finds the frequent reasons, not all. What has ended
/// meanwhile has none.
pub fn obstacles(init: u32, pids: &[u32]) -> Vec<Obstacle> {
    let home = Home {
        user: namespace(init, "user"),
        pid: namespace(init, "pid"),
    };
    let of = |pid: &u32| {
        let refusal = home.refusal(*pid)?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Some(Obstacle {
            refusal,
            pid: *pid,
            name: name.trim().to_owned(),
        })
    };
    pids.iter().filter_map(of).collect()
}

/// Where all processes should be.
struct Home {
    user: Option<u64>,
    pid: Option<u64>,
}

impl Home {
    fn refusal(&self, pid: u32) -> Option<Refusal> {
        let elsewhere = |kind, home: Option<u64>| {
            let found = namespace(pid, kind);
            found.is_some() && found != home
        };
        if elsewhere("user", self.user) {
            return Some(Refusal::NestedUserNamespace);
        }
        if elsewhere("pid", self.pid) {
            return Some(Refusal::NestedNamespace);
        }
        if traced(pid) {
            return Some(Refusal::Traced);
        }
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        files
            .flatten()
            .find_map(|file| match fs::read_link(file.path()).ok()?.to_str()? {
                "anon_inode:[io_uring]" => Some(Refusal::IoUring),
                "anon_inode:[userfaultfd]" => Some(Refusal::Userfaultfd),
                _ => None,
            })
    }
}

fn namespace(pid: u32, kind: &str) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok()?.ino())
}

fn traced(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}
