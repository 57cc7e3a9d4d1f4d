//! Everything the child needs, laid out before it exists, so that it need not allocate.

use std::ffi::{CString, c_char, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use super::child::Outcome;
use super::{SpawnSpec, Stdio};

/// What a shell uses when the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The child's stack, without the guard page. The deepest frame is a few hundred bytes.
const STACK_BYTES: usize = 64 * 1024;
const GUARD_BYTES: usize = 4096;

pub(super) struct Prepared {
    pub(super) spec: SpawnSpec,
    /// Descriptors for 0, 1 and 2, each above 2.
    pub(super) stdio: [i32; 3],
    /// Paths to try, in order.
    pub(super) candidates: Vec<CString>,
    pub(super) argv: Vec<*const c_char>,
    pub(super) env: Vec<*const c_char>,
    /// Written by the child: the failed step (0 = none) and its errno.
    pub(super) failure: (i32, i32),
    /// `oom_score_adj` as text.
    pub(super) oom_score: Option<Vec<u8>>,
    /// Copies of descriptors that were given below 3.
    _moved: Vec<OwnedFd>,
}

impl Prepared {
    pub(super) fn new(spec: SpawnSpec) -> io::Result<Self> {
        let given = match &spec.stdio {
            Stdio::Fds {
                stdin,
                stdout,
                stderr,
            } => [stdin, stdout, stderr],
            Stdio::Terminal(tty) => [tty, tty, tty],
        };
        let mut moved = Vec::new();
        let mut stdio = [0; 3];
        for (slot, fd) in stdio.iter_mut().zip(given) {
            *slot = if fd.as_raw_fd() > 2 {
                fd.as_raw_fd()
            } else {
                let copy = rustix::io::fcntl_dupfd_cloexec(fd, 3)?;
                moved.push(copy);
                moved.last().map_or(-1, AsRawFd::as_raw_fd)
            };
        }
        let candidates = candidates(&spec);
        let argv = pointers(&spec.argv);
        let env = pointers(&spec.env);
        let oom_score = spec
            .oom_score_adj
            .map(|score| score.to_string().into_bytes());
        // Moving `spec` keeps the heap buffers that `argv` and `env` point to where they are.
        Ok(Self {
            spec,
            stdio,
            candidates,
            argv,
            env,
            failure: (0, 0),
            oom_score,
            _moved: moved,
        })
    }

    pub(super) fn outcome(&self) -> Outcome {
        // SAFETY: a read of our own field; volatile because another process sharing this memory
        // has written it behind the compiler's back.
        let (step, errno) = unsafe { std::ptr::from_ref(&self.failure).read_volatile() };
        Outcome::from_raw(step, errno)
    }
}

/// NULL-terminated, as execve wants it.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

fn candidates(spec: &SpawnSpec) -> Vec<CString> {
    let name = spec.program.to_bytes();
    if name.is_empty() || name.contains(&b'/') {
        return vec![spec.program.clone()];
    }
    let path = spec
        .env
        .iter()
        .find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="))
        .unwrap_or(DEFAULT_PATH);
    path.split(|byte| *byte == b':')
        .filter_map(|dir| {
            let dir = if dir.is_empty() { b".".as_slice() } else { dir };
            CString::new([dir, b"/", name].concat()).ok()
        })
        .collect()
}

/// A mapping with a guard page below it.
pub(crate) struct Stack {
    base: *mut c_void,
}

impl Stack {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a fresh private anonymous mapping of our own.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                STACK_BYTES + GUARD_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        // SAFETY: the first page of the mapping just made.
        if unsafe { libc::mprotect(base, GUARD_BYTES, libc::PROT_NONE) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// The highest address, from which the stack grows down. 16-byte aligned.
    pub(crate) fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping.
        unsafe { self.base.byte_add(STACK_BYTES + GUARD_BYTES) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `new`, which no process uses any more: the child has its
        // own memory (or is gone) when the vfork returns.
        unsafe { libc::munmap(self.base, STACK_BYTES + GUARD_BYTES) };
    }
}

/// Blocks every signal for the calling thread until dropped.
pub(crate) struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    pub(crate) fn new() -> io::Result<Self> {
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are ours; pthread_sigmask fills `before` when it succeeds.
        unsafe {
            let mut all = MaybeUninit::uninit();
            libc::sigfillset(all.as_mut_ptr());
            let rc = libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            if rc != 0 {
                return Err(io::Error::from_raw_os_error(rc));
            }
            Ok(Self {
                before: before.assume_init(),
            })
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: restores the set read by `new`.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.before,
                std::ptr::null_mut(),
            )
        };
    }
}
