//! The system call filter of a sandbox: everything is allowed but what is listed.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};
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
}

/// Filters ready for the kernel. They are stacked: the strictest answer wins.
#[derive(Debug, Clone)]
pub struct Filter {
    programs: Vec<BpfProgram>,
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
const PERSONALITIES: &[u64] = &[0x0, 0x8, 0x2_0000, 0x2_0008, 0x4_0000, 0xffff_ffff];

const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

impl Filter {
    /// Compiles a policy.
    ///
    /// # Errors
    /// Only where the compiler does not know this machine's architecture.
    pub fn new(policy: SeccompPolicy) -> io::Result<Self> {
        let mut rules = Rules::new();
        let mut listed = ALWAYS.to_vec();
        if !policy.allow_io_uring {
            listed.extend(IO_URING);
        }
        if !policy.allow_userfaultfd {
            listed.push(libc::SYS_userfaultfd);
        }
        if !policy.allow_landlock {
            listed.extend(LANDLOCK);
        }
        if !policy.allow_nested_namespaces {
            listed.extend(NAMESPACES);
            let any = CLONE_FLAGS.iter().map(|&flag| {
                let flag = u64::from(flag as u32);
                rule(
                    0,
                    SeccompCmpArgLen::Qword,
                    SeccompCmpOp::MaskedEq(flag),
                    flag,
                )
            });
            rules.insert(libc::SYS_clone, any.collect::<io::Result<_>>()?);
        }
        rules.extend(listed.into_iter().map(|number| (number, vec![])));
        arguments(&mut rules)?;
        let arch = std::env::consts::ARCH
            .try_into()
            .map_err(io::Error::other)?;
        let refuse = SeccompAction::Errno(libc::EPERM as u32);
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch);
        let denied: BpfProgram = filter
            .and_then(TryInto::try_into)
            .map_err(io::Error::other)?;
        Ok(Self {
            programs: vec![denied, unknown_calls(policy)],
        })
    }

    /// Installs the filter on the calling thread. The caller holds `CAP_SYS_ADMIN` in its user
    /// namespace: `no_new_privs` stays off, so that set-uid programs work inside.
    ///
    /// Async-signal-safe; gives the errno.
    pub(crate) fn install_raw(&self) -> Result<(), i32> {
        for program in &self.programs {
            let header = libc::sock_fprog {
                len: program.len() as u16,
                filter: program.as_ptr().cast_mut().cast(),
            };
            // SAFETY: a program of the length given, laid out as the kernel's sock_filter (both
            // types are repr(C) with the same fields); the kernel copies it.
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
        }
        Ok(())
    }
}

fn rule(arg: u8, len: SeccompCmpArgLen, op: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    let condition = SeccompCondition::new(arg, len, op, value).map_err(io::Error::other)?;
    SeccompRule::new(vec![condition]).map_err(io::Error::other)
}

/// Calls refused for some arguments only.
fn arguments(rules: &mut Rules) -> io::Result<()> {
    use SeccompCmpArgLen::Dword;
    let vsock = libc::AF_VSOCK as u64;
    rules.insert(
        libc::SYS_socket,
        vec![rule(0, Dword, SeccompCmpOp::Eq, vsock)?],
    );
    rules.insert(
        libc::SYS_ioctl,
        vec![
            rule(1, Dword, SeccompCmpOp::Eq, TIOCSTI)?,
            rule(1, Dword, SeccompCmpOp::Eq, TIOCLINUX)?,
        ],
    );
    let none_of = PERSONALITIES
        .iter()
        .map(|&known| SeccompCondition::new(0, Dword, SeccompCmpOp::Ne, known))
        .collect::<Result<Vec<_>, _>>()
        .map_err(io::Error::other)?;
    let strange = SeccompRule::new(none_of).map_err(io::Error::other)?;
    rules.insert(libc::SYS_personality, vec![strange]);
    Ok(())
}

/// "No such call" for clone3, whose flags a filter cannot read (libc falls back to clone), and on
/// x86-64 for the x32 numbers, by which every rule above could be walked around.
fn unknown_calls(policy: SeccompPolicy) -> BpfProgram {
    const LOAD_NUMBER: sock_filter = op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0);
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const X32_BIT: u32 = 0x4000_0000;
    let clone3 = if policy.allow_nested_namespaces {
        X32_BIT
    } else {
        libc::SYS_clone3 as u32
    };
    vec![
        LOAD_NUMBER,
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 2, 0, clone3),
        op(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, 0, X32_BIT),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, ENOSYS),
    ]
}

const fn op(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}
