//! Runs the real guest for one test.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "every test file uses a part of this"
)]

use std::{
    path::PathBuf,
    process::{Child, Command},
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use woodfrog_guest_client::{GuestClient, PathConnector, ProcessEvent, ProcessStream, proto::*};

/// Long enough for a busy machine; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct TestGuest {
    pub client: GuestClient,
    pub socket: PathBuf,
    pub dir: TempDir,
    pub child: Child,
}

impl TestGuest {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let etc = dir.path().join("etc");
        std::fs::create_dir(&home).unwrap();
        std::fs::create_dir(&etc).unwrap();
        // The home of `user` must be reachable for `user`.
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&home, Some(54321), Some(54322)).unwrap();
        let passwd = format!(
            "root:x:0:0::/root:/bin/sh\nuser:x:54321:54322::{}:/bin/sh\n",
            home.display()
        );
        std::fs::write(etc.join("passwd"), passwd).unwrap();
        std::fs::write(
            etc.join("group"),
            "root:x:0:\nuser:x:54322:\nextra:x:54400:user\n",
        )
        .unwrap();
        let socket = dir.path().join("run/guest.sock");
        let child = Command::new(guest_binary())
            .arg("--socket")
            .arg(&socket)
            .arg("--etc")
            .arg(&etc)
            .arg("--no-init")
            .spawn()
            .unwrap();
        let client = GuestClient::new(Arc::new(PathConnector(socket.clone())));
        let guest = Self {
            client,
            socket,
            dir,
            child,
        };
        let start = Instant::now();
        while guest.client.hello().await.is_err() {
            assert!(start.elapsed() < PATIENCE, "the guest does not answer");
            tokio::task::yield_now().await;
        }
        guest
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for TestGuest {
    fn drop(&mut self) {
        end_guest(&mut self.child);
    }
}

/// Ends a guest with everything it started: it does that itself when it is asked to end.
pub fn end_guest(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Built by cargo beside this test's directory.
pub fn guest_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WOODFROG_GUEST") {
        return path.into();
    }
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let profile: &[&str] = if path.ends_with("release") {
        &["--release"]
    } else {
        &[]
    };
    path.push("woodfrog-guest");
    static BUILD: std::sync::Once = std::sync::Once::new();
    BUILD.call_once(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        let built = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "-p",
                "woodfrog-guest",
                "--bin",
                "woodfrog-guest",
            ])
            .args(profile)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(built.success(), "building the guest failed");
    });
    path
}

pub fn sh(script: &str) -> StartRequest {
    StartRequest {
        cmd: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        ..StartRequest::default()
    }
}

/// Everything up to the end.
#[derive(Default)]
pub struct Collected {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub pty: Vec<u8>,
    pub gaps: Vec<Gap>,
    pub end: Option<ProcessEnd>,
}

impl Collected {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn end(&self) -> &ProcessEnd {
        self.end.as_ref().unwrap()
    }

    pub fn add(&mut self, event: ProcessEvent) {
        match event {
            ProcessEvent::Started(_) => {}
            ProcessEvent::Output { stream, bytes, .. } => match stream {
                Channel::Stdout => self.stdout.extend_from_slice(&bytes),
                Channel::Stderr => self.stderr.extend_from_slice(&bytes),
                Channel::Pty => self.pty.extend_from_slice(&bytes),
                Channel::Plain => panic!("plain output"),
            },
            ProcessEvent::Gap(gap) => self.gaps.push(gap),
            ProcessEvent::End(end) => self.end = Some(end),
        }
    }
}

pub async fn collect(stream: &mut ProcessStream) -> Collected {
    let mut all = Collected::default();
    let work = async {
        while let Some(event) = stream.next().await.unwrap() {
            all.add(event);
        }
    };
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("the process does not end");
    all
}

/// Reads until the output so far contains `text`.
pub async fn until(stream: &mut ProcessStream, text: &str) -> Collected {
    let mut all = Collected::default();
    let work = async {
        loop {
            let whole = [&all.stdout[..], &all.pty[..]].concat();
            if String::from_utf8_lossy(&whole).contains(text) {
                return;
            }
            let event = stream
                .next()
                .await
                .unwrap()
                .expect("the process ended early");
            all.add(event);
        }
    };
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("the output does not come");
    all
}

/// Waits for a condition.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
