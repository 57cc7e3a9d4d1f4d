//! cgroups of sandboxes: version 2, or version 1 controllers in hierarchies of their own (with
//! or without a version 2 tree beside them).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod charge;
mod files;
mod group;

pub use charge::Charged;
pub use group::{Group, Usage};

use files::{mkdir_all, write};

/// The version 1 controllers that are used.
const CONTROLLERS: [&str; 5] = ["memory", "pids", "cpu", "cpuacct", "freezer"];

/// What a group is limited to. `None` means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes; swap is not given on top.
    pub memory_bytes: Option<u64>,
    /// CPU time in thousandths of a core.
    pub cpu_millicores: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// Where this machine keeps its cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchies {
    /// One version 2 tree with all controllers.
    Unified {
        /// Its mount point.
        root: PathBuf,
    },
    /// Version 1.
    Split {
        /// Mount points of the controllers, by name.
        controllers: BTreeMap<String, PathBuf>,
        /// A version 2 tree beside them, for freezing and killing.
        unified: Option<PathBuf>,
    },
}

impl Hierarchies {
    /// Looks at the mounts of this machine.
    ///
    /// # Errors
    /// `Unsupported` where no cgroups are mounted.
    pub fn detect() -> io::Result<Self> {
        Self::from_mounts(&fs::read_to_string("/proc/self/mounts")?)
    }

    fn from_mounts(mounts: &str) -> io::Result<Self> {
        let mut controllers = BTreeMap::new();
        let mut unified = None;
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, path, kind, options, ..] = fields[..] else {
                continue;
            };
            match kind {
                "cgroup2" => unified = unified.or(Some(PathBuf::from(path))),
                "cgroup" => {
                    for name in CONTROLLERS {
                        if options.split(',').any(|option| option == name) {
                            controllers.insert(name.to_owned(), PathBuf::from(path));
                        }
                    }
                }
                _ => {}
            }
        }
        match (controllers.is_empty(), unified) {
            (true, Some(root)) => Ok(Hierarchies::Unified { root }),
            (true, None) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "no cgroups mounted",
            )),
            (false, unified) => Ok(Hierarchies::Split {
                controllers,
                unified,
            }),
        }
    }

    /// Makes the group `name` (`instance/sandbox`, relative to the top) with these limits. A
    /// group that exists is taken over.
    ///
    /// # Errors
    /// What the kernel says; nothing new is left behind.
    pub fn create(&self, name: &str, limits: &Limits) -> io::Result<Group> {
        let group = self.group(name);
        let made = group
            .dirs()
            .try_for_each(|dir| self.make(dir))
            .and_then(|()| group.set_limits(limits));
        match made {
            Ok(()) => Ok(group),
            Err(error) => {
                let _ = group.remove();
                Err(error)
            }
        }
    }

    /// The group `name`, which need not exist.
    pub fn group(&self, name: &str) -> Group {
        match self {
            Hierarchies::Unified { root } => Group::Unified {
                dir: root.join(name),
            },
            Hierarchies::Split {
                controllers,
                unified,
            } => Group::Split {
                controllers: controllers
                    .iter()
                    .filter(|(controller, _)| *controller != "freezer" || unified.is_none())
                    .map(|(controller, path)| (controller.clone(), path.join(name)))
                    .collect(),
                unified: unified.as_ref().map(|path| path.join(name)),
            },
        }
    }

    /// The names of the groups below `instance`.
    pub fn list(&self, instance: &str) -> io::Result<Vec<String>> {
        let top = self.group(instance);
        let mut names = std::collections::BTreeSet::new();
        for dir in top.dirs() {
            match fs::read_dir(dir) {
                Ok(entries) => {
                    for entry in entries {
                        let entry = entry?;
                        if entry.file_type()?.is_dir() {
                            names.insert(entry.file_name().to_string_lossy().into_owned());
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(names.into_iter().collect())
    }

    fn make(&self, dir: &Path) -> io::Result<()> {
        if let Hierarchies::Unified { root } = self {
            delegate(root, dir)?;
        }
        mkdir_all(dir)
    }

    /// Makes moving processes between groups cheap (0.1 ms in place of 4 to 24 ms, which is a
    /// wait for every CPU), at the price of slightly dearer forks: the kernel's `favordynmods`.
    /// Only of use with version 1 controllers; in a version 2 tree processes are born where they
    /// belong. Changes a mount option of the whole machine, until the next boot.
    pub fn favor_moves(&self) -> io::Result<()> {
        let root = match self {
            Hierarchies::Unified { .. } => return Ok(()),
            Hierarchies::Split {
                unified: Some(root),
                ..
            } => root,
            Hierarchies::Split { controllers, .. } => match controllers.values().next() {
                Some(root) => root,
                None => return Ok(()),
            },
        };
        use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick};
        use std::os::fd::AsFd;
        let fs = fspick(rustix::fs::CWD, root, FsPickFlags::FSPICK_CLOEXEC)?;
        fsconfig_set_flag(fs.as_fd(), "favordynmods")?;
        Ok(fsconfig_reconfigure(fs.as_fd())?)
    }
}

/// Makes the directories above `dir`, handing the controllers down.
fn delegate(root: &Path, dir: &Path) -> io::Result<()> {
    let Some(parent) = dir.parent() else {
        return Ok(());
    };
    let below = parent.strip_prefix(root).unwrap_or(Path::new(""));
    let mut at = root.to_owned();
    hand_down(&at)?;
    for part in below {
        at.push(part);
        mkdir_all(&at)?;
        hand_down(&at)?;
    }
    Ok(())
}

fn hand_down(dir: &Path) -> io::Result<()> {
    let control = dir.join("cgroup.subtree_control");
    let present = fs::read_to_string(&control)?;
    let wanted = ["memory", "pids", "cpu"];
    if wanted
        .iter()
        .all(|name| present.split_whitespace().any(|have| have == *name))
    {
        return Ok(());
    }
    write(&control, "+memory +pids +cpu")
}

#[cfg(test)]
mod tests;
