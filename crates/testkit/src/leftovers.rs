//! Counting what a server has on the machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Kind of thing → how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftovers(pub BTreeMap<&'static str, usize>);

impl Leftovers {
    /// Counts on the whole machine what sandboxes are made of, and in `data_dir` their files.
    pub fn count(data_dir: &Path) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let pool = data_dir.join("pool/sandboxes");
        Self(BTreeMap::from([
            ("mounts", mounts.lines().count()),
            ("cgroups", directories(Path::new("/sys/fs/cgroup"), "sb")),
            ("interfaces", entries(Path::new("/sys/class/net"))),
            ("network namespaces", namespaces()),
            ("sandbox directories", entries(&pool)),
        ]))
    }

    /// Whether there is no more of anything than there was.
    pub fn is_within(&self, before: &Self) -> bool {
        self.0
            .iter()
            .all(|(kind, now)| before.0.get(kind).is_some_and(|then| now <= then))
    }
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

/// Directories below `dir` (any depth up to 6) whose name starts with `prefix`.
fn directories(dir: &Path, prefix: &str) -> usize {
    let script = format!(
        "find {} -maxdepth 6 -type d -name '{prefix}*' 2>/dev/null | wc -l",
        dir.display()
    );
    shell_number(&script)
}

/// Distinct network namespaces that some process is in.
fn namespaces() -> usize {
    shell_number("ls -1L -i /proc/[0-9]*/ns/net 2>/dev/null | awk '{print $1}' | sort -u | wc -l")
}

fn shell_number(script: &str) -> usize {
    let output = Command::new("sh").args(["-c", script]).output();
    output
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok())
        .unwrap_or(0)
}
