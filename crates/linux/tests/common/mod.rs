//! A small root file system, and a launcher to run things in it.
#![allow(dead_code, reason = "each test program uses a part")]

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use woodfrog_linux::launcher::{
    Call, CgroupJoin, Client, DestroySpec, Event, Failure, LaunchSpec, Launched, Network,
    TmpfsSizes, default_masked, start,
};
use woodfrog_linux::process::Exit;
use woodfrog_linux::seccomp::SeccompPolicy;
use woodfrog_linux::skeleton;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

const PROGRAMS: &[&str] = &[
    "cat", "chmod", "cut", "echo", "env", "grep", "head", "id", "ls", "mkdir", "mount", "perl",
    "readlink", "sh", "sleep", "sort", "stat", "touch", "tr", "uname", "unshare", "wc",
];

/// A base layer with a shell, perl and a few tools of this machine, made once.
pub(crate) fn base_layer() -> &'static Path {
    static BASE: OnceLock<tempfile::TempDir> = OnceLock::new();
    // Never dropped: a static. Removed by the cleaner registered here.
    let dir = BASE.get_or_init(|| {
        let dir = tempfile::Builder::new()
            .prefix("wf-base")
            .tempdir_in("/var/tmp")
            .unwrap();
        build(dir.path());
        REMOVE.with_path(dir.path());
        dir
    });
    dir.path()
}

struct Remove(OnceLock<PathBuf>);
static REMOVE: Remove = Remove(OnceLock::new());

impl Remove {
    fn with_path(&self, path: &Path) {
        self.0.set(path.to_owned()).unwrap();
        extern "C" fn remove() {
            if let Some(path) = REMOVE.0.get() {
                let _ = fs::remove_dir_all(path);
            }
        }
        // SAFETY: registers a function without arguments.
        unsafe { libc::atexit(remove) };
    }
}

fn build(root: &Path) {
    fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for dir in ["usr/bin", "usr/lib", "usr/lib64", "etc"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for (link, target) in [
        ("bin", "usr/bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    let init = env!("CARGO_BIN_EXE_linux-test-launcher");
    fs::copy(init, root.join("usr/bin/init")).unwrap();
    let paths = PROGRAMS.iter().map(|program| format!("/usr/bin/{program}"));
    for path in paths.chain([init.to_owned()]) {
        if path != init {
            copy(root, &path);
        }
        let text = Command::new("ldd").arg(&path).output().unwrap().stdout;
        for word in String::from_utf8_lossy(&text).split_whitespace() {
            if word.starts_with('/') {
                copy(root, word);
            }
        }
    }
}

fn copy(root: &Path, path: &str) {
    let to = root.join(&path[1..]);
    if !to.exists() {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
}

/// A launcher and a state directory of its own.
pub(crate) struct Bench {
    pub(crate) client: Client,
    pub(crate) launcher: Pid,
    pub(crate) launcher_fd: OwnedFd,
    pub(crate) dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// Layers by descriptor and by path.
    pub(crate) fn both() -> [Self; 2] {
        [Self::new(), Self::with(&[c"--old"])]
    }

    fn with(arguments: &[&CStr]) -> Self {
        let program = CString::new(env!("CARGO_BIN_EXE_linux-test-launcher")).unwrap();
        let mut argv = vec![program.clone()];
        argv.extend(arguments.iter().map(|&text| text.to_owned()));
        let (socket, launcher) = start(program, argv).unwrap();
        let dir = tempfile::Builder::new()
            .prefix("wf-linux")
            .tempdir_in("/var/tmp")
            .unwrap();
        fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        skeleton::create(&dir.path().join("skeleton"), b"#!/bin/sh\necho guest\n").unwrap();
        Self {
            client: Client::new(socket),
            launcher: launcher.pid,
            launcher_fd: launcher.pidfd,
            dir,
        }
    }

    /// A specification for `sh -c script` as init.
    pub(crate) fn spec(&self, id: &str, script: &str) -> LaunchSpec {
        let upper = self.dir.path().join(id);
        for part in ["u", "w"] {
            fs::create_dir_all(upper.join(part)).unwrap();
        }
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        LaunchSpec {
            id: id.to_owned(),
            hostname: "pond".to_owned(),
            uid_base: 1_000_000,
            layers: vec![text(&self.dir.path().join("skeleton")), text(base_layer())],
            upper_dir: text(&upper),
            network: Network::Isolated,
            cgroup: CgroupJoin::default(),
            seccomp: SeccompPolicy::default(),
            rlimits: vec![],
            program: "/bin/sh".to_owned(),
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/usr/bin".to_owned()],
            tmpfs: TmpfsSizes {
                run: 16 << 20,
                shm: 16 << 20,
                inodes: 4096,
            },
            listen: None,
            masked: default_masked(),
            readonly: vec!["/proc/sys".to_owned()],
            directories: Vec::new(),
            oom_score_adj: None,
        }
    }

    pub(crate) fn launch(&mut self, spec: LaunchSpec) -> Result<(Launched, OwnedFd), Failure> {
        let (event, mut fds) = self
            .client
            .call(Call::Launch(Box::new(spec)), &[], TIMEOUT)
            .unwrap();
        match event {
            Event::Launched(launched) => Ok((launched, fds.remove(0))),
            Event::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    /// Runs a script as init to its end; what it wrote to /out, and how it ended.
    pub(crate) fn run(&mut self, id: &str, script: &str) -> (String, Exit) {
        let spec = self.spec(id, &format!("exec >/out 2>&1; {script}"));
        self.launch(spec).unwrap();
        let exit = self.exit_of(id);
        (self.out(id), exit)
    }

    pub(crate) fn exit_of(&mut self, wanted: &str) -> Exit {
        loop {
            if let Event::Exited { id, exit, .. } = self.client.next_report(TIMEOUT).unwrap()
                && id == wanted
            {
                return exit;
            }
        }
    }

    pub(crate) fn out(&self, id: &str) -> String {
        fs::read_to_string(self.dir.path().join(id).join("u/out")).unwrap_or_default()
    }

    pub(crate) fn destroy(&mut self, id: &str) -> Exit {
        let spec = DestroySpec { id: id.to_owned() };
        match self
            .client
            .call(Call::Destroy(spec), &[], TIMEOUT)
            .unwrap()
            .0
        {
            Event::Destroyed { exit } => exit,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = woodfrog_linux::process::kill(self.launcher_fd.as_fd());
        let _ =
            rustix::process::waitpid(Some(self.launcher), rustix::process::WaitOptions::empty());
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
