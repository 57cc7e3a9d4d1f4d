//! Resource limits (`setrlimit`) as plain data, for messages and for children.

use serde::{Deserialize, Serialize};

/// The resources a sandbox or one of its processes can be limited in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Size of a core dump, bytes.
    Core,
    /// CPU time, seconds.
    Cpu,
    /// Size of the data segment, bytes.
    Data,
    /// Size of a written file, bytes.
    FileSize,
    /// Locked memory, bytes.
    MemLock,
    /// Open descriptors.
    OpenFiles,
    /// Processes of one uid.
    Processes,
    /// Size of the main stack, bytes.
    Stack,
}

/// One limit. `None` means unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// What is limited.
    pub resource: Resource,
    /// The limit in force.
    pub soft: Option<u64>,
    /// The ceiling to which the process may raise it.
    pub hard: Option<u64>,
}

impl ResourceLimit {
    /// Applies the limit to the calling process. A hard limit above the present one is lowered
    /// to the present one where the process may not raise it (no `CAP_SYS_RESOURCE`), so that
    /// a generous default does not stop a sandbox from starting.
    ///
    /// Async-signal-safe: raw system calls on the stack only. Returns the errno on failure.
    pub(crate) fn apply_raw(&self) -> Result<(), i32> {
        let wanted = libc::rlimit64 {
            rlim_cur: self.soft.unwrap_or(libc::RLIM64_INFINITY),
            rlim_max: self.hard.unwrap_or(libc::RLIM64_INFINITY),
        };
        match prlimit(self.number(), &wanted) {
            Err(libc::EPERM) => {
                let present = current(self.number())?;
                let hard = wanted.rlim_max.min(present.rlim_max);
                let clamped = libc::rlimit64 {
                    rlim_cur: wanted.rlim_cur.min(hard),
                    rlim_max: hard,
                };
                prlimit(self.number(), &clamped)
            }
            other => other,
        }
    }

    fn number(&self) -> u32 {
        match self.resource {
            Resource::Core => libc::RLIMIT_CORE,
            Resource::Cpu => libc::RLIMIT_CPU,
            Resource::Data => libc::RLIMIT_DATA,
            Resource::FileSize => libc::RLIMIT_FSIZE,
            Resource::MemLock => libc::RLIMIT_MEMLOCK,
            Resource::OpenFiles => libc::RLIMIT_NOFILE,
            Resource::Processes => libc::RLIMIT_NPROC,
            Resource::Stack => libc::RLIMIT_STACK,
        }
    }
}

fn prlimit(resource: u32, limit: &libc::rlimit64) -> Result<(), i32> {
    // SAFETY: `limit` is a valid rlimit64 that the kernel only reads; pid 0 is the caller.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            std::ptr::from_ref(limit),
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    if rc < 0 {
        Err(crate::spawn::errno())
    } else {
        Ok(())
    }
}

fn current(resource: u32) -> Result<libc::rlimit64, i32> {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid rlimit64 that the kernel writes; pid 0 is the caller.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            std::ptr::null::<libc::rlimit64>(),
            std::ptr::from_mut(&mut limit),
        )
    };
    if rc < 0 {
        Err(crate::spawn::errno())
    } else {
        Ok(limit)
    }
}
