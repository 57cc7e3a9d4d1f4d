//! How fast CRIU alone is: one bare process of the host, with so much memory.
//!
//! `cargo run -p woodfrog-linux --example criu_floor --release -- MIB ROUNDS` prints lines of JSON
//! for the benchmark. Needs root and the private CRIU. Works in a directory in /var/tmp and
//! removes it.

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use woodfrog_linux::criu::{
    After, Criu, DumpSpec, Found, Images, NetworkMode, RestoreSpec, default_prefix, dump, find,
    restore,
};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Fills its memory, says so in a file, and waits.
const HOLDER: &str = "
import os, sys, time
held = [os.urandom(1 << 20) for _ in range(int(sys.argv[1]))]
open(sys.argv[2], 'w').write('ready')
while True:
    time.sleep(1000)
";

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mib = args.next().ok_or("how many MiB?")?;
    let rounds: usize = args.next().ok_or("how many rounds?")?.parse()?;
    let Found::Suitable(criu) = find(&default_prefix()) else {
        return Err("no CRIU that suits: `woodfrog doctor --fix`".into());
    };
    let dir = tempfile::Builder::new()
        .prefix("wf-criu-floor")
        .tempdir_in("/var/tmp")?;
    let (mut down, mut up) = (Vec::new(), Vec::new());
    let mut pid = start(&mib, &dir.path().join("ready"))?;
    let result = (0..rounds).try_for_each(|number| {
        let round = dir.path().join(number.to_string());
        let (dumped, restored) = turn(&criu, &round, &mut pid)?;
        down.push(dumped.as_secs_f64() * 1000.0);
        up.push(restored.as_secs_f64() * 1000.0);
        std::fs::remove_dir_all(&round)?;
        Ok(())
    });
    if let Some(pid) = pid {
        // It may be gone already.
        let _ = kill_process(pid, Signal::KILL);
        let _ = waitpid(Some(pid), WaitOptions::empty());
    }
    row("dump", &down);
    row("restore", &up);
    result
}

fn row(name: &str, millis: &[f64]) {
    println!("{}", serde_json::json!({ "name": name, "millis": millis }));
}

/// In a session of its own, with nothing open but `/dev/null`.
fn start(mib: &str, ready: &Path) -> Result<Option<Pid>, Box<dyn Error>> {
    let child = Command::new("setsid")
        .args(["python3", "-c", HOLDER, mib])
        .arg(ready)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()?;
    let deadline = Instant::now() + TIMEOUT;
    while !ready.exists() {
        if Instant::now() > deadline {
            return Err("the process does not come to an end of filling its memory".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Some(Pid::from_child(&child)))
}

/// Dumps and restores it; `pid` is `None` in between.
fn turn(
    criu: &Criu,
    dir: &Path,
    pid: &mut Option<Pid>,
) -> Result<(Duration, Duration), Box<dyn Error>> {
    let images = Images {
        images: dir.join("images"),
        work: dir.join("work"),
    };
    std::fs::create_dir_all(&images.images)?;
    std::fs::create_dir_all(&images.work)?;
    let network = File::open("/proc/self/ns/net")?;
    let process = pid.ok_or("no process")?;
    let spec = DumpSpec {
        pid: u32::try_from(process.as_raw_nonzero().get())?,
        network: NetworkMode::HostOwned(network.as_fd()),
        images: &images,
        after: After::Killed,
        external: &[],
        timeout: TIMEOUT,
    };
    let began = Instant::now();
    dump(criu, &spec, &mut |_| Ok(()))?;
    let dumped = began.elapsed();
    waitpid(Some(process), WaitOptions::empty())?;
    *pid = None;
    // On disk, as a hibernation is.
    let began = Instant::now();
    for file in std::fs::read_dir(&images.images)? {
        File::open(file?.path())?.sync_all()?;
    }
    File::open(&images.images)?.sync_all()?;
    let dumped = dumped + began.elapsed();
    let spec = RestoreSpec {
        root: Path::new("/"),
        network: NetworkMode::HostOwned(network.as_fd()),
        images: &images,
        external: &[],
        trees: &[],
        group: None,
        timeout: TIMEOUT,
    };
    let began = Instant::now();
    let restored = restore(criu, &spec, &mut |_| Ok(()))?;
    let took = began.elapsed();
    *pid = Pid::from_raw(i32::try_from(restored)?);
    alive(restored)?;
    Ok((dumped, took))
}

fn alive(pid: u32) -> Result<(), Box<dyn Error>> {
    let mut text = String::new();
    File::open(format!("/proc/{pid}/cmdline"))?.read_to_string(&mut text)?;
    if text.contains("python3") {
        return Ok(());
    }
    Err(format!("{pid} is {text:?}").into())
}
