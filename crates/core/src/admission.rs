//! Whether the server takes one more sandbox.

use woodfrog_types::sandbox::Resources;
use woodfrog_types::workspace::WorkspaceLimits;
use woodfrog_types::{Code, Fault};

/// How many sandboxes may exist at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    pub server: usize,
    pub workspace: usize,
}

/// How many exist now, those on their way in or out included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    pub server: usize,
    pub workspace: usize,
}

/// What sandboxes in memory use, or one of them will.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub sandboxes: usize,
    pub cpus: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

impl Used {
    /// One sandbox with these resources.
    pub fn one(resources: &Resources) -> Self {
        Self {
            sandboxes: 1,
            cpus: resources.cpu_count.into(),
            memory_bytes: resources.memory_bytes,
            disk_bytes: resources.disk_bytes,
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            sandboxes: self.sandboxes.saturating_add(other.sandboxes),
            cpus: self.cpus.saturating_add(other.cpus),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            disk_bytes: self.disk_bytes.saturating_add(other.disk_bytes),
        }
    }

    /// Without the other.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            sandboxes: self.sandboxes.saturating_sub(other.sandboxes),
            cpus: self.cpus.saturating_sub(other.cpus),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            disk_bytes: self.disk_bytes.saturating_sub(other.disk_bytes),
        }
    }
}

/// What the sandboxes of a workspace may use together. `None`: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    pub sandboxes: Option<u32>,
    pub cpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub disk_bytes: Option<u64>,
}

impl From<&WorkspaceLimits> for Quota {
    fn from(limits: &WorkspaceLimits) -> Self {
        Self {
            sandboxes: limits.sandboxes,
            cpus: limits.cpus,
            memory_bytes: limits.memory_bytes,
            disk_bytes: limits.disk_bytes,
        }
    }
}

/// Refuses the sandbox with which a workspace would use more than it may.
pub fn within(used: Used, wanted: Used, quota: Quota) -> Result<(), Fault> {
    let sum = used.plus(wanted);
    let over = |what: &str, sum: u64, most: Option<u64>| match most {
        Some(most) if sum > most => Err(Fault::new(
            Code::RateLimited,
            format!("the workspace may use {most} {what} at once, and would use {sum}"),
        )),
        _ => Ok(()),
    };
    let sandboxes = u64::try_from(sum.sandboxes).unwrap_or(u64::MAX);
    over("sandboxes", sandboxes, quota.sandboxes.map(u64::from))?;
    over("vCPUs", sum.cpus, quota.cpus.map(u64::from))?;
    over("bytes of memory", sum.memory_bytes, quota.memory_bytes)?;
    over("bytes of disk", sum.disk_bytes, quota.disk_bytes)
}

/// Refuses the sandbox that would exceed a cap. The workspace's own cap is named first: it is the
/// one that its owner can do something about.
pub fn admit(present: Present, caps: Caps) -> Result<(), Fault> {
    if present.workspace >= caps.workspace {
        return Err(Fault::new(
            Code::RateLimited,
            format!(
                "the workspace has {} sandboxes, the most it may have; delete one first",
                present.workspace
            ),
        ));
    }
    if present.server >= caps.server {
        return Err(Fault::new(
            Code::CapacityUnavailable,
            "the server holds as many sandboxes as it may; try again later",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_holds_for_all_sandboxes_together() {
        let one = Used {
            sandboxes: 1,
            cpus: 2,
            memory_bytes: 3,
            disk_bytes: 4,
        };
        let two = one.plus(one);
        assert_eq!(two.minus(one), one);
        let ask = |quota| within(one, one, quota).map_err(|fault| fault.code);
        assert_eq!(ask(Quota::default()), Ok(()));
        for (fits, over) in [
            (
                Quota {
                    sandboxes: Some(2),
                    ..Quota::default()
                },
                Quota {
                    sandboxes: Some(1),
                    ..Quota::default()
                },
            ),
            (
                Quota {
                    cpus: Some(4),
                    ..Quota::default()
                },
                Quota {
                    cpus: Some(3),
                    ..Quota::default()
                },
            ),
            (
                Quota {
                    memory_bytes: Some(6),
                    ..Quota::default()
                },
                Quota {
                    memory_bytes: Some(5),
                    ..Quota::default()
                },
            ),
            (
                Quota {
                    disk_bytes: Some(8),
                    ..Quota::default()
                },
                Quota {
                    disk_bytes: Some(7),
                    ..Quota::default()
                },
            ),
        ] {
            assert_eq!(ask(fits), Ok(()), "{fits:?}");
            assert_eq!(ask(over), Err(Code::RateLimited), "{over:?}");
        }
    }

    #[test]
    fn caps_are_inclusive() {
        let caps = Caps {
            server: 3,
            workspace: 2,
        };
        let ask = |server, workspace| {
            admit(Present { server, workspace }, caps).map_err(|fault| fault.code)
        };
        assert_eq!(ask(2, 1), Ok(()));
        assert_eq!(ask(2, 2), Err(Code::RateLimited));
        assert_eq!(ask(3, 1), Err(Code::CapacityUnavailable));
        assert_eq!(ask(3, 2), Err(Code::RateLimited));
    }
}
