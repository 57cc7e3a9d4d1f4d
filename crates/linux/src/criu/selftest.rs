//! The proof: a small sandbox is checkpointed, killed, and restored in a new network on a
//! restacked root file system, and goes on where it was. With a network of the sandbox's own an
//! open TCP connection goes on too.

mod root;

use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount,
};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use super::find::Criu;
use super::rpc::{
    self, After, DumpSpec, ExternalMount, Images, NetworkMode, RestoreSpec, RpcError,
};
use super::subject::PORT;
use crate::launcher::{
    Call, CgroupJoin, Client, Event, Failure, LaunchSpec, Network, TmpfsSizes, default_masked,
    start,
};
use crate::netns;
use crate::process::{kill, wait_ended};
use crate::seccomp::SeccompPolicy;
use crate::skeleton;
use crate::spawn::{SpawnError, Spawned};

const TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);
/// An id range for trying; nothing is kept on disk under it.
const UID_BASE: u32 = 1_000_000;
const ID: &str = "selftest";

/// How this program is started in its other roles: the arguments after its own path.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Arguments that make it a launcher (see [`crate::launcher::adopt_stdin`]).
    pub launcher: Vec<String>,
    /// Arguments that make it call [`super::subject_main`].
    pub subject: Vec<String>,
}

/// Whose the network of the self-test's sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The host's: see [`NetworkMode::HostOwned`].
    Host,
    /// The sandbox's own: see [`NetworkMode::Owned`].
    Sandbox,
}

/// A self-test that went well.
#[derive(Debug, Clone, Copy)]
pub struct SelfTest {
    /// From the request to the death of the sandbox.
    pub dump: Duration,
    /// From the request for a root file system and a network to the restored sandbox.
    pub restore: Duration,
}

/// Why checkpoints do not work here.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// The sandbox could not be made.
    #[error("preparing the sandbox")]
    Prepare(#[source] io::Error),
    /// The launcher could not be started.
    #[error("starting the launcher")]
    Launcher(#[from] SpawnError),
    /// The launcher refused.
    #[error("starting the sandbox")]
    Launch(#[from] Failure),
    /// The sandbox did not answer.
    #[error("the sandbox does not answer {0}")]
    Silent(&'static str, #[source] io::Error),
    /// No checkpoint.
    #[error("the checkpoint failed")]
    Dump(#[source] RpcError),
    /// No restore.
    #[error("the restore failed")]
    Restore(#[source] RpcError),
    /// It did not go on where it was.
    #[error("the restored sandbox says {found:?} instead of {expected:?}")]
    Changed {
        /// What it said.
        found: String,
        /// What it should have said.
        expected: String,
    },
}

/// Runs it, in a directory of its own below `state_dir`; nothing is left of it. Takes about a
/// tenth of a second.
pub fn selftest(
    criu: &Criu,
    program: &Program,
    state_dir: &Path,
    owner: Owner,
) -> Result<SelfTest, SelfTestError> {
    use SelfTestError as E;
    let scratch = Scratch::new(state_dir).map_err(E::Prepare)?;
    let mut bench = Bench::new(program, &scratch.0, owner)?;
    let (pid, netns) = bench.launch(program)?;
    expect(netns.as_fd(), 1, true, "after its start")?;
    expect(netns.as_fd(), 2, true, "after its start")?;
    let began = Instant::now();
    bench.dump(criu, pid, netns.as_fd())?;
    let dump = began.elapsed();
    let began = Instant::now();
    let (_restored, netns) = bench.restore(criu)?;
    let restore = began.elapsed();
    let connected = owner == Owner::Sandbox;
    expect(netns.as_fd(), 3, connected, "after its restore")?;
    expect(netns.as_fd(), 4, connected, "after its restore")?;
    Ok(SelfTest { dump, restore })
}

/// Asks the sandbox: the counter, the same through the terminal, whether the watch saw a file
/// being written, and whether its connection carried what it had under way.
fn expect(
    netns: BorrowedFd<'_>,
    count: u64,
    connected: bool,
    when: &'static str,
) -> Result<(), SelfTestError> {
    let found = ask(netns).map_err(|error| SelfTestError::Silent(when, error))?;
    let expected = format!("{count} {count} true {connected}\n");
    if found == expected {
        return Ok(());
    }
    Err(SelfTestError::Changed { found, expected })
}

fn ask(netns: BorrowedFd<'_>) -> io::Result<String> {
    let talk = || {
        crate::netns::enter(netns)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let deadline = Instant::now() + TIMEOUT;
        let stream = loop {
            match TcpStream::connect_timeout(&address, TIMEOUT) {
                // It has not come to listening yet.
                Err(error)
                    if error.kind() == io::ErrorKind::ConnectionRefused
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(POLL);
                }
                other => break other?,
            }
        };
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut text = String::new();
        stream.take(256).read_to_string(&mut text)?;
        Ok(text)
    };
    // A thread of its own, which ends in the sandbox's network.
    let panicked = |_| Err(io::Error::other("thread panicked"));
    std::thread::scope(|scope| scope.spawn(talk).join().unwrap_or_else(panicked))
}

/// The launcher and the directories; the launcher dies with it, and the sandbox too.
struct Bench<'a> {
    dir: &'a Path,
    client: Client,
    launcher: Spawned,
    init: Option<OwnedFd>,
    owner: Owner,
}

impl<'a> Bench<'a> {
    fn new(program: &Program, dir: &'a Path, owner: Owner) -> Result<Self, SelfTestError> {
        let path = c(&text(&program.path).map_err(SelfTestError::Prepare)?)?;
        let mut argv = vec![path.clone()];
        for argument in &program.launcher {
            argv.push(c(argument)?);
        }
        let (socket, launcher) = start(path, argv)?;
        Ok(Self {
            dir,
            client: Client::new(socket),
            launcher,
            init: None,
            owner,
        })
    }

    fn launch(&mut self, program: &Program) -> Result<(u32, OwnedFd), SelfTestError> {
        let spec = self.prepare(program).map_err(SelfTestError::Prepare)?;
        let pair = match self.owner {
            Owner::Host => None,
            Owner::Sandbox => Some(netns::create_owned().map_err(SelfTestError::Prepare)?),
        };
        let given = pair
            .as_ref()
            .map(|pair| [pair.network.as_fd(), pair.user.as_fd()]);
        let given = given.as_ref().map_or(&[][..], |fds| fds);
        let (event, mut fds) = self.call(Call::Launch(Box::new(spec)), given)?;
        let (Event::Launched(launched), Some(init)) = (event, fds.pop()) else {
            return Err(unexpected());
        };
        self.init = Some(init);
        let pid = launched.identity.pid;
        let network = netns::of_process(pid).map_err(SelfTestError::Prepare)?;
        Ok((pid, network))
    }

    fn prepare(&self, program: &Program) -> io::Result<LaunchSpec> {
        for part in [
            "upper/u", "upper/w", "upper2/u", "upper2/w", "images", "dump", "restore", "root",
            "sys",
        ] {
            fs::create_dir_all(self.dir.join(part))?;
        }
        skeleton::create(&self.dir.join("skeleton"), b"")?;
        root::create(&self.dir.join("base"), &program.path)?;
        // CRIU reads the images as the sandbox's root.
        let images = self.dir.join("images");
        chown(&images, Some(0), Some(UID_BASE))?;
        fs::set_permissions(&images, fs::Permissions::from_mode(0o750))?;
        let argv = std::iter::once("subject".to_owned()).chain(program.subject.iter().cloned());
        Ok(LaunchSpec {
            id: ID.to_owned(),
            hostname: ID.to_owned(),
            uid_base: UID_BASE,
            layers: self.layers(&["skeleton", "base"])?,
            upper_dir: text(&self.dir.join("upper"))?,
            network: match self.owner {
                Owner::Host => Network::Isolated,
                Owner::Sandbox => Network::Owned,
            },
            cgroup: CgroupJoin::default(),
            seccomp: SeccompPolicy::default(),
            rlimits: vec![],
            program: root::PROGRAM.to_owned(),
            argv: argv.collect(),
            env: vec![],
            tmpfs: TmpfsSizes {
                run: 1 << 20,
                shm: 1 << 20,
                inodes: 1024,
            },
            masked: default_masked(),
            readonly: vec!["/proc/sys".to_owned()],
            directories: Vec::new(),
            oom_score_adj: None,
            listen: None,
        })
    }

    fn layers(&self, names: &[&str]) -> io::Result<Vec<String>> {
        names
            .iter()
            .map(|name| text(&self.dir.join(name)))
            .collect()
    }

    fn call(
        &mut self,
        call: Call,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Event, Vec<OwnedFd>), SelfTestError> {
        match self.client.call(call, fds, TIMEOUT) {
            Ok((Event::Failed(failure), _)) => Err(failure.into()),
            Ok(answer) => Ok(answer),
            Err(error) => Err(SelfTestError::Prepare(error)),
        }
    }

    fn dump(&self, criu: &Criu, pid: u32, netns: BorrowedFd<'_>) -> Result<(), SelfTestError> {
        let (network, external) = match self.owner {
            Owner::Host => (
                NetworkMode::HostOwned(netns),
                vec![sys_at("/sys".to_owned())],
            ),
            Owner::Sandbox => (NetworkMode::Owned, vec![]),
        };
        let spec = DumpSpec {
            pid,
            network,
            images: &self.images("dump"),
            after: After::Killed,
            external: &external,
            timeout: TIMEOUT,
        };
        rpc::dump(criu, &spec, &mut |_| Ok(())).map_err(SelfTestError::Dump)?;
        let ended = self
            .init
            .as_ref()
            .map(|init| wait_ended(init.as_fd(), TIMEOUT));
        match ended {
            Some(Ok(true)) => Ok(()),
            Some(Err(error)) => Err(SelfTestError::Prepare(error)),
            _ => Err(unexpected()),
        }
    }

    fn images(&self, work: &str) -> Images {
        Images {
            images: self.dir.join("images"),
            work: self.dir.join(work),
        }
    }

    /// What was written becomes a layer; a new network.
    fn restore(&mut self, criu: &Criu) -> Result<(Restored, OwnedFd), SelfTestError> {
        use SelfTestError::Prepare;
        fs::rename(self.dir.join("upper/u"), self.dir.join("frozen")).map_err(Prepare)?;
        let mount = Call::MountOverlay {
            layers: self
                .layers(&["frozen", "skeleton", "base"])
                .map_err(Prepare)?,
            upper_dir: text(&self.dir.join("upper2")).map_err(Prepare)?,
            uid_base: UID_BASE,
        };
        let overlay = self.call(mount, &[])?.1.pop().ok_or_else(unexpected)?;
        let root = self.dir.join("root");
        let _root = Mounted::at(&root, overlay.as_fd()).map_err(Prepare)?;
        let restored = match self.owner {
            Owner::Host => return self.restore_into_host_network(criu, &root),
            Owner::Sandbox => self.restored(criu, &root, NetworkMode::Owned, &[])?,
        };
        let network = netns::of_process(restored.pid()).map_err(Prepare)?;
        Ok((restored, network))
    }

    /// A network made beforehand, with its own sysfs.
    fn restore_into_host_network(
        &mut self,
        criu: &Criu,
        root: &Path,
    ) -> Result<(Restored, OwnedFd), SelfTestError> {
        use SelfTestError::Prepare;
        let made = self.call(Call::CreateNetns, &[])?.1.pop();
        let network = made.ok_or_else(unexpected)?;
        let sys = self.dir.join("sys");
        let sysfs = root::sysfs(network.as_fd()).map_err(Prepare)?;
        let _sys = Mounted::at(&sys, sysfs.as_fd()).map_err(Prepare)?;
        let external = [sys_at(text(&sys).map_err(Prepare)?)];
        let mode = NetworkMode::HostOwned(network.as_fd());
        let restored = self.restored(criu, root, mode, &external)?;
        Ok((restored, network))
    }

    fn restored(
        &self,
        criu: &Criu,
        root: &Path,
        network: NetworkMode<'_>,
        external: &[ExternalMount],
    ) -> Result<Restored, SelfTestError> {
        let spec = RestoreSpec {
            root,
            network,
            images: &self.images("restore"),
            external,
            trees: &[],
            group: None,
            timeout: TIMEOUT,
        };
        let pid = rpc::restore(criu, &spec, &mut |_| Ok(())).map_err(SelfTestError::Restore)?;
        Restored::of(pid).map_err(SelfTestError::Prepare)
    }
}

fn sys_at(path: String) -> ExternalMount {
    ExternalMount {
        name: "sys".to_owned(),
        path,
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        // Errors mean that they are gone already.
        if let Some(init) = &self.init {
            let _ = kill(init);
            let _ = wait_ended(init.as_fd(), TIMEOUT);
        }
        let _ = kill(&self.launcher.pidfd);
        reap(self.launcher.pid);
    }
}

/// A restored init, our child.
struct Restored(Pid, OwnedFd);

impl Restored {
    fn of(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self(pid, pidfd_open(pid, PidfdFlags::empty())?))
    }

    fn pid(&self) -> u32 {
        self.0.as_raw_nonzero().get().unsigned_abs()
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = kill(&self.1);
        reap(self.0);
    }
}

fn reap(pid: Pid) {
    let _ = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
}

/// A mount that goes when dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn at(path: &'a Path, mount: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(mount, "", rustix::fs::CWD, path, flags)?;
        let mounted = Self(path);
        mount_change(path, MountPropagationFlags::PRIVATE)?;
        Ok(mounted)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

/// A directory that goes when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> io::Result<Self> {
        let path = parent.join(format!(".selftest-{}", std::process::id()));
        fs::create_dir(&path)?;
        let scratch = Self(path);
        fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn unexpected() -> SelfTestError {
    SelfTestError::Prepare(io::Error::other("not what was asked for"))
}

fn c(text: &str) -> Result<CString, SelfTestError> {
    CString::new(text).map_err(|error| SelfTestError::Prepare(error.into()))
}

fn text(path: &Path) -> io::Result<String> {
    let text = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(text.to_owned())
}
