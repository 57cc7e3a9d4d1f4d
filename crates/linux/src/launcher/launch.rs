//! The launcher's side of starting a sandbox.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::message::{
    CgroupJoin, Directory, Failure, LISTEN_FD, LaunchSpec, Launched, Network, Timing,
};
use super::plan::{Attached, Plan};
use super::report::{Report, Shared, Step, now};
use super::{InNetns, child, pipe};
use crate::netns::OwnedPair;
use crate::overlay::{self, OverlayError};
use crate::process::{Identity, kill, wait_ended};
use crate::seccomp::Filter;
use crate::sys::{self, Forked};

/// The most directories of the host's in one sandbox.
const MAX_DIRECTORIES: usize = 64;

/// How long the child may take to reach its program.
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);

/// Beside the user namespace and the network.
const NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;

/// What the launcher keeps between launches.
pub(super) struct Tools<'a> {
    pub(super) home_netns: BorrowedFd<'a>,
    pub(super) filter: &'a Filter,
    pub(super) mapping: BorrowedFd<'a>,
}

/// A new sandbox.
pub(super) struct Made {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) launched: Launched,
}

/// Notes when steps began.
struct Clock {
    marks: Vec<(&'static str, u64)>,
}

impl Clock {
    fn mark(&mut self, name: &'static str) {
        self.marks.push((name, now()));
    }

    /// Each step lasts until the next one begins, in whichever process.
    fn timing(mut self, report: &Report) -> Timing {
        let end = now();
        self.marks.extend(report.began());
        self.marks.sort_by_key(|(_, at)| *at);
        let ends = self.marks.iter().skip(1).map(|(_, at)| *at).chain([end]);
        let spans = self.marks.iter().zip(ends);
        let micros = |from: u64, to: u64| u32::try_from((to - from) / 1000).unwrap_or(u32::MAX);
        Timing(
            spans
                .map(|((name, from), to)| ((*name).to_owned(), micros(*from, to)))
                .collect(),
        )
    }
}

/// Starts a sandbox; on failure nothing of it is left.
pub(super) fn launch(
    spec: &LaunchSpec,
    given: Vec<OwnedFd>,
    tools: &Tools<'_>,
) -> Result<Made, Failure> {
    let mut clock = Clock {
        marks: Vec::with_capacity(32),
    };
    clock.mark("overlay");
    let (root, _) = overlay::mount(&spec.layers, &spec.upper_dir, tools.mapping)
        .map_err(|e| root_failure(&e))?;
    clock.mark("directories");
    let directories = directories(spec, tools.mapping)?;
    clock.mark("network namespace");
    let network = Namespaces::of(spec, given)?;
    let failed = |step: &'static str| move |e: io::Error| Failure::io(step, None, &e);
    let shared = Shared::new().map_err(failed("shared page"))?;
    let (go, go_writer) = pipe().map_err(failed("pipe"))?;
    let (done, mut done_writer) = pipe().map_err(failed("pipe"))?;
    if done_writer.as_raw_fd() == LISTEN_FD {
        // The child puts its socket there, which must not look like its execve.
        done_writer = rustix::io::fcntl_dupfd_cloexec(&done_writer, LISTEN_FD + 1)
            .map_err(|e| Failure::io("pipe", None, &e.into()))?;
    }
    let cgroup = spec.cgroup.unified.as_deref().map(open_dir).transpose()?;
    let inside = network.enter(tools).map_err(failed("network namespace"))?;
    clock.mark("sysfs");
    let sysfs = match &inside {
        Some(_) => Some(sysfs().map_err(failed("sysfs"))?),
        None => None,
    };
    clock.mark("prepare");
    let plan = Plan::new(spec, tools.filter, root, sysfs, directories, go)?;
    clock.mark("clone");
    let mut child = || -> () { child::run(&plan, shared.report(), go_writer.as_raw_fd()) };
    let (pid, pidfd) = network
        .clone_child(cgroup.as_ref().map(AsFd::as_fd), &mut child)
        .map_err(failed("clone"))?;
    drop((inside, done_writer));
    let started = admit(spec, pid, &mut clock)
        .and_then(|()| release(&go_writer))
        .and_then(|()| watch(spec, &plan, &done, shared.report()))
        .and_then(|()| {
            clock.mark("identity");
            Identity::read(pid.as_raw_nonzero().get() as u32).map_err(failed("identity"))
        });
    match started {
        Ok(identity) => {
            let timing = clock.timing(shared.report());
            Ok(Made {
                pid,
                pidfd,
                launched: Launched { identity, timing },
            })
        }
        Err(failure) => {
            abandon(pid, &pidfd);
            Err(failure)
        }
    }
}

/// Id-mapped copies of the host's directories.
fn directories(spec: &LaunchSpec, mapping: BorrowedFd<'_>) -> Result<Vec<Attached>, Failure> {
    if spec.directories.len() > MAX_DIRECTORIES {
        return Err(Failure::refused("request", "too many directories"));
    }
    let attached = |directory: &Directory| {
        let tree = map_directory(&directory.source, mapping)?;
        Attached::new(tree, &directory.path)
    };
    spec.directories.iter().map(attached).collect()
}

pub(super) fn map_directory(source: &str, mapping: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    crate::idmap::mapped_directory(source, mapping)
        .map_err(|e| Failure::io("map a directory", Some(source), &e))
}

pub(super) fn root_failure(error: &OverlayError) -> Failure {
    match error {
        OverlayError::Map { path, source } => Failure::io("overlay", Some(path), source),
        OverlayError::Mount { step, source } => {
            let mut failure = Failure::io("overlay", None, source);
            failure.detail = format!("{step} ({source})");
            failure
        }
        OverlayError::Layers(_) => Failure::refused("overlay", error.to_string()),
    }
}

/// Where the sandbox's network is, and with it who owns it.
enum Namespaces {
    OfHost(OwnedFd),
    OfSandbox(OwnedPair),
}

impl Namespaces {
    fn of(spec: &LaunchSpec, given: Vec<OwnedFd>) -> Result<Self, Failure> {
        let mut given = given.into_iter();
        let mut next = |what| {
            let none = || Failure::refused("network namespace", what);
            given.next().ok_or_else(none)
        };
        match spec.network {
            Network::Given => Ok(Self::OfHost(next("none was sent")?)),
            Network::Owned => Ok(Self::OfSandbox(OwnedPair {
                network: next("none was sent")?,
                user: next("its owner was not sent")?,
            })),
            Network::Isolated => crate::netns::create()
                .map(Self::OfHost)
                .map_err(|e| Failure::io("network namespace", None, &e)),
        }
    }

    /// Goes where the child is to be cloned from, if that is not here.
    fn enter<'a>(&self, tools: &Tools<'a>) -> io::Result<Option<InNetns<'a>>> {
        match self {
            Self::OfHost(netns) => InNetns::enter(netns.as_fd(), tools.home_netns).map(Some),
            Self::OfSandbox(_) => Ok(None),
        }
    }

    fn clone_child(
        &self,
        cgroup: Option<BorrowedFd<'_>>,
        child: &mut dyn FnMut(),
    ) -> io::Result<(Pid, OwnedFd)> {
        match self {
            Self::OfHost(_) => {
                let flags = NAMESPACES | libc::CLONE_NEWUSER;
                // SAFETY: the launcher has one thread, and the child keeps to `child::run`'s rules.
                match unsafe { sys::clone3(flags, cgroup) }? {
                    Forked::Child => {
                        child();
                        // SAFETY: ends the child, which does not come here.
                        unsafe { libc::_exit(127) }
                    }
                    Forked::Parent { pid, pidfd } => Ok((pid, pidfd)),
                }
            }
            Self::OfSandbox(pair) => {
                let pair = (pair.network.as_fd(), pair.user.as_fd());
                // SAFETY: as above.
                unsafe { sys::clone3_in(pair, NAMESPACES, cgroup, child) }
            }
        }
    }
}

fn open_dir(path: &str) -> Result<OwnedFd, Failure> {
    use rustix::fs::{Mode, OFlags, open};
    open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| Failure::io("cgroup", Some(path), &e.into()))
}

/// The sysfs of the network namespace we are in, read-only.
fn sysfs() -> io::Result<OwnedFd> {
    let fs = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(fs.as_fd())?;
    let strict = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, strict)?)
}

/// Gives the waiting child its ids and its limits.
fn admit(spec: &LaunchSpec, pid: Pid, clock: &mut Clock) -> Result<(), Failure> {
    let pid = pid.as_raw_nonzero().get() as u32;
    clock.mark("id maps");
    crate::idmap::write_maps(pid, &crate::idmap::sandbox_map(spec.uid_base))
        .map_err(|e| Failure::io("id maps", None, &e))?;
    clock.mark("cgroups");
    join(&spec.cgroup, pid)?;
    if let Some(score) = spec.oom_score_adj {
        // Lowering needs CAP_SYS_RESOURCE; without it init has the score of its children.
        let path = format!("/proc/{pid}/oom_score_adj");
        let _ = sys::write_file(&path, score.to_string().as_bytes());
    }
    clock.mark("release");
    Ok(())
}

fn join(cgroup: &CgroupJoin, pid: u32) -> Result<(), Failure> {
    for dir in &cgroup.split {
        let path = format!("{dir}/cgroup.procs");
        sys::write_file(&path, pid.to_string().as_bytes())
            .map_err(|e| Failure::io("cgroup", Some(&path), &e))?;
    }
    Ok(())
}

fn release(go: &OwnedFd) -> Result<(), Failure> {
    rustix::io::write(go, b"g").map_err(|e| Failure::io("release", None, &e.into()))?;
    Ok(())
}

/// Waits until the child's end of the pipe closes: by execve, or by its end.
fn watch(
    spec: &LaunchSpec,
    plan: &Plan<'_>,
    done: &OwnedFd,
    report: &Report,
) -> Result<(), Failure> {
    let ended = wait_ended(done.as_fd(), SETUP_TIMEOUT)
        .map_err(|e| Failure::io("wait for the child", None, &e))?;
    if let Some((step, item, errno)) = report.failure() {
        let path = failed_path(spec, plan, step, item);
        let error = io::Error::from_raw_os_error(errno);
        return Err(Failure::io(step.name(), path.as_deref(), &error));
    }
    match (ended, report.step()) {
        (true, Step::Exec) => Ok(()),
        (true, step) => Err(Failure::refused(step.name(), "the child was killed")),
        (false, step) => Err(Failure::refused(step.name(), "the child took too long")),
    }
}

fn failed_path(spec: &LaunchSpec, plan: &Plan<'_>, step: Step, item: usize) -> Option<String> {
    match step {
        Step::Exec => Some(spec.program.clone()),
        Step::Directories => spec.directories.get(item).map(|one| one.path.clone()),
        Step::Mounts => child::ATTACHED
            .get(item)
            .map(|path| path.to_string_lossy().into_owned()),
        Step::Mask => plan
            .masked
            .iter()
            .map(super::plan::Masked::path)
            .chain(&plan.readonly)
            .nth(item)
            .map(|path| path.to_string_lossy().into_owned()),
        _ => None,
    }
}

fn abandon(pid: Pid, pidfd: &OwnedFd) {
    let _ = kill(pidfd);
    let _ = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
}
