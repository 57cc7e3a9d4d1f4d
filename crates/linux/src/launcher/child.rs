//! What becomes a sandbox's init, between clone3 and execve.
//!
//! The child has a copy of the launcher's memory. It allocates nothing, takes no lock and does not
//! panic: everything it needs is in the plan, and what it opens it leaks to execve.
//!
//! Paths are resolved only after the change of root: the layers are not trusted, and a symbolic
//! link in them must not lead to the host.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, FdFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount_change, move_mount, open_tree, unmount,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use super::message::LISTEN_FD;
use super::plan::{Listen, Masked, Plan};
use super::report::{Report, Step};
use crate::caps::CapSet;
use crate::spawn::errno;
use crate::sys;

/// Connections that may wait until init accepts.
const LISTEN_BACKLOG: i32 = 128;

/// Sets the sandbox up and starts its init. `go_writer` is the launcher's end of the pipe.
pub(super) fn run(plan: &Plan<'_>, report: &Report, go_writer: RawFd) -> ! {
    if let Err(errno) = enter(plan, report, go_writer) {
        report.fail(errno);
    }
    // SAFETY: ends the child without running anything registered by the launcher.
    unsafe { libc::_exit(127) }
}

fn raw(error: Errno) -> i32 {
    error.raw_os_error()
}

fn ok(rc: i64) -> Result<(), i32> {
    if rc < 0 { Err(errno()) } else { Ok(()) }
}

fn enter(plan: &Plan<'_>, report: &Report, go_writer: RawFd) -> Result<(), i32> {
    report.begin(Step::Wait);
    wait_for_go(plan, go_writer)?;
    report.begin(Step::Identity);
    identity()?;
    report.begin(Step::CgroupNamespace);
    // SAFETY: concerns this process alone.
    ok(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }.into())?;
    report.begin(Step::Private);
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(c"/", private).map_err(raw)?;
    report.begin(Step::Filesystems);
    let mounts = Filesystems::make(plan).map_err(raw)?;
    report.begin(Step::Root);
    change_root(plan).map_err(raw)?;
    report.begin(Step::Mounts);
    mounts.attach(plan, report).map_err(raw)?;
    report.begin(Step::Directories);
    directories(plan, report).map_err(raw)?;
    report.begin(Step::Mask);
    mask(plan, report)?;
    report.begin(Step::Listen);
    let listener = match &plan.listen {
        Some(listen) => Some(listening(listen).map_err(raw)?),
        None => None,
    };
    report.begin(Step::Hostname);
    rustix::system::sethostname(&plan.hostname).map_err(raw)?;
    report.begin(Step::Descriptors);
    descriptors(listener)?;
    report.begin(Step::Limits);
    for (item, limit) in (0..).zip(plan.rlimits) {
        report.item(item);
        limit.apply_raw()?;
    }
    report.begin(Step::Seccomp);
    plan.filter.install_raw()?;
    report.begin(Step::Capabilities);
    CapSet::SANDBOX.bound_raw()?;
    report.begin(Step::Exec);
    // SAFETY: NUL-terminated path and NULL-terminated vectors that live in the plan.
    unsafe { libc::execve(plan.program.as_ptr(), plan.argv.as_ptr(), plan.env.as_ptr()) };
    Err(errno())
}

/// Waits for the launcher's byte; if the launcher dies instead, so does the child.
fn wait_for_go(plan: &Plan<'_>, go_writer: RawFd) -> Result<(), i32> {
    // SAFETY: the child's own copy of the descriptor, which it does not use otherwise. With it
    // open the end of the pipe would never come.
    unsafe { libc::close(go_writer) };
    let mut byte = [0];
    match rustix::io::read(&plan.go, &mut byte).map_err(raw)? {
        0 => Err(libc::EPIPE),
        _ => Ok(()),
    }
}

fn identity() -> Result<(), i32> {
    rustix::process::setsid().map_err(raw)?;
    // SAFETY: raw calls that act on this task (the only one of its process).
    unsafe {
        libc::umask(0o022);
        ok(libc::syscall(libc::SYS_setresgid, 0, 0, 0))?;
        ok(libc::syscall(
            libc::SYS_setgroups,
            0,
            std::ptr::null::<u32>(),
        ))?;
        ok(libc::syscall(libc::SYS_setresuid, 0, 0, 0))
    }
}

/// File systems that must belong to the sandbox's namespaces, not yet attached. A new proc is
/// only given to who can see one, hence before the change of root.
struct Filesystems {
    proc: OwnedFd,
    sysfs: Option<OwnedFd>,
    devpts: OwnedFd,
    memory: OwnedFd,
}

type Option_<'a> = (&'static CStr, &'a CStr);

impl Filesystems {
    fn make(plan: &Plan<'_>) -> Result<Self, Errno> {
        let strict = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let noexec = MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let memory = [
            (c"mode", c"0755"),
            (c"size", &*plan.memory_size),
            (c"nr_inodes", &*plan.inodes),
        ];
        Ok(Self {
            proc: filesystem(c"proc", &[], &[], strict | noexec)?,
            sysfs: match plan.sysfs {
                Some(_) => None,
                None => {
                    let readonly = MountAttrFlags::MOUNT_ATTR_RDONLY;
                    Some(filesystem(c"sysfs", &[], &[], strict | noexec | readonly)?)
                }
            },
            devpts: filesystem(
                c"devpts",
                &[c"newinstance"],
                &[(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", c"5")],
                MountAttrFlags::MOUNT_ATTR_NOSUID | noexec,
            )?,
            memory: filesystem(c"tmpfs", &[], &memory, strict)?,
        })
    }

    fn attach(self, plan: &Plan<'_>, report: &Report) -> Result<(), Errno> {
        let sysfs = self.sysfs.as_ref().or(plan.sysfs.as_ref());
        let all = [
            Some(&self.proc),
            sysfs,
            Some(&self.devpts),
            Some(&self.memory),
        ];
        for (item, (mount, path)) in (0..).zip(all.into_iter().zip(ATTACHED)) {
            report.item(item);
            if let Some(mount) = mount {
                attach(mount.as_fd(), path)?;
            }
        }
        report.item(ATTACHED.len() as u32 - 1);
        attach(shared_memory()?.as_fd(), ATTACHED[4])?;
        Ok(())
    }
}

/// What becomes `/dev/shm`: a directory of `/run`, so that there is one tmpfs. A checkpoint packs up
/// each with `tar`, which takes longer than all else about it.
fn shared_memory() -> Result<OwnedFd, Errno> {
    rustix::fs::mkdir(SHARED_MEMORY, Mode::empty())?;
    // Apart from creation, because of the umask.
    rustix::fs::chmod(SHARED_MEMORY, Mode::from_raw_mode(0o1777))?;
    open_tree(
        CWD,
        SHARED_MEMORY,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
}

const SHARED_MEMORY: &CStr = c"/run/shm";

/// Where the file systems go, in the order of the report's items.
pub(super) const ATTACHED: [&CStr; 5] = [c"/proc", c"/sys", c"/dev/pts", c"/run", c"/dev/shm"];

fn filesystem(
    kind: &CStr,
    flags: &[&CStr],
    options: &[Option_<'_>],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for flag in flags {
        fsconfig_set_flag(fs.as_fd(), *flag)?;
    }
    for (key, value) in options {
        fsconfig_set_string(fs.as_fd(), *key, *value)?;
    }
    fsconfig_create(fs.as_fd())?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches a mount to a path whose last part is not a symbolic link.
fn attach(mount: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    move_mount(
        mount,
        c"",
        CWD,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

fn change_root(plan: &Plan<'_>) -> Result<(), Errno> {
    // Any directory that every host has will do; it vanishes with the old root.
    attach(plan.root.as_fd(), c"/sys")?;
    rustix::process::fchdir(&plan.root)?;
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

/// Attaches the host's directories. What is missing on the way is made as the sandbox's root; what
/// leads elsewhere by a symbolic link, or off the root file system, is refused.
fn directories(plan: &Plan<'_>, report: &Report) -> Result<(), Errno> {
    for (item, directory) in (0..).zip(&plan.directories) {
        report.item(item);
        let mut place = None;
        for path in &directory.way {
            place = Some(match open_place(path) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdir(path.as_c_str(), Mode::from_raw_mode(0o755))?;
                    open_place(path)?
                }
                opened => opened?,
            });
        }
        let place = place.ok_or(Errno::INVAL)?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&directory.tree, c"", &place, c"", flags)?;
    }
    Ok(())
}

fn open_place(path: &CStr) -> Result<OwnedFd, Errno> {
    openat2(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
}

fn mask(plan: &Plan<'_>, report: &Report) -> Result<(), i32> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mut item = 0;
    for masked in &plan.masked {
        report.item(item);
        item += 1;
        let cover = match masked {
            Masked::File(_) => open_tree(CWD, c"/dev/null", clone),
            Masked::Directory(_) => empty_directory(),
        };
        attach(cover.map_err(raw)?.as_fd(), masked.path()).map_err(raw)?;
    }
    for path in &plan.readonly {
        report.item(item);
        item += 1;
        let tree = open_tree(CWD, path.as_c_str(), clone).map_err(raw)?;
        sys::set_mount_raw(tree.as_fd(), sys::MOUNT_ATTR_RDONLY)?;
        attach(tree.as_fd(), path).map_err(raw)?;
    }
    Ok(())
}

/// A detached directory without anything in it. A checkpoint packs up each tmpfs with `tar`, so the
/// kernel's own empty directory is preferred, where it has one.
fn empty_directory() -> Result<OwnedFd, Errno> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, EMPTY, clone).or_else(|_| {
        filesystem(
            c"tmpfs",
            &[],
            &[(c"mode", c"0555"), (c"nr_inodes", c"1")],
            MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        )
    })
}

/// Was for line disciplines once; the kernel keeps it, and nothing can be made in there.
const EMPTY: &CStr = c"/proc/tty/ldisc";

/// The socket of init. Its peers see the process that calls `listen`, which is init from now on.
fn listening(listen: &Listen) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdir(&listen.dir, Mode::from_raw_mode(0o755))?;
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    // Bound inside a umask that denies everybody else: at no moment can another user connect.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    bind(&socket, &listen.address)?;
    rustix::process::umask(before);
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    Ok(socket)
}

/// Descriptors 0 to 2 opened inside (a checkpoint cannot hold the host's), the listening socket,
/// nothing else kept, and signals as a new program expects them.
fn descriptors(listener: Option<OwnedFd>) -> Result<(), i32> {
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty()).map_err(raw)?;
    for target in 0..3 {
        // SAFETY: this process has its own descriptor table; replaces 0 to 2 only.
        ok(unsafe { libc::dup2(null.as_raw_fd(), target) }.into())?;
    }
    let _ = null.into_raw_fd(); // may be one of the three
    let mut first_closed = 3;
    if let Some(listener) = listener {
        first_closed = LISTEN_FD as u32 + 1;
        if listener.as_raw_fd() == LISTEN_FD {
            let _ = rustix::io::fcntl_setfd(&listener, FdFlags::empty());
        } else {
            // SAFETY: as above; what was there is a host's descriptor that would end at execve.
            ok(unsafe { libc::dup2(listener.as_raw_fd(), LISTEN_FD) }.into())?;
        }
        let _ = listener.into_raw_fd();
    }
    // SAFETY: only flags in this process's own table.
    ok(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first_closed,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })?;
    crate::spawn::reset_signals();
    Ok(())
}
