//! The self-test's init in a sandbox with a network of its own, to be checkpointed and restored.
#![allow(dead_code, reason = "each test program uses a part")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount,
};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use woodfrog_linux::cgroup::Group;
use woodfrog_linux::criu::{
    After, Criu, DumpSpec, Found, Images, NetworkMode, Notify, PageDaemon, RestoreSpec, RpcError,
    SUBJECT_PORT, default_prefix, dump, find, restore, restore_lazily,
};
use woodfrog_linux::launcher::{Call, Event, Network};
use woodfrog_linux::netns;
use woodfrog_linux::process::{kill, wait_ended};
use woodfrog_linux::seccomp::SeccompPolicy;

use crate::common::{Bench, TIMEOUT};

const UID_BASE: u32 = 1_000_000;

pub(crate) struct Napper {
    pub(crate) bench: Bench,
    pub(crate) criu: Criu,
    pub(crate) timeout: Duration,
    init: Option<(u32, OwnedFd)>,
    /// A restored init is our child.
    ours: bool,
    restores: u32,
    /// One at a time: the children of this process are all its own.
    _alone: MutexGuard<'static, ()>,
}

impl Napper {
    pub(crate) fn new() -> Option<Self> {
        Self::holding(0)
    }

    /// With so much memory that is not zero.
    pub(crate) fn holding(bytes: u64) -> Option<Self> {
        let bytes = bytes.to_string();
        let argv = ["init", "__checkpoint-subject", &bytes];
        Self::running("/usr/bin/init", &argv, SeccompPolicy::default())
    }

    /// Another init.
    pub(crate) fn running(program: &str, argv: &[&str], seccomp: SeccompPolicy) -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        // Before anything that makes children.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut criu = match find(&default_prefix()) {
            Found::Suitable(criu) => criu,
            other => {
                println!("NOT RUN: no CRIU that suits this kernel ({other:?})");
                return None;
            }
        };
        criu.warm().unwrap();
        let mut bench = Bench::new();
        let mut spec = bench.spec("a", "");
        spec.program = program.to_owned();
        spec.argv = argv.iter().map(|&text| text.to_owned()).collect();
        spec.network = Network::Owned;
        spec.seccomp = seccomp;
        let pair = netns::create_owned().unwrap();
        let fds = [pair.network.as_fd(), pair.user.as_fd()];
        let call = Call::Launch(Box::new(spec));
        let (event, mut given) = bench.client.call(call, &fds, TIMEOUT).unwrap();
        let Event::Launched(launched) = event else {
            panic!("{event:?}")
        };
        let napper = Self {
            bench,
            criu,
            timeout: TIMEOUT,
            init: Some((launched.identity.pid, given.remove(0))),
            ours: false,
            restores: 0,
            _alone: alone,
        };
        for name in ["images", "work", "root"] {
            fs::create_dir(napper.path(name)).unwrap();
        }
        let images = napper.path("images");
        chown(&images, Some(0), Some(UID_BASE)).unwrap();
        fs::set_permissions(&images, fs::Permissions::from_mode(0o750)).unwrap();
        Some(napper)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bench.dir.path().join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.init.as_ref().unwrap().0
    }

    /// What the init says.
    pub(crate) fn ask(&self) -> String {
        let pid = self.pid();
        let talk = move || {
            let network = netns::of_process(pid).unwrap();
            netns::enter(network.as_fd()).unwrap();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, SUBJECT_PORT));
            let deadline = Instant::now() + TIMEOUT;
            let mut stream = loop {
                match TcpStream::connect_timeout(&address, TIMEOUT) {
                    Ok(stream) => break stream,
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
                std::thread::sleep(Duration::from_millis(2));
            };
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        // A thread of its own, which ends in the sandbox's network.
        std::thread::spawn(talk).join().unwrap()
    }

    fn images(&self) -> Images {
        Images {
            images: self.path("images"),
            work: self.path("work"),
        }
    }

    pub(crate) fn dump(&self, after: After, notify: Notify<'_>) -> Result<(), RpcError> {
        let spec = DumpSpec {
            pid: self.pid(),
            network: NetworkMode::Owned,
            images: &self.images(),
            after,
            external: &[],
            timeout: self.timeout,
        };
        dump(&self.criu, &spec, notify)?;
        if after == After::Killed {
            let init = &self.init.as_ref().unwrap().1;
            assert!(wait_ended(init.as_fd(), TIMEOUT).unwrap());
        }
        Ok(())
    }

    pub(crate) fn restore(
        &mut self,
        group: Option<&Group>,
        notify: Notify<'_>,
    ) -> Result<(), RpcError> {
        self.restore_by(group, |criu, spec| {
            restore(criu, spec, notify).map(|pid| (pid, ()))
        })
    }

    pub(crate) fn restore_lazily(&mut self) -> Result<PageDaemon, RpcError> {
        let outcome = self.path("paged");
        self.restore_by(None, |criu, spec| {
            let daemon = PageDaemon::start(criu, spec.images, &outcome, spec.timeout)?;
            let init = restore_lazily(criu, spec, &daemon, &mut |_| Ok(()))?;
            Ok((init, daemon))
        })
    }

    /// On what the sandbox had written, as a layer.
    fn restore_by<T>(
        &mut self,
        group: Option<&Group>,
        restore: impl FnOnce(&Criu, &RestoreSpec<'_>) -> Result<(u32, T), RpcError>,
    ) -> Result<T, RpcError> {
        self.restores += 1;
        let upper = self.path(&format!("upper{}", self.restores));
        for part in ["u", "w"] {
            fs::create_dir_all(upper.join(part)).unwrap();
        }
        let spec = self.bench.spec("a", "");
        let mut layers = vec![format!("{}/u", spec.upper_dir)];
        layers.extend(spec.layers);
        let mount = Call::MountOverlay {
            layers,
            upper_dir: upper.to_str().unwrap().to_owned(),
            uid_base: UID_BASE,
        };
        let (_, mut fds) = self.bench.client.call(mount, &[], TIMEOUT).unwrap();
        let root = self.path("root");
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(fds.remove(0), "", rustix::fs::CWD, &root, flags).unwrap();
        mount_change(&root, MountPropagationFlags::PRIVATE).unwrap();
        let spec = RestoreSpec {
            root: &root,
            network: NetworkMode::Owned,
            images: &self.images(),
            external: &[],
            trees: &[],
            group,
            timeout: self.timeout,
        };
        let restored = restore(&self.criu, &spec);
        unmount(&root, UnmountFlags::DETACH).unwrap();
        let (pid, more) = restored?;
        self.end();
        let raw = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).unwrap();
        self.init = Some((pid, pidfd));
        self.ours = true;
        Ok(more)
    }

    /// Ends the sandbox.
    pub(crate) fn end(&mut self) {
        let Some((pid, pidfd)) = self.init.take() else {
            return;
        };
        kill(&pidfd).unwrap();
        assert!(wait_ended(pidfd.as_fd(), TIMEOUT).unwrap());
        if self.ours {
            let raw = Pid::from_raw(i32::try_from(pid).unwrap());
            waitpid(raw, WaitOptions::empty()).unwrap();
        }
    }

    /// All its processes: those of the init's pid namespace.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let world = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let here = world(self.pid());
        assert!(here.is_some(), "the init lives");
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut pids: Vec<u32> = pids.filter(|pid| world(*pid) == here).collect();
        pids.sort_unstable();
        pids
    }

    /// What its init has written to this file, once it is there.
    pub(crate) fn said(&self, name: &str) -> bool {
        self.path(&format!("a/u/{name}")).exists()
    }

    /// What is hidden and what is in memory, as the launcher has made it.
    pub(crate) fn is_masked(&self) {
        let inside = |path: &str| PathBuf::from(format!("/proc/{}/root{path}", self.pid()));
        for path in ["/proc/acpi", "/proc/scsi", "/sys/firmware"] {
            if fs::metadata(path).is_ok() {
                assert_eq!(fs::read_dir(inside(path)).unwrap().count(), 0, "{path}");
            }
        }
        for path in ["/proc/keys", "/proc/timer_list", "/proc/kcore"] {
            if fs::metadata(path).is_ok() {
                assert_eq!(fs::read(inside(path)).unwrap(), b"", "{path}");
            }
        }
        let mode = fs::metadata(inside("/dev/shm")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o7777, 0o1777);
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", self.pid())).unwrap();
        let of = |line: &str| line.split(' ').nth(2).unwrap().to_owned();
        let all = |kind| mounts.lines().filter(|line| of(line) == kind).count();
        assert_eq!((all("tmpfs"), all("sysfs")), (2, 1), "{mounts}");
    }

    /// Kills the worker at work.
    pub(crate) fn kill_criu(&self) {
        let work = self.path("work");
        let ourselves = std::process::id();
        let pid = fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse::<i32>().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            let works_here = fs::read_link(entry.path().join("fd/2"))
                .ok()?
                .starts_with(&work);
            (works_here && parent == ourselves.to_string()).then_some(pid)
        });
        let pid = Pid::from_raw(pid.unwrap()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        kill(&pidfd).unwrap();
        assert!(wait_ended(pidfd.as_fd(), TIMEOUT).unwrap());
    }

    /// No children but the launcher and the sandbox; nobody complains into our directory.
    pub(crate) fn nothing_is_left(&self) {
        let launcher = self.bench.launcher.as_raw_nonzero().get().unsigned_abs();
        let init = self.init.as_ref().map(|(pid, _)| *pid);
        let work = self.path("work");
        let ourselves = std::process::id().to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            let parent = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1);
            let works_here =
                fs::read_link(entry.path().join("fd/2")).is_ok_and(|to| to.starts_with(&work));
            let left = works_here || parent == Some(&ourselves);
            assert!(!left || pid == launcher || Some(pid) == init, "{stat}");
        }
    }
}

impl Drop for Napper {
    fn drop(&mut self) {
        self.end();
    }
}

/// A network beside the sandbox's, with one address on their link.
pub(crate) struct Outside {
    network: OwnedFd,
    links: u32,
}

impl Outside {
    pub(crate) fn new() -> Self {
        Self {
            network: netns::create().unwrap(),
            links: 0,
        }
    }

    /// Connects the network of a process: it is 10.77.0.2 and we are 10.77.0.1.
    pub(crate) fn link(&mut self, pid: u32) {
        let old = format!("link del out{}", self.links);
        self.links += 1;
        let ours = format!("out{}", self.links);
        let peer = format!("peer name eth0 address 02:77:00:00:00:02 netns {pid}");
        within(self.network.as_fd(), || {
            if self.links > 1 {
                // It may have gone with the other end.
                let _ = ip(&old);
            }
            let add = format!("link add {ours} address 02:77:00:00:00:01 type veth {peer}");
            assert!(ip(&add));
            assert!(ip(&format!("addr add 10.77.0.1/24 dev {ours}")));
            assert!(ip(&format!("link set {ours} up")));
        });
        within(netns::of_process(pid).unwrap().as_fd(), || {
            assert!(ip("addr add 10.77.0.2/24 dev eth0"));
            assert!(ip("link set eth0 up"));
        });
    }

    pub(crate) fn connect(&self, port: u16) -> TcpStream {
        let address = SocketAddr::from((Ipv4Addr::new(10, 77, 0, 2), port));
        let deadline = Instant::now() + TIMEOUT;
        within(self.network.as_fd(), || {
            loop {
                match TcpStream::connect_timeout(&address, TIMEOUT) {
                    Ok(stream) => break stream,
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        })
    }
}

fn ip(arguments: &str) -> bool {
    let ip = Command::new("ip").args(arguments.split(' ')).status();
    ip.unwrap().success()
}

/// In a thread of its own, which ends in that network.
fn within<T: Send>(network: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        netns::enter(network).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
}

/// Traces a process until dropped.
pub(crate) struct Tracer(Child);

impl Tracer {
    pub(crate) fn of(pid: &str) -> Self {
        // PTRACE_SEIZE does not stop it.
        let script = "syscall(101, 0x4206, $ARGV[0] + 0, 0, 0) == 0 or die $!; \
                      $| = 1; print \"on\\n\"; sleep 1000";
        let mut child = Command::new("perl")
            .args(["-e", script, pid])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "on\n");
        Self(child)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
