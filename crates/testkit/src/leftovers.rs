//! Counting what a server has on the machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Kind of thing → how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftovers(pub BTreeMap<&'static str, usize>);

impl Leftovers {
    /// Counts on the whole machine what sandboxes are made of, and in `data_dir` their files and
    /// the loop devices over files there.
    pub fn count(data_dir: &Path) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let pool = data_dir.join("pool/sandboxes");
        Self(BTreeMap::from([
            ("mounts", mounts.lines().count()),
            ("cgroups", directories(Path::new("/sys/fs/cgroup"), "sb")),
            ("interfaces", entries(Path::new("/sys/class/net"))),
            ("network namespaces", namespaces()),
            ("sandbox directories", entries(&pool)),
            (
                "loop devices",
                loop_devices(Path::new("/sys/block"), data_dir),
            ),
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

/// Loop devices among the block devices `devices` over files below `data_dir`, deleted ones, too.
fn loop_devices(devices: &Path, data_dir: &Path) -> usize {
    let data_dir = data_dir.canonicalize().unwrap_or(data_dir.to_owned());
    let entries = std::fs::read_dir(devices).into_iter().flatten().flatten();
    let files = entries
        .filter_map(|one| std::fs::read_to_string(one.path().join("loop/backing_file")).ok());
    files
        .filter(|file| Path::new(file).starts_with(&data_dir))
        .count()
}

fn shell_number(script: &str) -> usize {
    let output = Command::new("sh").args(["-c", script]).output();
    output
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_devices_over_the_own_files_are_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let (devices, data) = (dir.path().join("block"), dir.path().join("data"));
        std::fs::create_dir_all(&data).expect("made");
        let device = |name: &str, file: &Path, suffix: &str| {
            let place = devices.join(name).join("loop");
            std::fs::create_dir_all(&place).expect("made");
            let text = format!("{}{suffix}\n", file.display());
            std::fs::write(place.join("backing_file"), text).expect("written");
        };
        // A disk, and a loop device with nothing behind it.
        std::fs::create_dir_all(devices.join("vda")).expect("made");
        std::fs::create_dir_all(devices.join("loop0")).expect("made");
        assert_eq!(loop_devices(&devices, &data), 0);
        device("loop1", &dir.path().join("data-of-another/pool.img"), "");
        assert_eq!(loop_devices(&devices, &data), 0);
        device("loop2", &data.join("pool.img"), "");
        device("loop3", &data.join("old.img"), " (deleted)");
        assert_eq!(loop_devices(&devices, &data), 2);
    }
}
