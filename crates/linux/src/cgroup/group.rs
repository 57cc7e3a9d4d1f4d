//! One group: limits, freezing, killing, usage, removal.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Limits;
use super::files::{read, read_key, read_number, write};
use crate::launcher::CgroupJoin;

/// How long freezing, killing or removing may take.
const PATIENCE: Duration = Duration::from_secs(5);
const PERIOD_MICROS: u64 = 100_000;
/// The kernel takes no smaller quota.
const MIN_QUOTA_MICROS: u64 = 1000;

/// The group of a sandbox, in whichever hierarchies there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// In the version 2 tree.
    Unified {
        /// Its directory.
        dir: PathBuf,
    },
    /// In version 1 hierarchies.
    Split {
        /// Its directories, by controller.
        controllers: BTreeMap<String, PathBuf>,
        /// Its directory in the version 2 tree beside them.
        unified: Option<PathBuf>,
    },
}

/// What a group uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in bytes, file cache included.
    pub memory_bytes: u64,
    /// Memory limit in bytes; `None` if there is none.
    pub memory_limit: Option<u64>,
    /// File cache in bytes.
    pub cache_bytes: u64,
    /// Of those, memory that processes share, and memory file systems.
    pub shmem_bytes: u64,
    /// CPU time since the group was made, nanoseconds.
    pub cpu_nanos: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Processes killed for lack of memory.
    pub oom_kills: u64,
}

impl Group {
    /// Its directories.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        let (one, many) = match self {
            Group::Unified { dir } => (Some(dir), None),
            Group::Split {
                controllers,
                unified,
            } => (unified.as_ref(), Some(controllers)),
        };
        let many = many.into_iter().flat_map(BTreeMap::values);
        // Some controllers can share a hierarchy; their directory comes twice, harmlessly.
        one.into_iter().chain(many).map(PathBuf::as_path)
    }

    /// The group as the launcher wants it.
    pub fn join(&self) -> CgroupJoin {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        match self {
            Group::Unified { dir } => CgroupJoin {
                unified: Some(text(dir)),
                split: vec![],
            },
            Group::Split {
                controllers,
                unified,
            } => CgroupJoin {
                unified: unified.as_deref().map(text),
                split: controllers.values().map(|dir| text(dir)).collect(),
            },
        }
    }

    /// Moves a process into the group, everywhere.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.dirs()
            .try_for_each(|dir| write(&dir.join("cgroup.procs"), &pid.to_string()))
    }

    /// Changes the limits; `None` lifts one.
    ///
    /// # Errors
    /// `Unsupported` for a limit whose controller this machine does not have.
    pub fn set_limits(&self, limits: &Limits) -> io::Result<()> {
        match self {
            Group::Unified { dir } => {
                let or_max = |value: Option<u64>| value.map_or("max".into(), |v| v.to_string());
                write(&dir.join("memory.max"), &or_max(limits.memory_bytes))?;
                if limits.memory_bytes.is_some() {
                    absent_is_fine(write(&dir.join("memory.swap.max"), "0"))?;
                }
                let quota = or_max(limits.cpu_millicores.map(quota));
                write(&dir.join("cpu.max"), &format!("{quota} {PERIOD_MICROS}"))?;
                write(&dir.join("pids.max"), &or_max(limits.pids.map(u64::from)))
            }
            Group::Split { .. } => self.set_split_limits(limits),
        }
    }

    fn set_split_limits(&self, limits: &Limits) -> io::Result<()> {
        let or_none = |value: Option<u64>| value.map_or("-1".to_owned(), |v| v.to_string());
        if let Some(dir) = self.wanted("memory", limits.memory_bytes.is_some())? {
            set_memory(dir, &or_none(limits.memory_bytes))?;
        }
        if let Some(dir) = self.wanted("cpu", limits.cpu_millicores.is_some())? {
            write(
                &dir.join("cpu.cfs_quota_us"),
                &or_none(limits.cpu_millicores.map(quota)),
            )?;
        }
        if let Some(dir) = self.wanted("pids", limits.pids.is_some())? {
            let value = limits
                .pids
                .map_or("max".to_owned(), |value| value.to_string());
            write(&dir.join("pids.max"), &value)?;
        }
        Ok(())
    }

    fn wanted(&self, controller: &str, limited: bool) -> io::Result<Option<&Path>> {
        match (self.controller(controller), limited) {
            (None, true) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("no cgroup controller {controller}"),
            )),
            (dir, _) => Ok(dir),
        }
    }

    fn controller(&self, name: &str) -> Option<&Path> {
        match self {
            Group::Unified { dir } => Some(dir),
            Group::Split { controllers, .. } => controllers.get(name).map(PathBuf::as_path),
        }
    }

    /// The version 2 directory, if there is one.
    fn unified(&self) -> Option<&Path> {
        match self {
            Group::Unified { dir } => Some(dir),
            Group::Split { unified, .. } => unified.as_deref(),
        }
    }

    /// Stops every process of the group, and returns when they have stopped.
    pub fn freeze(&self) -> io::Result<()> {
        self.set_frozen("1", "FROZEN")?;
        eventually("the group does not freeze", || self.is_frozen())
    }

    /// Lets them go on.
    pub fn thaw(&self) -> io::Result<()> {
        self.set_frozen("0", "THAWED")
    }

    fn set_frozen(&self, unified: &str, split: &str) -> io::Result<()> {
        match (self.unified(), self.controller("freezer")) {
            (Some(dir), _) => write(&dir.join("cgroup.freeze"), unified),
            (None, Some(dir)) => write(&dir.join("freezer.state"), split),
            (None, None) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "no cgroup freezer",
            )),
        }
    }

    /// Whether every process of the group is stopped.
    pub fn is_frozen(&self) -> io::Result<bool> {
        match (self.unified(), self.controller("freezer")) {
            (Some(dir), _) => Ok(read_key(&dir.join("cgroup.events"), "frozen")? == 1),
            (None, Some(dir)) => Ok(read(&dir.join("freezer.state"))?.trim() == "FROZEN"),
            (None, None) => Ok(false),
        }
    }

    /// The processes in the group.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let Some(dir) = self.dirs().next() else {
            return Ok(vec![]);
        };
        Ok(read(&dir.join("cgroup.procs"))?
            .lines()
            .filter_map(|pid| pid.parse().ok())
            .collect())
    }

    /// Kills every process of the group, frozen ones too, and returns when it is empty (its
    /// processes can still be waiting to be reaped by their parents).
    pub fn kill_all(&self) -> io::Result<()> {
        if self.unified().is_none() && self.controller("freezer").is_some() {
            self.thaw()?; // a version 1 freezer holds back even SIGKILL
        }
        let whole = self
            .unified()
            .map(|dir| dir.join("cgroup.kill"))
            .filter(|path| path.exists());
        if let Some(path) = &whole {
            write(path, "1")?;
        }
        eventually("the group does not die", || {
            let pids = self.pids()?;
            if whole.is_none() {
                for pid in pids
                    .iter()
                    .filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?))
                {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            Ok(pids.is_empty())
        })
    }

    /// Reads what the group uses. What this machine does not count is 0.
    pub fn usage(&self) -> io::Result<Usage> {
        let mut usage = Usage::default();
        match self {
            Group::Unified { dir } => {
                usage.memory_bytes = read_number(&dir.join("memory.current"))?;
                usage.memory_limit = limit(read_number(&dir.join("memory.max"))?);
                usage.cache_bytes = read_key(&dir.join("memory.stat"), "file")?;
                usage.shmem_bytes = read_key(&dir.join("memory.stat"), "shmem")?;
                usage.cpu_nanos = read_key(&dir.join("cpu.stat"), "usage_usec")? * 1000;
                usage.pids = read_number(&dir.join("pids.current"))?;
                usage.oom_kills = read_key(&dir.join("memory.events"), "oom_kill")?;
            }
            Group::Split { .. } => {
                if let Some(dir) = self.controller("memory") {
                    usage.memory_bytes = read_number(&dir.join("memory.usage_in_bytes"))?;
                    usage.memory_limit = limit(read_number(&dir.join("memory.limit_in_bytes"))?);
                    usage.cache_bytes = read_key(&dir.join("memory.stat"), "cache")?;
                    usage.shmem_bytes = read_key(&dir.join("memory.stat"), "shmem")?;
                    usage.oom_kills = read_key(&dir.join("memory.oom_control"), "oom_kill")?;
                }
                if let Some(dir) = self.controller("cpuacct") {
                    usage.cpu_nanos = read_number(&dir.join("cpuacct.usage"))?;
                }
                if let Some(dir) = self.controller("pids") {
                    usage.pids = read_number(&dir.join("pids.current"))?;
                }
            }
        }
        Ok(usage)
    }

    /// Removes the group, which must hold no living process. A group that is gone is fine.
    pub fn remove(&self) -> io::Result<()> {
        self.dirs().try_for_each(|dir| {
            eventually("the group stays busy", || match fs::remove_dir(dir) {
                Ok(()) => Ok(true),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Ok(false),
                Err(e) => Err(e),
            })
        })
    }
}

fn quota(millicores: u32) -> u64 {
    (u64::from(millicores) * PERIOD_MICROS / 1000).max(MIN_QUOTA_MICROS)
}

/// Both kinds of "no limit": `max`, and a number no machine has.
fn limit(value: u64) -> Option<u64> {
    (value < 1 << 62).then_some(value)
}

/// The limit of memory with swap may not be below that without: which one goes first depends on
/// the direction.
fn set_memory(dir: &Path, value: &str) -> io::Result<()> {
    let (plain, swap) = (
        dir.join("memory.limit_in_bytes"),
        dir.join("memory.memsw.limit_in_bytes"),
    );
    if write(&plain, value).is_err() {
        absent_is_fine(write(&swap, value))?;
        write(&plain, value)?;
    }
    absent_is_fine(write(&swap, value))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn eventually(what: &str, mut done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(50);
    while !done()? {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
    Ok(())
}
