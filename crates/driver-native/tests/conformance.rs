//! The native driver keeps the promises of the port: on the kernel, as root.
//!
//! A program of its own rather than a harness: the driver executes it again as launcher.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use libtest_mimic::{Arguments, Trial};
use woodfrog_driver_native::{LazyPages, NativeDriver, NativeOptions, instance_id};
use woodfrog_linux::cgroup::Hierarchies;
use woodfrog_linux::process::Identity;
use woodfrog_sandbox::conformance::{Fixture, cases, guest};
use woodfrog_sandbox::{
    CheckpointSpec, Driver, DriverError, Egress, LaunchSpec, Outbound, RestoreSpec, SnapshotHealth,
    Then,
};
use woodfrog_types::sandbox::{InstanceState, Resources};
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::template::SecurityOptions;
use woodfrog_types::{SandboxId, SnapshotId};

/// Long enough for a busy machine; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

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
        put_programs(&layer);
        for path in [layer.clone(), layer.join("etc")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        Self { dir, guest }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    async fn start(&self) -> NativeDriver {
        let options = options(self.data(), self.guest);
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

    fn has_shell(&self) -> bool {
        true
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
        for dir in ["pool/sandboxes", "pool/snapshots", "pool/staging", "mounts"] {
            traces.extend(self.names(dir));
        }
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

/// A shell and what it needs, from this machine.
fn put_programs(layer: &Path) {
    let more = ["/usr/bin/head", "/usr/bin/base64", "/usr/bin/unshare"];
    for program in ["/bin/sh", "/bin/cat", "/bin/sleep"]
        .into_iter()
        .chain(more)
    {
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

fn spec(machine: &Machine) -> LaunchSpec {
    let id = SandboxId::generate();
    LaunchSpec {
        hostname: id.to_string(),
        id,
        layers: machine.layers(),
        resources: Resources::default(),
        egress: Egress::default(),
        security: SecurityOptions::default(),
        volumes: Vec::new(),
    }
}

/// Starts a shell's script as root, and waits until it says that it is there.
async fn detach(driver: &NativeDriver, id: &SandboxId, script: &str) {
    let stream = driver.connect(id).await.expect("connected");
    guest::detach(stream, script).await;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let stream = driver.connect(id).await.expect("connected");
        if guest::script(stream, "cat /held 2>/dev/null").await == "held\n" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the script does not get anywhere");
}

/// Launchers that die at whatever moment take nothing with them and leave nothing behind.
async fn outlives_its_launchers(machine: &Machine) {
    let driver: Arc<dyn Driver> = Arc::new(machine.start().await);
    let spec = || spec(machine);
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
    gone(machine, &*driver, &[""]).await;
    drop(driver);
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if launchers().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("launchers are left, or were not reaped");
}

/// What did not change since the snapshot before is not written again.
async fn shares_what_did_not_change(machine: &Machine) {
    let driver = machine.start().await;
    let mut spec = spec(machine);
    spec.resources.memory_bytes = 1 << 30;
    let id = spec.id.clone();
    driver.launch(spec.clone()).await.expect("launched");
    let hold = "x=$(cat /dev/urandom | head -c 48000000 | base64); echo held >/held; \
                while :; do sleep 1000; done";
    detach(&driver, &id, hold).await;
    let mut parent: Option<SnapshotId> = None;
    for round in 0..4 {
        let snapshot = SnapshotId::generate();
        let wanted = CheckpointSpec {
            snapshot: snapshot.clone(),
            parent: parent.clone(),
            content: SnapshotContent::Memory,
            then: Then::Stop,
            timeout: Duration::from_secs(30),
        };
        let taken = driver.checkpoint(&id, wanted).await.expect("asleep");
        let size = taken.size;
        assert!(size.memory_bytes > 60_000_000, "{size:?}");
        if round > 0 {
            assert!(size.written_bytes * 20 < size.memory_bytes, "{size:?}");
        }
        if let Some(parent) = parent.replace(snapshot.clone()) {
            // What is shared does not depend on it.
            driver.snapshot_remove(&parent).await.expect("removed");
        }
        let health = driver.snapshot_verify(&snapshot).await;
        assert_eq!(health.expect("verified"), SnapshotHealth::Good);
        let wanted = RestoreSpec {
            launch: spec.clone(),
            snapshot,
            outbound: Outbound::Keep,
            content: SnapshotContent::Memory,
            timeout: Duration::from_secs(30),
        };
        driver.restore(wanted).await.expect("awake");
        drop(driver.connect(&id).await.expect("it answers"));
    }
    driver.destroy(&id).await.expect("destroyed");
    let last = parent.expect("a snapshot");
    driver.snapshot_remove(&last).await.expect("removed");
}

/// What takes too long is given up: the sandbox goes on, and what did not come back is gone.
async fn gives_up_in_time(machine: &Machine) {
    let driver = machine.start().await;
    let spec = spec(machine);
    let id = &spec.id;
    driver.launch(spec.clone()).await.expect("launched");
    let first = guest::boot_id(driver.connect(id).await.expect("connected")).await;
    let checkpoint = |then, millis| {
        let wanted = CheckpointSpec {
            snapshot: SnapshotId::generate(),
            parent: None,
            content: SnapshotContent::Memory,
            then,
            timeout: Duration::from_millis(millis),
        };
        let driver = &driver;
        async move {
            let snapshot = wanted.snapshot.clone();
            (driver.checkpoint(id, wanted).await, snapshot)
        }
    };
    for millis in [0, 1, 3, 6, 10] {
        let (taken, snapshot) = checkpoint(Then::Continue, millis).await;
        match taken {
            Ok(_) => driver.snapshot_remove(&snapshot).await.expect("removed"),
            Err(DriverError::Checkpoint { reason, .. }) => assert!(!reason.is_empty()),
            Err(other) => panic!("{other:?}"),
        }
        let complete = driver.snapshot_reconcile(&[]).await.expect("listed");
        assert_eq!(complete, [], "nothing of it is left");
        let stream = driver.connect(id).await.expect("connected");
        assert_eq!(guest::boot_id(stream).await, first, "it goes on");
    }
    let (taken, snapshot) = checkpoint(Then::Stop, 30_000).await;
    taken.expect("asleep");
    for millis in [0, 1, 3, 6, 30_000] {
        let wanted = RestoreSpec {
            launch: spec.clone(),
            snapshot: snapshot.clone(),
            outbound: Outbound::Keep,
            content: SnapshotContent::Memory,
            timeout: Duration::from_millis(millis),
        };
        if driver.restore(wanted).await.is_ok() {
            break;
        }
        assert!(driver.connect(id).await.is_err(), "it did not come back");
        let complete = driver.snapshot_reconcile(&[]).await.expect("listed");
        assert_eq!(
            complete,
            std::slice::from_ref(&snapshot),
            "the snapshot stays"
        );
        gone(machine, &driver, &["notes", "mounts"]).await;
    }
    let stream = driver.connect(id).await.expect("awake in the end");
    assert_eq!(guest::boot_id(stream).await, first);
    driver.destroy(id).await.expect("destroyed");
    driver.snapshot_remove(&snapshot).await.expect("removed");
    gone(machine, &driver, &[""]).await;
}

/// Who asks for a snapshot hears what is in the way of it.
async fn says_what_is_in_the_way(machine: &Machine) {
    let driver = machine.start().await;
    let mut spec = spec(machine);
    spec.security.nested_namespaces = true;
    let id = &spec.id;
    driver.launch(spec.clone()).await.expect("launched");
    // Nobody in there may write what is root's.
    let nest = "echo $$ >/pid; : >/held; exec unshare -U sh -c 'echo held; exec sleep 1000' >/held";
    detach(&driver, id, nest).await;
    let checkpoint = async || {
        let wanted = CheckpointSpec {
            snapshot: SnapshotId::generate(),
            parent: None,
            content: SnapshotContent::Memory,
            then: Then::Stop,
            timeout: Duration::from_secs(30),
        };
        let snapshot = wanted.snapshot.clone();
        driver.checkpoint(id, wanted).await.map(|_| snapshot)
    };
    match checkpoint().await {
        Err(DriverError::Checkpoint {
            reason, transient, ..
        }) => {
            assert!(reason.contains("namespace") && !transient, "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let stream = driver.connect(id).await.expect("it goes on");
    guest::script(stream, "kill $(cat /pid)").await;
    let snapshot = loop {
        // Until it has ended.
        match checkpoint().await {
            Ok(snapshot) => break snapshot,
            Err(DriverError::Checkpoint { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    };
    driver.destroy(id).await.expect("destroyed");
    driver.snapshot_remove(&snapshot).await.expect("removed");
    gone(machine, &driver, &[""]).await;
}

/// Waits until no trace begins like one of these.
async fn gone(machine: &Machine, driver: &dyn Driver, prefixes: &[&str]) {
    let left = || {
        let mut traces = machine.traces(driver);
        traces.retain(|trace| prefixes.iter().any(|prefix| trace.starts_with(prefix)));
        traces
    };
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if left().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("left behind: {:?}", left());
}

/// However a server dies while it puts a sandbox to sleep: the sandbox runs on, or its snapshot is
/// complete.
async fn survives_the_server(machine: &Machine) {
    let mut slept = 0;
    let mut whole = Duration::ZERO;
    for round in 0..16_u32 {
        let driver = machine.start().await;
        let spec = spec(machine);
        driver.launch(spec.clone()).await.expect("launched");
        let first = guest::boot_id(driver.connect(&spec.id).await.expect("connected")).await;
        drop(driver);
        let snapshot = SnapshotId::generate();
        let mut server = Server::start(machine, "__checkpoint", &spec.id, &snapshot);
        server.wait();
        if round == 0 {
            let start = Instant::now();
            server.wait();
            whole = start.elapsed();
        } else {
            // From at once to long after.
            std::thread::sleep(whole * (round - 1) / 10);
        }
        drop(server);
        let mut driver = machine.start().await;
        let complete = driver.snapshot_reconcile(&[]).await.expect("reconciled");
        if let Ok(stream) = driver.connect(&spec.id).await {
            assert_eq!(guest::boot_id(stream).await, first);
        } else {
            slept += 1;
            assert_eq!(
                complete,
                std::slice::from_ref(&snapshot),
                "lost in round {round}"
            );
            drop(driver);
            let mut server = Server::start(machine, "__restore", &spec.id, &snapshot);
            server.wait();
            server.wait();
            drop(server);
            driver = machine.start().await;
            let stream = driver.connect(&spec.id).await.expect("connected");
            assert_eq!(guest::boot_id(stream).await, first);
        }
        driver.snapshot_remove(&snapshot).await.expect("removed");
        driver.destroy(&spec.id).await.expect("destroyed");
    }
    assert!(slept > 0, "the first one was given its time");
    let driver = machine.start().await;
    gone(machine, &driver, &[""]).await;
}

/// A server of its own, killed when dropped.
struct Server {
    process: std::process::Child,
    out: std::process::ChildStdout,
}

impl Server {
    fn start(machine: &Machine, what: &str, id: &SandboxId, snapshot: &SnapshotId) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args([what.as_ref(), machine.dir.path().as_os_str()])
            .args([id.as_str(), snapshot.as_str()])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a server");
        let out = process.stdout.take().expect("its output");
        Self { process, out }
    }

    /// Until it has begun, and then until it is done.
    fn wait(&mut self) {
        std::io::Read::read_exact(&mut self.out, &mut [0]).expect("it says so");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
    }
}

/// What such a server does: one thing, saying when it begins and when it is done.
async fn serve_once(restore: bool, mut args: std::env::ArgsOs) {
    let mut next = || args.next().and_then(|arg| arg.into_string().ok());
    let dir = PathBuf::from(next().expect("a directory"));
    let id: SandboxId = next().expect("an id").parse().expect("an id");
    let snapshot: SnapshotId = next().expect("an id").parse().expect("an id");
    let tell = || {
        use std::io::Write as _;
        let mut out = std::io::stdout();
        let told = out.write_all(b"!").and_then(|()| out.flush());
        told.expect("told");
    };
    let (content, timeout) = (SnapshotContent::Memory, Duration::from_secs(30));
    let options = options(dir.join("data"), b"");
    let driver = NativeDriver::start(options).await.expect("it starts");
    tell();
    if restore {
        let launch = LaunchSpec {
            hostname: id.to_string(),
            id,
            layers: vec![dir.join("layer")],
            resources: Resources::default(),
            egress: Egress::default(),
            security: SecurityOptions::default(),
            volumes: Vec::new(),
        };
        let wanted = RestoreSpec {
            launch,
            snapshot,
            outbound: Outbound::Keep,
            content,
            timeout,
        };
        driver.restore(wanted).await.expect("awake");
    } else {
        let wanted = CheckpointSpec {
            snapshot,
            parent: None,
            content,
            then: Then::Stop,
            timeout,
        };
        driver.checkpoint(&id, wanted).await.expect("asleep");
    }
    tell();
    std::future::pending().await
}

fn options(data_dir: PathBuf, guest: &'static [u8]) -> NativeOptions {
    NativeOptions {
        data_dir,
        guest,
        uid_base: 1_000_000_000,
        launchers: 2,
        pool_size: Some(2 << 30),
        cidr: None,
        allow_private: Vec::new(),
        egress: woodfrog_driver_native::EgressOptions::default(),
        favor_moves: false,
        lazy_pages: LazyPages::IfAllowed,
    }
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
    let mut args = std::env::args_os();
    let role = args.nth(1).and_then(|role| role.into_string().ok());
    if let Some(role @ ("__checkpoint" | "__restore")) = role.as_deref() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(serve_once(role == "__restore", args));
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
    macro_rules! own {
        ($($name:ident),*) => {
            $(trials.push(Trial::test(stringify!($name), {
                let (machine, handle) = (Arc::clone(&machine), handle.clone());
                move || {
                    handle.block_on($name(&machine));
                    Ok(())
                }
            }));)*
        };
    }
    own![
        outlives_its_launchers,
        shares_what_did_not_change,
        gives_up_in_time,
        says_what_is_in_the_way,
        survives_the_server
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    let purged = runtime.block_on(async { machine.start().await.purge().await });
    if let Err(error) = purged {
        eprintln!("purge: {error:?}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
