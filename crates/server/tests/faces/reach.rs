//! A driver whose sandboxes are entries of a map and whose guest is a real one, run on this
//! machine without isolation.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Once;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::net::UnixStream;
use woodfrog_sandbox::fake::FakeDriver;
use woodfrog_sandbox::{
    Adopted, Capabilities, CheckpointSpec, Checkpointed, Driver, DriverError, Egress, LaunchSpec,
    Launched, RestoreSpec, Result, SnapshotHealth, Usage,
};
use woodfrog_types::sandbox::InstanceState;
use woodfrog_types::{SandboxId, SnapshotId};

/// A running guest; it ends with this.
pub(crate) struct RealGuest {
    child: Child,
    socket: PathBuf,
}

impl RealGuest {
    pub(crate) fn start(dir: &Path) -> Self {
        let etc = dir.join("etc");
        std::fs::create_dir(&etc).expect("etc");
        let passwd = format!(
            "root:x:0:0::/root:/bin/sh\nuser:x:0:0::{}:/bin/sh\n",
            dir.display()
        );
        std::fs::write(etc.join("passwd"), passwd).expect("passwd");
        std::fs::write(etc.join("group"), "root:x:0:\n").expect("group");
        let socket = dir.join("run/guest.sock");
        let child = Command::new(binary())
            .args(["--socket".as_ref(), socket.as_os_str()])
            .args(["--etc".as_ref(), etc.as_os_str()])
            .arg("--no-init")
            .spawn()
            .expect("the guest starts");
        let began = Instant::now();
        while !socket.exists() {
            assert!(began.elapsed() < Duration::from_secs(20), "no guest");
            std::thread::yield_now();
        }
        Self { child, socket }
    }
}

impl Drop for RealGuest {
    fn drop(&mut self) {
        // At SIGTERM it ends everything that it started.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > Duration::from_secs(20) {
                drop(self.child.kill());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Built by cargo beside this test's directory.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WOODFROG_GUEST") {
        return path.into();
    }
    let mut path = std::env::current_exe().expect("this program's path");
    path.pop();
    path.pop();
    static BUILD: Once = Once::new();
    BUILD.call_once(|| {
        let built = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
            .args([
                "build",
                "--quiet",
                "-p",
                "woodfrog-guest",
                "--bin",
                "woodfrog-guest",
            ])
            .args(path.ends_with("release").then_some("--release"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(
            built.expect("cargo runs").success(),
            "the guest is not built"
        );
    });
    path.join("woodfrog-guest")
}

pub(crate) struct Reaching {
    pub(crate) fake: FakeDriver,
    pub(crate) guest: RealGuest,
}

#[async_trait]
impl Driver for Reaching {
    fn name(&self) -> &'static str {
        "reaching"
    }

    fn capabilities(&self) -> &Capabilities {
        self.fake.capabilities()
    }

    async fn launch(&self, spec: LaunchSpec) -> Result<Launched> {
        self.fake.launch(spec).await
    }

    async fn adopt(&self, id: &SandboxId, instance: &InstanceState) -> Result<Adopted> {
        self.fake.adopt(id, instance).await
    }

    async fn destroy(&self, id: &SandboxId) -> Result<()> {
        self.fake.destroy(id).await
    }

    async fn reconcile(&self, live: &[SandboxId]) -> Result<Vec<String>> {
        self.fake.reconcile(live).await
    }

    async fn connect(&self, id: &SandboxId) -> Result<UnixStream> {
        let connected = UnixStream::connect(&self.guest.socket).await;
        connected.map_err(|error| DriverError::Guest {
            id: id.to_string(),
            detail: error.to_string(),
        })
    }

    async fn exited(&self, id: &SandboxId) -> Result<String> {
        self.fake.exited(id).await
    }

    async fn set_egress(&self, id: &SandboxId, egress: Egress) -> Result<()> {
        self.fake.set_egress(id, egress).await
    }

    async fn usage(&self, id: &SandboxId) -> Result<Usage> {
        self.fake.usage(id).await
    }

    async fn pause(&self, id: &SandboxId) -> Result<()> {
        self.fake.pause(id).await
    }

    async fn resume(&self, id: &SandboxId) -> Result<()> {
        self.fake.resume(id).await
    }

    async fn checkpoint(&self, id: &SandboxId, spec: CheckpointSpec) -> Result<Checkpointed> {
        self.fake.checkpoint(id, spec).await
    }

    async fn restore(&self, spec: RestoreSpec) -> Result<Launched> {
        self.fake.restore(spec).await
    }

    async fn snapshot_remove(&self, snapshot: &SnapshotId) -> Result<()> {
        self.fake.snapshot_remove(snapshot).await
    }

    async fn snapshot_verify(&self, snapshot: &SnapshotId) -> Result<SnapshotHealth> {
        self.fake.snapshot_verify(snapshot).await
    }

    async fn snapshot_reconcile(&self, known: &[SnapshotId]) -> Result<Vec<SnapshotId>> {
        self.fake.snapshot_reconcile(known).await
    }

    async fn snapshot_export(&self, snapshot: &SnapshotId) -> Result<PathBuf> {
        self.fake.snapshot_export(snapshot).await
    }

    async fn snapshot_import_begin(&self, snapshot: &SnapshotId) -> Result<PathBuf> {
        self.fake.snapshot_import_begin(snapshot).await
    }

    async fn snapshot_import_finish(&self, snapshot: &SnapshotId) -> Result<()> {
        self.fake.snapshot_import_finish(snapshot).await
    }

    async fn take_upper(&self, id: &SandboxId) -> Result<PathBuf> {
        self.fake.take_upper(id).await
    }

    async fn open_upper(&self, id: &SandboxId) -> Result<std::os::fd::OwnedFd> {
        self.fake.open_upper(id).await
    }

    async fn layers_in_use(&self) -> Result<std::collections::BTreeSet<String>> {
        self.fake.layers_in_use().await
    }

    async fn shutdown(&self) {
        self.fake.shutdown().await;
    }
}
