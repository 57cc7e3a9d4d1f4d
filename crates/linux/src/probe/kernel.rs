//! Small kernel features.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::{Probe, Status, Subject};
use crate::process::exit_of;

/// The name of the probe whose part that lacks [`crate::criu::allow_lazy_pages`] mends.
pub const USERFAULTFD: &str = "userfaultfd";

pub(super) fn userfaultfd() -> Probe {
    let subject = Subject::new(
        USERFAULTFD,
        "no lazy restore of big memories",
        "sysctl vm.unprivileged_userfaultfd=1; `woodfrog doctor --fix` sets it until the next boot",
    );
    match fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd") {
        Ok(text) if text.trim() == "1" => subject.found(Status::Ok, "for everybody"),
        Ok(_) => subject.found(Status::Degraded, "for the privileged only"),
        Err(error) => subject.found(Status::Missing, error.to_string()),
    }
}

/// A page just written is soft-dirty, where the kernel keeps account of that.
pub(super) fn soft_dirty() -> Probe {
    const SOFT_DIRTY: u64 = 1 << 55;
    let subject = Subject::new(
        "soft-dirty pages",
        "incremental checkpoints compare whole memories",
        "a kernel with CONFIG_MEM_SOFT_DIRTY",
    );
    let page = std::hint::black_box(Box::new([1u8; 4096]));
    let address = page.as_ptr() as u64;
    let mut entry = [0; 8];
    let read = fs::File::open("/proc/self/pagemap")
        .and_then(|map| map.read_exact_at(&mut entry, address / 4096 * 8));
    match read {
        Ok(()) if u64::from_le_bytes(entry) & SOFT_DIRTY != 0 => {
            subject.found(Status::Ok, "tracked")
        }
        Ok(()) => subject.found(Status::Missing, "not tracked"),
        Err(error) => subject.found(Status::Missing, error.to_string()),
    }
}

pub(super) fn pidfd_info() -> Probe {
    let subject = Subject::new(
        "exit status by pidfd",
        "how an adopted sandbox ended is not known",
        "kernel 6.15 or later",
    );
    let asked = pidfd_open(getpid(), PidfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|pidfd| exit_of(pidfd.as_fd()));
    subject.from(asked.map(|_| "there".to_owned()))
}
