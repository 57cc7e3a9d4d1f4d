//! A page shared with the child while it sets itself up: how far it is and what went wrong.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};

use rustix::time::{ClockId, clock_gettime};

use super::message::DIRECTORIES_STEP;

/// What the child does, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Step {
    Wait,
    Identity,
    CgroupNamespace,
    Private,
    Filesystems,
    Root,
    Mounts,
    Directories,
    Mask,
    Listen,
    Hostname,
    Descriptors,
    Limits,
    Seccomp,
    Capabilities,
    Exec,
}

pub(super) const STEPS: [(Step, &str); 16] = [
    (Step::Wait, "wait for the launcher"),
    (Step::Identity, "take ids"),
    (Step::CgroupNamespace, "cgroup namespace"),
    (Step::Private, "private mounts"),
    (Step::Filesystems, "make file systems"),
    (Step::Root, "change root"),
    (Step::Mounts, "attach file systems"),
    (Step::Directories, DIRECTORIES_STEP),
    (Step::Mask, "mask paths"),
    (Step::Listen, "listen"),
    (Step::Hostname, "host name"),
    (Step::Descriptors, "descriptors"),
    (Step::Limits, "limits"),
    (Step::Seccomp, "seccomp"),
    (Step::Capabilities, "capabilities"),
    (Step::Exec, "exec"),
];

#[derive(Default)]
pub(super) struct Report {
    /// The step in work, as index into `STEPS`.
    step: AtomicU32,
    /// Which of several things in the step.
    item: AtomicU32,
    errno: AtomicI32,
    /// When each step began, nanoseconds of the monotonic clock.
    began: [AtomicU64; STEPS.len()],
}

impl Report {
    /// Async-signal-safe, as all that the child calls here.
    pub(super) fn begin(&self, step: Step) {
        self.step.store(step as u32, Relaxed);
        self.item.store(0, Relaxed);
        self.began[step as usize].store(now(), Relaxed);
    }

    pub(super) fn item(&self, item: u32) {
        self.item.store(item, Relaxed);
    }

    pub(super) fn fail(&self, errno: i32) {
        self.errno.store(errno, Relaxed);
    }

    /// The failed step, the item in it and the errno.
    pub(super) fn failure(&self) -> Option<(Step, usize, i32)> {
        match self.errno.load(Relaxed) {
            0 => None,
            errno => Some((self.step(), self.item.load(Relaxed) as usize, errno)),
        }
    }

    pub(super) fn step(&self) -> Step {
        STEPS
            .get(self.step.load(Relaxed) as usize)
            .map_or(Step::Exec, |(step, _)| *step)
    }

    /// Nanoseconds at which each begun step began.
    pub(super) fn began(&self) -> impl Iterator<Item = (&'static str, u64)> {
        STEPS
            .iter()
            .zip(&self.began)
            .filter_map(|((_, name), at)| match at.load(Relaxed) {
                0 => None,
                at => Some((*name, at)),
            })
    }
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        STEPS[self as usize].1
    }
}

/// Nanoseconds of the monotonic clock.
pub(super) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The page.
pub(super) struct Shared {
    page: *mut Report,
}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a fresh mapping of our own, shared with children made later.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Report>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { page: page.cast() })
    }

    pub(super) fn report(&self) -> &Report {
        // SAFETY: mapped until drop, aligned to a page, all-zero is a valid Report of atomics,
        // and only ever accessed through atomics by either process.
        unsafe { &*self.page }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `new`.
        unsafe { libc::munmap(self.page.cast(), size_of::<Report>()) };
    }
}
