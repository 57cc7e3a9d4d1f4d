//! cgroup limits, freezing and clean destruction, on the real kernel, as root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Bench, eventually};
use woodfrog_linux::cgroup::{Group, Hierarchies, Limits};
use woodfrog_linux::process::Exit;

/// A group with its own name, removed with its parent.
struct Scope {
    top: Group,
    group: Group,
}

impl Scope {
    fn new(name: &str, limits: &Limits) -> Self {
        let hierarchies = Hierarchies::detect().unwrap();
        let top = format!("wftest-{}-{name}", std::process::id());
        let group = hierarchies.create(&format!("{top}/sb"), limits).unwrap();
        Self {
            top: hierarchies.group(&top),
            group,
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = self.group.kill_all();
        let _ = self.group.remove();
        let _ = self.top.remove();
    }
}

fn run(bench: &mut Bench, scope: &Scope, script: &str) -> (String, Exit) {
    let mut spec = bench.spec("a", &format!("exec >/out 2>&1; {script}"));
    spec.cgroup = scope.group.join();
    bench.launch(spec).unwrap();
    let exit = bench.exit_of("a");
    (bench.out("a"), exit)
}

#[test]
fn a_memory_bomb_is_killed_and_init_is_not() {
    let limits = Limits {
        memory_bytes: Some(32 << 20),
        ..Limits::default()
    };
    let scope = Scope::new("memory", &limits);
    let mut bench = Bench::new();
    let bomb = "perl -e '$x = \"frog\" x (64 << 20); print length $x' & wait $!; echo $?";
    let (text, exit) = run(&mut bench, &scope, bomb);
    assert!(text.ends_with("137\n"), "{text}");
    assert_eq!(exit, Exit::Code(0));
    let usage = scope.group.usage().unwrap();
    assert_eq!((usage.oom_kills, usage.memory_limit), (1, Some(32 << 20)));
    assert!(usage.cpu_nanos > 0);
}

#[test]
fn forks_beyond_the_limit_fail() {
    let scope = Scope::new(
        "pids",
        &Limits {
            pids: Some(8),
            ..Limits::default()
        },
    );
    let mut bench = Bench::new();
    let script = "perl -e 'for (1..20) { my $p = fork; \
        if (!defined $p) { print $! + 0, \" $_\\n\"; exit } if (!$p) { sleep 100; exit } }'";
    let (text, _) = run(&mut bench, &scope, script);
    assert_eq!(text, format!("{} 7\n", libc::EAGAIN));
}

#[test]
fn cpu_is_limited() {
    let scope = Scope::new(
        "cpu",
        &Limits {
            cpu_millicores: Some(200),
            ..Limits::default()
        },
    );
    let mut bench = Bench::new();
    let script = "perl -e 'use Time::HiRes; ' 2>/dev/null; \
        perl -e '$t = time; while (time < $t + 2) {} print join \" \", times'";
    run(&mut bench, &scope, script);
    let used = scope.group.usage().unwrap().cpu_nanos;
    assert!(
        used < 1_000_000_000,
        "{used} ns in at least 1 s of wall clock at a fifth of a core"
    );
}

#[test]
fn freezing_stops_and_destroying_leaves_nothing() {
    let scope = Scope::new("freeze", &Limits::default());
    let mut bench = Bench::new();
    let mut spec = bench.spec("a", "while :; do echo x >>/out; sleep 0.01; done");
    spec.cgroup = scope.group.join();
    bench.launch(spec).unwrap();
    eventually("it runs", || bench.out("a").len() > 4);
    scope.group.freeze().unwrap();
    assert!(scope.group.is_frozen().unwrap());
    // Not by CPU time: the kernel books the last tick of a stopped task late.
    let written = bench.out("a").len();
    std::thread::sleep(std::time::Duration::from_millis(50)); // time in which nothing may happen
    assert_eq!(bench.out("a").len(), written);
    scope.group.thaw().unwrap();
    let before = bench.out("a").len();
    eventually("it goes on", || bench.out("a").len() > before);
    scope.group.freeze().unwrap();
    assert_eq!(bench.destroy("a"), Exit::Signal(libc::SIGKILL));
    assert!(scope.group.pids().unwrap().is_empty());
    scope.group.remove().unwrap();
    assert!(scope.group.dirs().all(|dir| !dir.exists()));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(bench.dir.path().to_str().unwrap()));
}
