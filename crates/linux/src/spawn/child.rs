//! What runs in the child, in the parent's memory, between clone and execve.
//!
//! Nothing here may allocate, lock, panic or call a libc function that keeps state: identities in
//! particular are set by raw system calls, since libc's wrappers signal "all threads", which would
//! be the parent's.

use std::ffi::{c_int, c_void};

use super::prepared::Prepared;
use super::{SpawnStep, Stdio};

pub(super) enum Outcome {
    Running,
    Failed { step: SpawnStep, errno: i32 },
}

impl Outcome {
    pub(super) fn from_raw(step: i32, errno: i32) -> Self {
        let step = match step {
            0 => return Outcome::Running,
            1 => SpawnStep::Session,
            2 => SpawnStep::Descriptors,
            3 => SpawnStep::Terminal,
            4 => SpawnStep::Limits,
            5 => SpawnStep::Capabilities,
            6 => SpawnStep::Identity,
            7 => SpawnStep::WorkingDirectory,
            _ => SpawnStep::Exec,
        };
        Outcome::Failed { step, errno }
    }
}

/// The errno of the calling thread.
pub(crate) fn errno() -> i32 {
    // SAFETY: errno's address is valid for the thread. A vfork child shares the thread pointer of
    // its sleeping parent, so this is the parent's errno, which nobody else looks at meanwhile.
    unsafe { *libc::__errno_location() }
}

fn ok(rc: impl Into<i64>) -> Result<(), i32> {
    if rc.into() < 0 { Err(errno()) } else { Ok(()) }
}

/// The child's entry. Never returns to its caller's frame: it ends in execve or `_exit`.
pub(super) extern "C" fn run(arg: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a `Prepared` that outlives this call, and its thread sleeps, so this
    // is the only access.
    let prepared = unsafe { &mut *arg.cast::<Prepared>() };
    let (step, errno) = match enter(prepared) {
        Ok(()) => exec(prepared),
        Err(failure) => failure,
    };
    // SAFETY: a write to the field the parent reads; volatile, see `Prepared::outcome`.
    unsafe { std::ptr::from_mut(&mut prepared.failure).write_volatile((step as i32, errno)) };
    // SAFETY: ends this process without running anything registered by the parent.
    unsafe { libc::_exit(127) }
}

fn enter(prepared: &Prepared) -> Result<(), (SpawnStep, i32)> {
    reset_signals();
    // SAFETY: no memory is involved.
    ok(unsafe { libc::setsid() }).map_err(|e| (SpawnStep::Session, e))?;
    descriptors(prepared)?;
    // SAFETY: no memory is involved.
    unsafe { libc::umask(prepared.spec.umask) };
    if let Some(score) = &prepared.oom_score {
        write_oom_score(score);
    }
    for limit in &prepared.spec.rlimits {
        limit.apply_raw().map_err(|e| (SpawnStep::Limits, e))?;
    }
    prepared
        .spec
        .capabilities
        .bound_raw()
        .map_err(|e| (SpawnStep::Capabilities, e))?;
    identity(prepared).map_err(|e| (SpawnStep::Identity, e))?;
    // SAFETY: `cwd` is a NUL-terminated string that lives in `prepared`.
    ok(unsafe { libc::chdir(prepared.spec.cwd.as_ptr()) })
        .map_err(|e| (SpawnStep::WorkingDirectory, e))
}

/// Every disposition back to default (an ignored signal would stay ignored across execve; a
/// handler must not run in shared memory), then nothing blocked. Raw calls, because libc's refuse
/// the two signals it keeps for itself, and an ignored one may have been inherited.
pub(crate) fn reset_signals() {
    const SIGSET_BYTES: usize = 8;
    // The kernel's struct: handler, flags, restorer, mask. All zero is SIG_DFL.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: the dispositions are this process's own (no CLONE_SIGHAND); the action is only
        // read. SIGKILL and SIGSTOP are refused, rightly.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SIGSET_BYTES,
            );
        }
    }
    // SAFETY: an empty set, only read.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            default.as_ptr(),
            std::ptr::null_mut::<u64>(),
            SIGSET_BYTES,
        );
    }
}

fn descriptors(prepared: &Prepared) -> Result<(), (SpawnStep, i32)> {
    for (target, &source) in (0..3).zip(&prepared.stdio) {
        // SAFETY: this process has its own descriptor table (no CLONE_FILES); sources are above 2.
        ok(unsafe { libc::dup2(source, target) }).map_err(|e| (SpawnStep::Descriptors, e))?;
    }
    // No descriptor has a higher number, and gVisor takes none.
    let last = i32::MAX as u32;
    // SAFETY: only flags in this process's own table.
    let rc = unsafe { libc::syscall(libc::SYS_close_range, 3u32, last, libc::CLOSE_RANGE_CLOEXEC) };
    ok(rc).map_err(|e| (SpawnStep::Descriptors, e))?;
    if matches!(prepared.spec.stdio, Stdio::Terminal(_)) {
        // SAFETY: TIOCSCTTY takes a number.
        ok(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }).map_err(|e| (SpawnStep::Terminal, e))?;
    }
    Ok(())
}

fn write_oom_score(score: &[u8]) {
    // SAFETY: constant path, buffer with its length; the descriptor is closed here.
    unsafe {
        let fd = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        if fd >= 0 {
            libc::write(fd, score.as_ptr().cast(), score.len());
            libc::close(fd);
        }
    }
}

fn identity(prepared: &Prepared) -> Result<(), i32> {
    let spec = &prepared.spec;
    // SAFETY: raw calls that act on this task only; `groups` is a valid array of its length.
    unsafe {
        if let Some(groups) = &spec.groups {
            ok(libc::syscall(
                libc::SYS_setgroups,
                groups.len(),
                groups.as_ptr(),
            ))?;
        }
        ok(libc::syscall(
            libc::SYS_setresgid,
            spec.gid,
            spec.gid,
            spec.gid,
        ))?;
        ok(libc::syscall(
            libc::SYS_setresuid,
            spec.uid,
            spec.uid,
            spec.uid,
        ))
    }
}

/// Tries each candidate as a shell does: a refusal is remembered while a later one may work.
fn exec(prepared: &Prepared) -> (SpawnStep, i32) {
    let mut worst = libc::ENOENT;
    for candidate in &prepared.candidates {
        // SAFETY: NUL-terminated path and NULL-terminated vectors that live in `prepared`.
        unsafe {
            libc::execve(
                candidate.as_ptr(),
                prepared.argv.as_ptr(),
                prepared.env.as_ptr(),
            );
        }
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => worst = libc::EACCES,
            other => return (SpawnStep::Exec, other),
        }
    }
    (SpawnStep::Exec, worst)
}
