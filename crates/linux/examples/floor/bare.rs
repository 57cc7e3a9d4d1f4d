//! What the kernel asks for at the least: clone3 into new namespaces, an overlay, `pivot_root`,
//! `execve`. No id-mapped layers, cgroups, /proc, /dev, /sys, masks or filter.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC;

/// Which namespaces.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Net {
    Shared,
    Own,
}

/// Round trips over `base`, which has `/usr/bin/sleep`; each ends when the program is running.
pub(crate) fn rounds(dir: &Path, base: &Path, net: Net, count: usize) -> io::Result<Vec<Duration>> {
    let flags = match net {
        Net::Shared => NAMESPACES,
        Net::Own => NAMESPACES | libc::CLONE_NEWNET,
    };
    let mut times = Vec::with_capacity(count);
    for round in 0..count {
        let place = dir.join(format!("bare-{net:?}-{round}"));
        for name in ["u", "w", "root"] {
            fs::create_dir_all(place.join(name))?;
        }
        let plan = Plan::new(base, &place)?;
        let begun = Instant::now();
        let pid = one(&plan, flags)?;
        times.push(begun.elapsed());
        // SAFETY: our own child, not yet waited for.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
        fs::remove_dir_all(place)?;
    }
    Ok(times)
}

struct Plan {
    root: CString,
    options: CString,
}

impl Plan {
    fn new(base: &Path, place: &Path) -> io::Result<Self> {
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            base.display(),
            place.join("u").display(),
            place.join("w").display()
        );
        Ok(Self {
            root: CString::new(place.join("root").as_os_str().as_bytes())?,
            options: CString::new(options)?,
        })
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors, which are ours then.
    unsafe {
        if libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

fn one(plan: &Plan, flags: i32) -> io::Result<i32> {
    let (go, go_writer) = pipe()?;
    let (done, done_writer) = pipe()?;
    let pid = clone3(flags)?;
    if pid == 0 {
        enter(
            plan,
            go.as_raw_fd(),
            go_writer.as_raw_fd(),
            done_writer.as_raw_fd(),
        );
    }
    drop(done_writer);
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{file}"), "0 0 65536\n")?;
    }
    rustix::io::write(&go_writer, b"g")?;
    let mut byte = [0];
    match rustix::io::retry_on_intr(|| rustix::io::read(&done, &mut byte))? {
        0 => Ok(pid),
        _ => Err(io::Error::other(format!(
            "the child failed at step {}",
            byte[0]
        ))),
    }
}

fn clone3(flags: i32) -> io::Result<i32> {
    // SAFETY: all zero is valid; without a stack it is a fork, of a process with one thread.
    unsafe {
        let mut args: libc::clone_args = std::mem::zeroed();
        args.flags = flags as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        let size = std::mem::size_of_val(&args);
        match libc::syscall(libc::SYS_clone3, &raw mut args, size) {
            -1 => Err(io::Error::last_os_error()),
            pid => Ok(pid as i32),
        }
    }
}

/// The child: system calls only. A failure is told by the number of its step.
fn enter(plan: &Plan, go: i32, go_writer: i32, done: i32) -> ! {
    let none = std::ptr::null();
    let argv = [c"sleep".as_ptr(), c"1000".as_ptr(), none];
    let mount = |from: &CStr, to: &CStr, kind: &CStr, flags, data: &CStr| {
        let (from, to, kind) = (from.as_ptr(), to.as_ptr(), kind.as_ptr());
        // SAFETY: strings that end in NUL.
        unsafe { libc::mount(from, to, kind, flags, data.as_ptr().cast()) }
    };
    let mut byte = [0u8];
    // SAFETY: descriptors and strings of our own; nothing is allocated and nothing is locked.
    unsafe {
        libc::close(go_writer);
        let steps: [&dyn Fn(*mut u8) -> bool; 5] = [
            &|byte| libc::read(go, byte.cast(), 1) == 1,
            &|_| mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE, c"") == 0,
            &|_| mount(c"overlay", &plan.root, c"overlay", 0, &plan.options) == 0,
            &|_| {
                libc::chdir(plan.root.as_ptr()) == 0
                    && libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) == 0
                    && libc::umount2(c".".as_ptr(), libc::MNT_DETACH) == 0
                    && libc::chdir(c"/".as_ptr()) == 0
            },
            &|_| libc::execve(c"/usr/bin/sleep".as_ptr(), argv.as_ptr(), &raw const none) == 0,
        ];
        let failed = steps.iter().position(|step| !step(byte.as_mut_ptr()));
        byte[0] = failed.unwrap_or(0) as u8 + 1;
        libc::write(done, byte.as_ptr().cast(), 1);
        libc::_exit(127)
    }
}
