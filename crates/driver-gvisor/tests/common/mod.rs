//! A machine to try the driver on.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use woodfrog_driver_common::instance_id;
use woodfrog_driver_gvisor::{GvisorDriver, GvisorOptions, Paths};
use woodfrog_linux::cgroup::Hierarchies;
use woodfrog_linux::process::Identity;
use woodfrog_linux::stage;
use woodfrog_sandbox::conformance::Fixture;
use woodfrog_sandbox::{Driver, DriverError, LaunchSpec};
use woodfrog_types::SandboxId;
use woodfrog_types::sandbox::InstanceState;

/// Whether memory is saved too, which does not always come back: asked for by name.
pub(crate) fn memory_snapshots() -> bool {
    std::env::var_os("WOODFROG_GVISOR_MEMORY_SNAPSHOTS").is_some_and(|value| value == "true")
}

/// A data directory of its own on this machine.
pub(crate) struct Machine {
    dir: tempfile::TempDir,
    guest: &'static [u8],
}

impl Machine {
    pub(crate) fn new(guest: &'static [u8]) -> Self {
        // On a disk, unlike `/tmp` on some machines.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let layer = dir.path().join("layer");
        for name in ["etc", "root", "tmp", "usr"] {
            fs::create_dir_all(layer.join(name)).expect("a directory of the layer");
        }
        fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("passwd");
        fs::write(layer.join("etc/group"), "root:x:0:\n").expect("group");
        put_programs(&layer);
        for path in [layer.clone(), layer.join("etc")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        Self { dir, guest }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) async fn start(&self) -> GvisorDriver {
        let options = GvisorOptions {
            data_dir: self.data(),
            guest: self.guest,
            runsc_prefix: woodfrog_linux::runsc::default_prefix(),
            pool_size: Some(2 << 30),
            cidr: None,
            allow_private: Vec::new(),
            egress: woodfrog_driver_gvisor::EgressOptions::default(),
            memory_snapshots: memory_snapshots(),
        };
        GvisorDriver::start(options)
            .await
            .expect("the driver starts")
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.data().join(dir)).into_iter().flatten();
        entries
            .filter_map(|entry| Some(format!("{dir}/{}", entry.ok()?.file_name().to_str()?)))
            .collect()
    }
}

#[async_trait]
impl Fixture for Machine {
    async fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(self.start().await)
    }

    fn layers(&self) -> Vec<PathBuf> {
        vec![self.dir.path().join("layer")]
    }

    fn program(&self) -> (String, i32) {
        // The guest itself complains of what it does not know.
        ("/usr/lib/woodfrog/guest".to_owned(), 1)
    }

    fn has_shell(&self) -> bool {
        true
    }

    fn spoil(&self, spec: &mut LaunchSpec) {
        // More than overlayfs takes: all but the root file system is there by then.
        spec.layers = vec![self.dir.path().join("layer"); 500];
    }

    fn end_init(&self, _: &dyn Driver, _: &SandboxId, instance: &InstanceState) {
        let note: serde_json::Value = serde_json::from_str(&instance.0).expect("a note");
        let sentry: Identity = serde_json::from_value(note["sentry"].clone()).expect("its sentry");
        let pidfd = sentry.open().expect("looked for").expect("it runs");
        woodfrog_linux::process::kill(pidfd).expect("killed");
    }

    fn traces(&self, _: &dyn Driver) -> Vec<String> {
        let instance = instance_id(&Paths::new(&self.data()).home);
        let mut traces = Vec::new();
        for dir in [
            "gvisor/notes",
            "gvisor/bundles",
            "gvisor/state",
            "pool/gvisor/sandboxes",
            "pool/gvisor/snapshots",
        ] {
            traces.extend(self.names(dir));
        }
        let cgroups = Hierarchies::detect().expect("cgroups");
        let groups = cgroups.list(&format!("woodfrog-{instance}"));
        traces.extend(groups.expect("listed"));
        let links = fs::read_dir("/sys/class/net").expect("interfaces");
        let links = links.filter_map(|link| link.ok()?.file_name().into_string().ok());
        traces.extend(links.filter(|link| link.starts_with(&format!("wf{instance}"))));
        traces.extend(processes(&self.data()));
        traces
    }
}

/// A shell and what it needs, from this machine.
fn put_programs(layer: &Path) {
    for program in ["/bin/sh", "/bin/cat", "/bin/sleep"] {
        let listed = Command::new("ldd").arg(program).output().expect("ldd");
        let listed = String::from_utf8(listed.stdout).expect("text");
        let libraries = listed
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for path in libraries.chain([program]) {
            let target = layer.join(&path[1..]);
            let parent = target.parent().expect("a folder");
            fs::create_dir_all(parent).expect("a folder");
            fs::copy(path, &target).expect("copied");
        }
    }
    for folder in fs::read_dir(layer).expect("folders").flatten() {
        open_up(&folder.path());
    }
}

/// Readable for everybody.
fn open_up(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        open_up(&entry.path());
    }
}

/// Processes that speak of this data directory: gVisor's.
fn processes(data: &Path) -> Vec<String> {
    let data = data.to_str().expect("UTF-8");
    let entries = fs::read_dir("/proc").expect("processes").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).ok())
        .filter(|line| line.starts_with("runsc") && line.contains(data))
        .map(|line| line.split('\0').next().unwrap_or_default().to_owned())
        .collect()
}

/// A static guest: the layer has no libraries.
pub(crate) fn guest() -> &'static [u8] {
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static-guest");
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let built = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "woodfrog-guest",
        ])
        .args([
            "--bin",
            "woodfrog-guest",
            "--target",
            &target,
            "--target-dir",
        ])
        .arg(&target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C relocation-model=static",
        )
        .status()
        .expect("cargo runs");
    assert!(built.success(), "building the guest failed");
    let binary = target_dir.join(target).join("debug/woodfrog-guest");
    fs::read(binary).expect("the guest's program").leak()
}

/// Becomes what this program was executed for, if it was.
pub(crate) fn play_role() {
    let mut args = std::env::args().skip(1);
    if args.next().is_some_and(|arg| arg == stage::SUBCOMMAND) {
        stage::stage_main(args.next().as_deref());
    }
}

/// Removes all that the driver has on the machine.
pub(crate) async fn purge(machine: &Machine) -> Result<(), DriverError> {
    machine.start().await.purge().await?;
    let flags = rustix::mount::UnmountFlags::empty();
    // Mounted only where it is an image.
    let _ = rustix::mount::unmount(machine.data().join("pool"), flags);
    Ok(())
}
