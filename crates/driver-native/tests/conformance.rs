//! The native driver keeps the promises of the port: on the kernel, as root.
//!
//! A program of its own rather than a harness: the driver executes it again as launcher.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use libtest_mimic::{Arguments, Trial};
use woodfrog_driver_native::{NativeDriver, NativeOptions, instance_id};
use woodfrog_linux::cgroup::Hierarchies;
use woodfrog_linux::process::Identity;
use woodfrog_sandbox::conformance::{Fixture, cases};
use woodfrog_sandbox::{Driver, Egress, LaunchSpec};
use woodfrog_types::SandboxId;
use woodfrog_types::sandbox::{InstanceState, Resources};
use woodfrog_types::template::SecurityOptions;

/// A data directory of its own on this machine.
struct Machine {
    dir: tempfile::TempDir,
    guest: &'static [u8],
}

impl Machine {
    fn new(guest: &'static [u8]) -> Self {
        // On a disk, unlike `/tmp` on some machines.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let layer = dir.path().join("layer");
        for name in ["etc", "root", "tmp", "usr"] {
            fs::create_dir_all(layer.join(name)).expect("a directory of the layer");
        }
        fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("passwd");
        fs::write(layer.join("etc/group"), "root:x:0:\n").expect("group");
        for path in [layer.clone(), layer.join("etc")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        Self { dir, guest }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    async fn start(&self) -> NativeDriver {
        let options = NativeOptions {
            data_dir: self.data(),
            guest: self.guest,
            uid_base: 1_000_000_000,
            launchers: 2,
            pool_size: Some(2 << 30),
            cidr: None,
            allow_private: Vec::new(),
            favor_moves: false,
        };
        NativeDriver::start(options)
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

    fn spoil(&self, spec: &mut LaunchSpec) {
        // Longer than the kernel takes: its init is on its way by then, in cgroup and mounts.
        spec.hostname = "x".repeat(80);
    }

    fn end_init(&self, _: &dyn Driver, _: &SandboxId, instance: &InstanceState) {
        let note: serde_json::Value = serde_json::from_str(&instance.0).expect("a note");
        let init: Identity = serde_json::from_value(note["init"].clone()).expect("its init");
        let pidfd = init.open().expect("looked for").expect("it runs");
        woodfrog_linux::process::kill(pidfd).expect("killed");
    }

    fn traces(&self, _: &dyn Driver) -> Vec<String> {
        let instance = instance_id(&self.data());
        let mut traces = self.names("notes");
        traces.extend(self.names("pool/sandboxes"));
        let cgroups = Hierarchies::detect().expect("cgroups");
        let groups = cgroups.list(&format!("woodfrog-{instance}"));
        traces.extend(groups.expect("listed"));
        let links = fs::read_dir("/sys/class/net").expect("interfaces");
        let links = links.filter_map(|link| link.ok()?.file_name().into_string().ok());
        traces.extend(links.filter(|link| link.starts_with(&format!("wf{instance}"))));
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let below = format!("{}/sandboxes", self.data().join("pool").display());
        traces.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&below))
                .map(str::to_owned),
        );
        traces
    }
}

/// Launcher processes of this one.
fn launchers() -> Vec<rustix::process::Pid> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").expect("processes").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let read = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let parent = read("status");
        let parent = parent.lines().find_map(|line| line.strip_prefix("PPid:\t"));
        parent == Some(own.as_str()) && read("cmdline").contains("__launcher")
    })
    .filter_map(rustix::process::Pid::from_raw)
    .collect()
}

/// Launchers that die at whatever moment take nothing with them and leave nothing behind.
async fn outlives_its_launchers(machine: &Machine) {
    let driver: Arc<dyn Driver> = Arc::new(machine.start().await);
    let spec = || {
        let id = SandboxId::generate();
        LaunchSpec {
            hostname: id.to_string(),
            id,
            layers: machine.layers(),
            resources: Resources::default(),
            egress: Egress::default(),
            security: SecurityOptions::default(),
        }
    };
    let first = spec();
    let kept = first.id.clone();
    driver.launch(first).await.expect("launched");
    for millis in [1, 3, 6, 12] {
        let mut work = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (driver, spec) = (Arc::clone(&driver), spec());
            work.spawn(async move {
                let id = spec.id.clone();
                let launched = driver.launch(spec).await.is_ok();
                (id, launched)
            });
        }
        tokio::time::sleep(Duration::from_millis(millis)).await;
        for pid in launchers() {
            // One that ended meanwhile is dead, too.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        for (id, launched) in work.join_all().await {
            assert_eq!(driver.connect(&id).await.is_ok(), launched);
            driver.destroy(&id).await.expect("destroyed");
        }
    }
    driver.connect(&kept).await.expect("it runs on");
    let last = spec();
    let id = last.id.clone();
    driver.launch(last).await.expect("another launcher");
    driver.destroy(&id).await.expect("destroyed");
    driver.destroy(&kept).await.expect("destroyed");
    for _ in 0..1000 {
        if machine.traces(&*driver).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(machine.traces(&*driver), Vec::<String>::new());
    drop(driver);
    for _ in 0..1000 {
        if launchers().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("launchers are left, or were not reaped");
}

/// A static guest: the layer has no libraries.
fn guest() -> &'static [u8] {
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

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == "__launcher")
    {
        let socket = woodfrog_linux::launcher::adopt_stdin().expect("a socket");
        woodfrog_linux::launcher::launcher_main(socket);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if arguments.list {
        let names = cases()
            .into_iter()
            .map(|(name, _)| Trial::test(name, || Ok(())));
        return libtest_mimic::run(&arguments, names.collect()).exit_code();
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let handle = runtime.handle().clone();
    let machine = Arc::new(Machine::new(guest()));
    let trials = cases().into_iter().map(|(name, case)| {
        let (machine, handle) = (Arc::clone(&machine), handle.clone());
        Trial::test(name, move || {
            handle.block_on(case(&*machine));
            Ok(())
        })
    });
    let mut trials: Vec<Trial> = trials.collect();
    trials.push(Trial::test("outlives_its_launchers", {
        let (machine, handle) = (Arc::clone(&machine), handle.clone());
        move || {
            handle.block_on(outlives_its_launchers(&machine));
            Ok(())
        }
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    let purged = runtime.block_on(async { machine.start().await.purge().await });
    if let Err(error) = purged {
        eprintln!("purge: {error:?}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
