//! How fast sandboxes start: `cargo run -p woodfrog-linux --example floor --release [rounds]`.
//!
//! With `--rows` after the rounds it prints the bare floor alone, as lines of JSON for the benchmark.
//! Needs root. Uses a directory in /var/tmp and cgroups of its own, and removes both.

mod bare;

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use woodfrog_linux::cgroup::{Hierarchies, Limits};
use woodfrog_linux::launcher::{
    Call, CgroupJoin, Client, DestroySpec, Event, LaunchSpec, Network, TmpfsSizes, adopt_stdin,
    default_masked, launcher_main, start,
};
use woodfrog_linux::{netns, seccomp::SeccompPolicy, skeleton};

const TIMEOUT: Duration = Duration::from_secs(10);

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("__launcher") {
        launcher_main(adopt_stdin()?);
    }
    let rounds: usize = argument.map_or(Ok(200), |text| text.parse())?;
    let dir = tempfile::Builder::new()
        .prefix("wf-floor")
        .tempdir_in("/var/tmp")?;
    fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    skeleton::create(&dir.path().join("skeleton"), b"")?;
    let root = dir.path().join("base");
    base(&root)?;
    let whole = bare::rounds(dir.path(), &root, bare::Net::Shared, rounds)?;
    let with_net = bare::rounds(dir.path(), &root, bare::Net::Own, rounds)?;
    if std::env::args().nth(2).as_deref() == Some("--rows") {
        row("floor: clone3, overlay, pivot_root, exec", &whole);
        row("floor: the same with a network namespace", &with_net);
        return Ok(());
    }
    println!("bare floor ({rounds} rounds)");
    show("shared net", &mut whole.clone());
    show("own net", &mut with_net.clone());
    let me = CString::new(
        std::env::current_exe()?
            .into_os_string()
            .into_encoded_bytes(),
    )?;
    let (socket, _launcher) = start(me.clone(), vec![me, CString::from(c"__launcher")])?;
    let mut client = Client::new(socket);

    bench(
        &mut client,
        dir.path(),
        rounds,
        "without cgroups, masks and read-only paths",
        Extent::Bare,
    )?;
    let mut whole = |what, extent| bench(&mut client, dir.path(), rounds, what, extent);
    whole("with everything", Extent::Whole)?;
    whole("with everything, its own network", Extent::OwnNetwork)
}

/// How much of a sandbox is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Bare,
    Whole,
    OwnNetwork,
}

/// One line of JSON: what it is and every time in milliseconds.
fn row(name: &str, times: &[Duration]) {
    let millis: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1000.0).collect();
    println!("{}", serde_json::json!({ "name": name, "millis": millis }));
}

/// A layer with one program.
fn base(root: &Path) -> Outcome<()> {
    let ldd = Command::new("ldd").arg("/usr/bin/sleep").output()?.stdout;
    let ldd = String::from_utf8(ldd)?;
    for path in ldd
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .chain(["/usr/bin/sleep"])
    {
        let to = root.join(&path[1..]);
        fs::create_dir_all(to.parent().ok_or("a path without a directory")?)?;
        fs::copy(path, to)?;
    }
    Ok(())
}

fn bench(
    client: &mut Client,
    dir: &Path,
    rounds: usize,
    what: &str,
    extent: Extent,
) -> Outcome<()> {
    let whole = extent != Extent::Bare;
    let hierarchies = Hierarchies::detect()?;
    let instance = format!("wffloor-{}", std::process::id());
    let (mut ahead, mut launches, mut groups, mut ends) = (vec![], vec![], vec![], vec![]);
    let mut steps: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for round in 0..rounds {
        let id = format!("{extent:?}-{round}");
        let upper = dir.join(&id);
        fs::create_dir_all(upper.join("u"))?;
        fs::create_dir_all(upper.join("w"))?;
        let begun = Instant::now();
        let (netns, owner) = match extent {
            Extent::Bare | Extent::Whole => (netns::create()?, None),
            Extent::OwnNetwork => {
                let pair = netns::create_owned()?;
                (pair.network, Some(pair.user))
            }
        };
        ahead.push(begun.elapsed());
        let fds: Vec<_> = [Some(&netns), owner.as_ref()]
            .into_iter()
            .flatten()
            .map(AsFd::as_fd)
            .collect();
        let limits = Limits {
            memory_bytes: Some(256 << 20),
            cpu_millicores: Some(1000),
            pids: Some(512),
        };
        let begun = Instant::now();
        let group = hierarchies.create(&format!("{instance}/{id}"), &limits)?;
        groups.push(begun.elapsed());
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let spec = LaunchSpec {
            id: id.clone(),
            hostname: "floor".to_owned(),
            uid_base: 1_000_000,
            layers: vec![text(&dir.join("skeleton")), text(&dir.join("base"))],
            upper_dir: text(&upper),
            network: match owner {
                Some(_) => Network::Owned,
                None => Network::Given,
            },
            cgroup: if whole {
                group.join()
            } else {
                CgroupJoin::default()
            },
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
            masked: if whole { default_masked() } else { vec![] },
            readonly: if whole {
                vec!["/proc/sys".to_owned()]
            } else {
                vec![]
            },
            directories: Vec::new(),
            oom_score_adj: None,
        };
        let begun = Instant::now();
        match client.call(Call::Launch(Box::new(spec)), &fds, TIMEOUT)?.0 {
            Event::Launched(launched) => {
                launches.push(begun.elapsed());
                for (step, micros) in launched.timing.0 {
                    steps.entry(step).or_default().push(micros);
                }
            }
            other => return Err(format!("{other:?}").into()),
        }
        let begun = Instant::now();
        client.call(Call::Destroy(DestroySpec { id }), &[], TIMEOUT)?;
        ends.push(begun.elapsed());
        group.remove()?;
    }
    hierarchies.group(&instance).remove()?;
    println!("{what} ({rounds} rounds)");
    show("network, ahead", &mut ahead);
    show("launch", &mut launches);
    show("make cgroup", &mut groups);
    show("destroy", &mut ends);
    for (step, mut micros) in steps {
        micros.sort_unstable();
        println!("    {step:<24} p50 {:>6} us", micros[micros.len() / 2]);
    }
    Ok(())
}

fn show(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "  {name:<14} p50 {:?}  p99 {:?}  max {:?}",
        at(50),
        at(99),
        at(100)
    );
}
