//! Capability sets: what processes in a sandbox can ever hold.

use serde::{Deserialize, Serialize};

/// The highest capability number known to this code (`CAP_CHECKPOINT_RESTORE`). Numbers above it
/// are dropped too, up to [`SCAN_LIMIT`].
const SCAN_LIMIT: u32 = 63;

/// A set of capabilities, one bit for each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapSet(pub u64);

const CAP_CHOWN: u64 = 1 << 0;
const CAP_DAC_OVERRIDE: u64 = 1 << 1;
const CAP_FOWNER: u64 = 1 << 3;
const CAP_FSETID: u64 = 1 << 4;
const CAP_KILL: u64 = 1 << 5;
const CAP_SETGID: u64 = 1 << 6;
const CAP_SETUID: u64 = 1 << 7;
const CAP_SETPCAP: u64 = 1 << 8;
const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
const CAP_SYS_CHROOT: u64 = 1 << 18;
const CAP_MKNOD: u64 = 1 << 27;
const CAP_AUDIT_WRITE: u64 = 1 << 29;
const CAP_SETFCAP: u64 = 1 << 31;

impl CapSet {
    /// What processes of a sandbox may hold: the set Docker gives by default, less
    /// `CAP_NET_RAW`, which means nothing in a network namespace owned by the host.
    pub const SANDBOX: CapSet = CapSet(
        CAP_CHOWN
            | CAP_DAC_OVERRIDE
            | CAP_FOWNER
            | CAP_FSETID
            | CAP_KILL
            | CAP_SETGID
            | CAP_SETUID
            | CAP_SETPCAP
            | CAP_NET_BIND_SERVICE
            | CAP_SYS_CHROOT
            | CAP_MKNOD
            | CAP_AUDIT_WRITE
            | CAP_SETFCAP,
    );

    /// No capability.
    pub const EMPTY: CapSet = CapSet(0);

    /// Whether capability number `cap` is in the set.
    pub fn contains(self, cap: u32) -> bool {
        cap <= SCAN_LIMIT && self.0 & (1 << cap) != 0
    }

    /// Drops everything else from the calling thread's bounding set, and empties its ambient and
    /// inheritable sets, so that no later `execve` can hold more than this set. Needs
    /// `CAP_SETPCAP` only where something has to be dropped.
    ///
    /// Async-signal-safe. Returns the errno on failure.
    pub(crate) fn bound_raw(self) -> Result<(), i32> {
        for cap in 0..=SCAN_LIMIT {
            // SAFETY: PR_CAPBSET_READ takes a number and touches no memory.
            let held = unsafe { libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) };
            if held < 0 {
                break; // past the last capability this kernel knows
            }
            if held == 1 && !self.contains(cap) {
                // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory.
                if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) } < 0 {
                    return Err(crate::spawn::errno());
                }
            }
        }
        // SAFETY: clears the ambient set, touches no memory.
        let rc = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_CLEAR_ALL,
                0,
                0,
                0,
            )
        };
        // A kernel that knows no ambient set (gVisor's) has nothing in it.
        if rc < 0 && crate::spawn::errno() != libc::EINVAL {
            return Err(crate::spawn::errno());
        }
        clear_inheritable_raw()
    }
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64-bit sets in two words.
const CAP_VERSION_3: u32 = 0x2008_0522;

fn clear_inheritable_raw() -> Result<(), i32> {
    let mut header = CapHeader {
        version: CAP_VERSION_3,
        pid: 0,
    };
    let mut data = [CapData::default(); 2];
    // SAFETY: header and data have the kernel's layout for version 3 (two data words).
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } < 0 {
        return Err(crate::spawn::errno());
    }
    if data.iter().all(|word| word.inheritable == 0) {
        return Ok(());
    }
    for word in &mut data {
        word.inheritable = 0;
    }
    // SAFETY: as above; capset reads both.
    if unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } < 0 {
        return Err(crate::spawn::errno());
    }
    Ok(())
}
