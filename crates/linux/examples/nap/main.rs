//! How fast a small sandbox is checkpointed and restored:
//! `cargo run -p woodfrog-linux --example nap --release [rounds]`.
//!
//! Needs root and a CRIU. Uses a directory in /var/tmp and removes it.

use std::error::Error;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use woodfrog_linux::criu::{
    After, Criu, DumpSpec, Found, Images, NetworkMode, RestoreSpec, default_prefix, dump, find,
    restore,
};
use woodfrog_linux::launcher::{
    Call, CgroupJoin, Client, Event, LaunchSpec, Network, TmpfsSizes, adopt_stdin, default_masked,
    launcher_main, start,
};
use woodfrog_linux::process::{kill, wait_ended};
use woodfrog_linux::seccomp::SeccompPolicy;
use woodfrog_linux::{netns, skeleton};

const TIMEOUT: Duration = Duration::from_secs(20);
const UID_BASE: u32 = 1_000_000;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("__launcher") {
        launcher_main(adopt_stdin()?);
    }
    let rounds: usize = argument.map_or(Ok(20), |text| text.parse())?;
    let Found::Suitable(cold) = find(&default_prefix()) else {
        return Err("no CRIU that suits this kernel".into());
    };
    let dir = tempfile::Builder::new()
        .prefix("wf-nap")
        .tempdir_in("/var/tmp")?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    skeleton::create(&dir.path().join("skeleton"), b"")?;
    base(&dir.path().join("base"))?;
    let me = std::env::current_exe()?.into_os_string();
    let me = CString::new(me.into_encoded_bytes())?;
    let (socket, _launcher) = start(me.clone(), vec![me, CString::from(c"__launcher")])?;
    let mut client = Client::new(socket);
    let mut warm = cold.clone();
    let begun = Instant::now();
    warm.warm()?;
    println!("warming up: {:?}", begun.elapsed());
    for (what, criu, masked) in [
        ("cold, masks", &cold, true),
        ("warm, masks", &warm, true),
        ("warm, no masks", &warm, false),
    ] {
        let mut nap = Nap::new(&mut client, dir.path(), masked)?;
        nap.rounds(what, criu, rounds)?;
    }
    Ok(())
}

/// A layer with one program.
fn base(root: &Path) -> Outcome<()> {
    let ldd = Command::new("ldd").arg("/usr/bin/sleep").output()?.stdout;
    let ldd = String::from_utf8(ldd)?;
    let libraries = ldd.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain(["/usr/bin/sleep"]) {
        let to = root.join(&path[1..]);
        fs::create_dir_all(to.parent().ok_or("a path without a directory")?)?;
        fs::copy(path, to)?;
    }
    Ok(())
}

struct Nap<'a> {
    client: &'a mut Client,
    dir: tempfile::TempDir,
    layers: Vec<String>,
    init: (u32, OwnedFd),
    ours: bool,
}

impl<'a> Nap<'a> {
    fn new(client: &'a mut Client, parent: &Path, masked: bool) -> Outcome<Self> {
        let dir = tempfile::tempdir_in(parent)?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        for part in ["u", "w", "images", "work", "root"] {
            fs::create_dir(dir.path().join(part))?;
        }
        let images = dir.path().join("images");
        chown(&images, Some(0), Some(UID_BASE))?;
        fs::set_permissions(&images, fs::Permissions::from_mode(0o750))?;
        let layers = ["skeleton", "base"].map(|name| text(&parent.join(name)));
        let spec = spec(&text(dir.path()), layers.to_vec(), masked);
        let pair = netns::create_owned()?;
        let fds = [pair.network.as_fd(), pair.user.as_fd()];
        let (event, mut given) = client.call(Call::Launch(Box::new(spec)), &fds, TIMEOUT)?;
        let Event::Launched(launched) = event else {
            return Err(format!("{event:?}").into());
        };
        Ok(Self {
            client,
            dir,
            layers: layers.to_vec(),
            init: (launched.identity.pid, given.remove(0)),
            ours: false,
        })
    }

    fn rounds(&mut self, what: &str, criu: &Criu, rounds: usize) -> Outcome<()> {
        let (mut goes_on, mut dumps, mut restores) = (vec![], vec![], vec![]);
        for _ in 0..rounds {
            goes_on.push(measured(|| self.dump(criu, After::Running))?);
            dumps.push(measured(|| self.dump(criu, After::Killed))?);
            restores.push(measured(|| self.restore(criu))?);
        }
        println!("{what} ({rounds} rounds)");
        show("leave running", &mut goes_on);
        show("dump and kill", &mut dumps);
        show("restore", &mut restores);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn images(&self) -> Images {
        Images {
            images: self.path("images"),
            work: self.path("work"),
        }
    }

    fn dump(&mut self, criu: &Criu, after: After) -> Outcome<Duration> {
        let begun = Instant::now();
        let spec = DumpSpec {
            pid: self.init.0,
            network: NetworkMode::Owned,
            images: &self.images(),
            after,
            external: &[],
            timeout: TIMEOUT,
        };
        dump(criu, &spec, &mut |_| Ok(()))?;
        if after == After::Killed {
            wait_ended(self.init.1.as_fd(), TIMEOUT)?;
            self.reap()?;
        }
        Ok(begun.elapsed())
    }

    fn restore(&mut self, criu: &Criu) -> Outcome<Duration> {
        let begun = Instant::now();
        let mount = Call::MountOverlay {
            layers: self.layers.clone(),
            upper_dir: text(self.dir.path()),
            uid_base: UID_BASE,
        };
        let (_, mut fds) = self.client.call(mount, &[], TIMEOUT)?;
        let root = self.path("root");
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(fds.remove(0), "", rustix::fs::CWD, &root, flags)?;
        let spec = RestoreSpec {
            root: &root,
            network: NetworkMode::Owned,
            images: &self.images(),
            external: &[],
            trees: &[],
            group: None,
            timeout: TIMEOUT,
        };
        let restored = restore(criu, &spec, &mut |_| Ok(()));
        unmount(&root, UnmountFlags::DETACH)?;
        let pid = restored?;
        let took = begun.elapsed();
        let raw = Pid::from_raw(i32::try_from(pid)?).ok_or("no pid")?;
        self.init = (pid, pidfd_open(raw, PidfdFlags::empty())?);
        self.ours = true;
        Ok(took)
    }

    fn reap(&self) -> Outcome<()> {
        if self.ours {
            waitpid(
                Pid::from_raw(i32::try_from(self.init.0)?),
                WaitOptions::empty(),
            )?;
        }
        Ok(())
    }
}

impl Drop for Nap<'_> {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = kill(&self.init.1);
        let _ = wait_ended(self.init.1.as_fd(), TIMEOUT);
        let _ = self.reap();
    }
}

fn spec(upper: &str, layers: Vec<String>, masked: bool) -> LaunchSpec {
    LaunchSpec {
        id: upper.to_owned(),
        hostname: "nap".to_owned(),
        uid_base: UID_BASE,
        layers,
        upper_dir: upper.to_owned(),
        network: Network::Owned,
        cgroup: CgroupJoin::default(),
        seccomp: SeccompPolicy::default(),
        rlimits: vec![],
        program: "/usr/bin/sleep".to_owned(),
        argv: vec!["sleep".to_owned(), "1000".to_owned()],
        env: vec![],
        tmpfs: TmpfsSizes {
            run: 16 << 20,
            shm: 64 << 20,
            inodes: 65536,
        },
        listen: None,
        masked: if masked { default_masked() } else { vec![] },
        readonly: vec![],
        directories: Vec::new(),
        oom_score_adj: None,
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// How long something took, and how long it kept a CPU: the second says more on a busy machine.
fn measured(work: impl FnOnce() -> Outcome<Duration>) -> Outcome<(Duration, Duration)> {
    let before = of_children();
    let took = work()?;
    Ok((took, of_children() - before))
}

/// CPU time of the workers that have ended.
fn of_children() -> Duration {
    // SAFETY: all zero is valid, and the kernel fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| {
        Duration::new(
            time.tv_sec.unsigned_abs(),
            time.tv_usec.unsigned_abs() as u32 * 1000,
        )
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn show(name: &str, times: &mut [(Duration, Duration)]) {
    let middle = (times.len() - 1) / 2;
    times.sort_unstable_by_key(|(took, _)| *took);
    let (least, took) = (times[0].0, times[middle].0);
    times.sort_unstable_by_key(|(_, cpu)| *cpu);
    let cpu = times[middle].1;
    println!("  {name:<14} least {least:?}  p50 {took:?}  CPU p50 {cpu:?}");
}
