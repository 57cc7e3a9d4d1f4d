//! The system call filter of a sandbox: everything is allowed but what is listed.

mod bpf;

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

/// What a sandbox may do beyond the default. Everything here makes a memory checkpoint fail or
/// lose state, or widens the reach into the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeccompPolicy {
    /// User, mount and other namespaces made inside (nested containers, browser sandboxes).
    pub allow_nested_namespaces: bool,
    /// `io_uring`.
    pub allow_io_uring: bool,
    /// `userfaultfd`.
    pub allow_userfaultfd: bool,
    /// Landlock. Its restrictions are silently lost by a checkpoint.
    pub allow_landlock: bool,
    /// POSIX message queues. A memory checkpoint carries none of them.
    pub allow_message_queues: bool,
}

/// A filter ready for the kernel.
///
/// The kernel turns it into machine code and tries every system call number on it whenever it is
/// installed, that is for every sandbox: hence one program, and one that searches in halves.
#[derive(Debug, Clone)]
pub struct Filter {
    program: Vec<libc::sock_filter>,
}

const NAMESPACES: &[i64] = &[
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
];

const ALWAYS: &[i64] = &[
    libc::SYS_memfd_secret,
    libc::SYS_kexec_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    SYS_QUOTACTL_FD,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
];

/// Not in libc yet; the number is the same on every architecture.
const SYS_QUOTACTL_FD: i64 = 443;

const IO_URING: &[i64] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];
const LANDLOCK: &[i64] = &[
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

const CLONE_FLAGS: &[i32] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// The personas Docker allows, and the one without address randomisation, for debuggers.
const PERSONALITIES: &[u32] = &[0x0, 0x8, 0x2_0000, 0x2_0008, 0x4_0000, 0xffff_ffff];

const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
// btrfs lets every user make subvolumes and snapshots, and those have quotas of their own: none.
const BTRFS_SUBVOL_CREATE: u32 = 0x5000_940e;
const BTRFS_SUBVOL_CREATE_V2: u32 = 0x5000_9418;
const BTRFS_SNAP_CREATE: u32 = 0x5000_9401;
const BTRFS_SNAP_CREATE_V2: u32 = 0x5000_9417;

const IOCTLS: &[u32] = &[
    TIOCSTI,
    TIOCLINUX,
    BTRFS_SUBVOL_CREATE,
    BTRFS_SUBVOL_CREATE_V2,
    BTRFS_SNAP_CREATE,
    BTRFS_SNAP_CREATE_V2,
];

/// From here on a number is one of the x32 calls (on other machines: of no call), by which every
/// rule could be walked around.
const X32_BIT: u32 = 0x4000_0000;

impl Filter {
    /// Compiles a policy.
    ///
    /// # Errors
    /// Only on an architecture that sandboxes are not made for.
    pub fn new(policy: SeccompPolicy) -> io::Result<Self> {
        Ok(Self {
            program: bpf::compile(&verdicts(policy))?,
        })
    }

    /// Installs the filter on the calling thread. The caller holds `CAP_SYS_ADMIN` in its user
    /// namespace: `no_new_privs` stays off, so that set-uid programs work inside.
    ///
    /// Async-signal-safe; gives the errno.
    pub(crate) fn install_raw(&self) -> Result<(), i32> {
        let header = libc::sock_fprog {
            len: self.program.len() as u16,
            filter: self.program.as_ptr().cast_mut(),
        };
        // SAFETY: a program of the length given; the kernel copies it.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const header,
            )
        };
        if rc < 0 {
            return Err(crate::spawn::errno());
        }
        Ok(())
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    /// "Not permitted".
    Refuse,
    /// "No such call".
    Unknown,
    /// Refused if the argument is one of these.
    RefuseArgument {
        arg: u32,
        values: &'static [u32],
    },
    /// Refused unless the argument is one of these.
    RequireArgument {
        arg: u32,
        values: &'static [u32],
    },
    /// Refused if the argument has any of these bits.
    RefuseBits {
        arg: u32,
        bits: u32,
    },
}

/// The verdicts on all numbers: each holds from its number on until the next one.
fn verdicts(policy: SeccompPolicy) -> Vec<(u32, Verdict)> {
    let mut calls = BTreeMap::from([
        (
            libc::SYS_socket,
            Verdict::RefuseArgument {
                arg: 0,
                values: &[libc::AF_VSOCK as u32],
            },
        ),
        (
            libc::SYS_ioctl,
            Verdict::RefuseArgument {
                arg: 1,
                values: IOCTLS,
            },
        ),
        (
            libc::SYS_personality,
            Verdict::RequireArgument {
                arg: 0,
                values: PERSONALITIES,
            },
        ),
    ]);
    let mut refuse = |numbers: &[i64]| calls.extend(numbers.iter().map(|n| (*n, Verdict::Refuse)));
    refuse(ALWAYS);
    if !policy.allow_io_uring {
        refuse(IO_URING);
    }
    if !policy.allow_userfaultfd {
        refuse(&[libc::SYS_userfaultfd]);
    }
    if !policy.allow_landlock {
        refuse(LANDLOCK);
    }
    if !policy.allow_message_queues {
        refuse(&[libc::SYS_mq_open]);
    }
    if !policy.allow_nested_namespaces {
        refuse(NAMESPACES);
        let bits = CLONE_FLAGS.iter().fold(0, |bits, flag| bits | *flag as u32);
        calls.insert(libc::SYS_clone, Verdict::RefuseBits { arg: 0, bits });
        // A filter cannot read its flags; libc falls back to clone.
        calls.insert(libc::SYS_clone3, Verdict::Unknown);
    }
    let mut verdicts = vec![(0, Verdict::Allow)];
    let mut from = |number, verdict| match verdicts.last_mut() {
        Some((last, at)) if *last == number => *at = verdict,
        Some((_, at)) if *at == verdict => {}
        _ => verdicts.push((number, verdict)),
    };
    for (number, verdict) in calls {
        from(number as u32, verdict);
        from(number as u32 + 1, Verdict::Allow);
    }
    from(X32_BIT, Verdict::Unknown);
    verdicts
}

#[cfg(test)]
mod tests;
