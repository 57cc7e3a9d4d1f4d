//! For this crate's tests: the launcher alone (with `--old`: as on a kernel that takes no layers
//! by descriptor), or (given a script) an init that runs it, or the self-test's init.

use std::error::Error;
use std::ffi::CString;

use rustix::process::{WaitOptions, wait};
use woodfrog_linux::caps::CapSet;
use woodfrog_linux::launcher::{adopt_stdin, launcher_main};
use woodfrog_linux::selfctl::set_undumpable;
use woodfrog_linux::spawn::{SpawnSpec, Stdio, spawn};

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(role) if role == "__checkpoint-subject" => woodfrog_linux::criu::subject_main(),
        Some(flag) if flag == "--old" => {
            refuse_descriptors()?;
            launcher_main(adopt_stdin()?)
        }
        Some(script) => init(script),
        None => launcher_main(adopt_stdin()?),
    }
}

/// Makes `fsconfig` answer descriptors as Linux 6.1 does for overlays: not supported.
fn refuse_descriptors() -> std::io::Result<()> {
    const SET_FD: u32 = 5;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const UNLESS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    // Number at 0 of `seccomp_data`, the second argument at 24.
    let mut steps = [
        step(LOAD, 0, 0),
        step(UNLESS, 3, libc::SYS_fsconfig as u32),
        step(LOAD, 0, 24),
        step(UNLESS, 1, SET_FD),
        step(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::EOPNOTSUPP as u32),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: a program of the length given, which the kernel copies.
    let rc = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    if rc < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

fn init(script: String) -> Result<(), Box<dyn Error>> {
    set_undumpable()?;
    let null = || {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
    };
    let child = spawn(SpawnSpec {
        program: CString::from(c"sh"),
        argv: vec![
            CString::from(c"sh"),
            CString::from(c"-c"),
            CString::new(script)?,
        ],
        env: vec![CString::from(c"PATH=/usr/bin")],
        cwd: CString::from(c"/"),
        uid: 0,
        gid: 0,
        groups: Some(vec![]),
        stdio: Stdio::Fds {
            stdin: null()?.into(),
            stdout: null()?.into(),
            stderr: null()?.into(),
        },
        rlimits: vec![],
        umask: 0o022,
        capabilities: CapSet::SANDBOX,
        oom_score_adj: Some(100),
    })?;
    // As an init: everybody's orphans, until the script itself ends.
    while wait(WaitOptions::empty())?.is_some_and(|(pid, _)| pid != child.pid) {}
    Ok(())
}
