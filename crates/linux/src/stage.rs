//! Starting a program of the host's for a sandbox: in the sandbox's cgroups and network namespace,
//! in a mount namespace of its own with the sandbox's root file system in it.
//!
//! The server has threads and never forks, and what has to be done between fork and `execve` here
//! (a mount by path, for one) is too much for [`crate::spawn`]. So it executes itself as a small
//! process with one thread, which does it and becomes the program. Nothing is left in the host's
//! mount table: the mounts go with the last process that is in their namespace.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    fsconfig_create, fsmount, fsopen, mount_change, move_mount,
};
use serde::{Deserialize, Serialize};

use crate::cgroup::Hierarchies;
use crate::command::{self, Ran};

/// The hidden subcommand that makes a binary of ours do this.
pub const SUBCOMMAND: &str = "__stage";
/// What the kernel shows of the network namespace of who looks.
const SYSCTL_NET: &str = "/proc/sys/net";

/// A program and what it is started in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stage {
    /// The group of [`Hierarchies`] to be in. It exists.
    pub cgroup: Option<String>,
    /// Mounts, in a namespace of its own.
    pub mounts: Option<Mounts>,
    /// What it does with its output.
    pub output: Output,
    /// The program's path and its arguments.
    pub argv: Vec<String>,
}

/// The mounts of a [`Stage`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mounts {
    /// Directories of the root file system, top first.
    pub layers: Vec<String>,
    /// Holds `u/` and `w/`.
    pub upper_dir: String,
    /// Where the root file system goes.
    pub at: String,
    /// Hide `/proc/sys/net`.
    pub hide_sysctl_net: bool,
}

/// Where a program's output goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// To whoever runs it.
    #[default]
    Told,
    /// Nowhere, as what it leaves running would hold on to it.
    Dropped,
}

/// What a program did.
#[derive(Debug)]
pub struct Done {
    /// Its exit code, if it had one.
    pub code: Option<i32>,
    /// What it wrote, both streams; with [`Output::Dropped`] what went wrong before it began.
    pub output: String,
}

/// Runs it in `netns`, if there is one, and waits for its end; it is killed after `timeout`. Blocks.
/// The calling program must turn to [`stage_main`] when its first argument is [`SUBCOMMAND`].
///
/// # Errors
/// It could not be started, or took too long.
pub fn run(stage: &Stage, netns: Option<OwnedFd>, timeout: Duration) -> io::Result<Done> {
    let spec = serde_json::to_string(stage)?;
    let argv = ["/proc/self/exe", SUBCOMMAND, &spec];
    let stdin = match netns {
        Some(netns) => netns,
        None => File::open("/dev/null")?.into(),
    };
    let Ran { code, output } = command::run_reading(&argv, &[], stdin, timeout)?;
    Ok(Done { code, output })
}

/// The process that does it; `spec` is its second argument.
pub fn stage_main(spec: Option<&str>) -> ! {
    // Descriptors beyond these were not meant for anybody here.
    let done = crate::selfctl::cloexec_from(3).and_then(|()| become_it(spec.unwrap_or_default()));
    let error = match done {
        Ok(never) => match never {},
        Err(error) => error,
    };
    eprintln!("stage: {error}");
    std::process::exit(127)
}

fn become_it(spec: &str) -> io::Result<std::convert::Infallible> {
    let stage: Stage = serde_json::from_str(spec)?;
    if let Some(name) = &stage.cgroup {
        let group = Hierarchies::detect()?.group(name);
        group
            .add(std::process::id())
            .map_err(|e| told("join the cgroup", &e))?;
    }
    let stdin = rustix::stdio::stdin();
    if is_namespace(stdin)? {
        crate::netns::enter(stdin).map_err(|e| told("enter the network namespace", &e))?;
    }
    if let Some(mounts) = &stage.mounts {
        mount(mounts)?;
    }
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let (program, args) = stage
        .argv
        .split_first()
        .ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(args);
    // What goes wrong from here on is still told: this descriptor closes when the program begins.
    let told_to = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)?;
    if stage.output == Output::Dropped {
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
    }
    let error = command.exec();
    if stage.output == Output::Dropped {
        rustix::stdio::dup2_stderr(&told_to)?;
    }
    Err(told(program, &error))
}

fn told(step: &str, error: &dyn std::error::Error) -> io::Error {
    let mut text = format!("{step}: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    io::Error::other(text)
}

/// A namespace's descriptor is told from `/dev/null` by its file system.
fn is_namespace(fd: impl AsFd) -> io::Result<bool> {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    Ok(rustix::fs::fstatfs(fd)?.f_type as u64 == NSFS_MAGIC)
}

fn mount(mounts: &Mounts) -> io::Result<()> {
    // SAFETY: no pointers; this process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
        return Err(told("mount namespace", &io::Error::last_os_error()));
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|e| told("private mounts", &e))?;
    let root = crate::overlay::mount_unmapped(&mounts.layers, &mounts.upper_dir)
        .map_err(|e| told("root file system", &e))?;
    attach(&root, &mounts.at).map_err(|e| told(&mounts.at, &e))?;
    if mounts.hide_sysctl_net {
        empty_over(SYSCTL_NET).map_err(|e| told(SYSCTL_NET, &e))?;
    }
    Ok(())
}

fn attach(tree: &OwnedFd, at: &str) -> io::Result<()> {
    let at = CString::new(at)?;
    let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(
        tree,
        c"",
        rustix::fs::CWD,
        at.as_c_str(),
        whole,
    )?)
}

fn empty_over(path: &str) -> io::Result<()> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(fs.as_fd())?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    attach(
        &fsmount(fs.as_fd(), flags, MountAttrFlags::MOUNT_ATTR_RDONLY)?,
        path,
    )
}
