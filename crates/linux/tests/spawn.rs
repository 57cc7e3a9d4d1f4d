//! Starting children, as root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{WaitOptions, waitpid};
use woodfrog_linux::caps::CapSet;
use woodfrog_linux::fdpass::{recv_with_fds, send_with_fds};
use woodfrog_linux::limits::{Resource, ResourceLimit};
use woodfrog_linux::spawn::{SpawnError, SpawnSpec, Stdio, spawn};

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn spec(program: &CStr, argv: &[&str], out: OwnedFd) -> SpawnSpec {
    let null = || {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap()
            .into()
    };
    SpawnSpec {
        program: program.to_owned(),
        argv: argv.iter().map(|arg| c(arg)).collect(),
        env: vec![c("PATH=/nonexistent:/usr/bin:/bin"), c("MARK=here")],
        cwd: c("/"),
        uid: 0,
        gid: 0,
        groups: Some(vec![]),
        stdio: Stdio::Fds {
            stdin: null(),
            stdout: out,
            stderr: null(),
        },
        rlimits: vec![],
        umask: 0o027,
        capabilities: CapSet::SANDBOX,
        oom_score_adj: None,
    }
}

fn run(mut change: impl FnMut(&mut SpawnSpec), script: &str) -> (String, i32) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut spec = spec(c"sh", &["sh", "-c", script], writer.into());
    change(&mut spec);
    let child = spawn(spec).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let (_, status) = waitpid(Some(child.pid), WaitOptions::empty())
        .unwrap()
        .unwrap();
    (text, status.exit_status().unwrap_or(-1))
}

#[test]
fn child_has_what_was_asked_for() {
    let limit = ResourceLimit {
        resource: Resource::OpenFiles,
        soft: Some(99),
        hard: Some(100),
    };
    let (text, code) = run(
        |spec| {
            spec.uid = 65534;
            spec.gid = 65533;
            spec.groups = Some(vec![7, 8]);
            spec.cwd = c("/usr");
            spec.rlimits = vec![limit];
            spec.oom_score_adj = Some(321);
        },
        "id -u; id -g; id -G; pwd; umask; ulimit -Sn; ulimit -Hn; echo $MARK; \
         cat /proc/self/oom_score_adj; ls /proc/self/fd | wc -l; \
         test $(cut -d' ' -f6 /proc/$$/stat) = $$ && echo leader; exit 5",
    );
    let expected = "65534\n65533\n65533 7 8\n/usr\n0027\n99\n100\nhere\n321\n4\nleader\n";
    assert_eq!((text.as_str(), code), (expected, 5));
}

#[test]
fn capabilities_are_bounded_for_root_and_absent_for_others() {
    let read = "grep -E 'Cap(Bnd|Prm|Amb|Inh)' /proc/self/status | tr -d '\\t'";
    let bound = format!("{:016x}", CapSet::SANDBOX.0);
    let (text, _) = run(|_| {}, read);
    let zero = "0000000000000000";
    assert_eq!(
        text,
        format!("CapInh:{zero}\nCapPrm:{bound}\nCapBnd:{bound}\nCapAmb:{zero}\n")
    );
    let (text, _) = run(|spec| spec.uid = 1000, read);
    assert_eq!(
        text,
        format!("CapInh:{zero}\nCapPrm:{zero}\nCapBnd:{bound}\nCapAmb:{zero}\n")
    );
}

#[test]
fn signals_are_as_new() {
    let (text, _) = run(
        |_| {},
        "grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\\t'",
    );
    assert_eq!(text, "SigBlk:0000000000000000\nSigIgn:0000000000000000\n");
}

#[test]
fn a_terminal_becomes_the_controlling_one() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, vec![]).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let slave = rustix::fs::open(&name, flags, rustix::fs::Mode::empty()).unwrap();
    let (_, unused) = std::io::pipe().unwrap();
    let script = "exec </dev/tty; read line; echo got $line; tty";
    let mut spec = spec(c"/bin/sh", &["sh", "-c", script], unused.into());
    spec.stdio = Stdio::Terminal(slave);
    let child = spawn(spec).unwrap();
    let mut master = File::from(master);
    master.write_all(b"frog\n").unwrap();
    waitpid(Some(child.pid), WaitOptions::empty()).unwrap();
    let mut bytes = Vec::new();
    let _ = master.read_to_end(&mut bytes); // ends with EIO
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.contains("got frog") && text.contains("/dev/tty"),
        "{text}"
    );
}

#[test]
fn failures_are_told_apart() {
    let attempt = |change: &dyn Fn(&mut SpawnSpec)| {
        let (_, writer) = std::io::pipe().unwrap();
        let mut spec = spec(c"sh", &["sh"], writer.into());
        change(&mut spec);
        spawn(spec).unwrap_err()
    };
    assert!(matches!(
        attempt(&|s| s.program = c("/no/such")),
        SpawnError::NotFound
    ));
    assert!(matches!(
        attempt(&|s| s.program = c("no-such")),
        SpawnError::NotFound
    ));
    assert!(matches!(
        attempt(&|s| s.program = c("/etc/passwd")),
        SpawnError::NotExecutable
    ));
    assert!(matches!(
        attempt(&|s| s.program = c("/usr")),
        SpawnError::NotExecutable
    ));
    assert!(matches!(
        attempt(&|s| s.cwd = c("/none")),
        SpawnError::WorkingDirectory(_)
    ));
    let locked_out = attempt(&|s| {
        s.uid = 1000;
        s.cwd = c("/proc/1/fd");
    });
    assert!(matches!(locked_out, SpawnError::WorkingDirectory(_)));
}

#[test]
fn many_threads_can_spawn_at_once() {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(run(|_| {}, "exit 3"), (String::new(), 3));
                }
            });
        }
    });
}

#[test]
fn descriptors_travel_and_long_messages_are_refused() {
    let (a, b) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    send_with_fds(&a, b"take this", &[writer.as_fd()]).unwrap();
    drop(writer);
    let mut buffer = [0; 64];
    let mut received = recv_with_fds(&b, &mut buffer).unwrap();
    assert_eq!(&buffer[..received.len], b"take this");
    File::from(received.fds.remove(0))
        .write_all(b"hello")
        .unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    send_with_fds(&a, &[0; 65], &[]).unwrap();
    let error = recv_with_fds(&b, &mut buffer).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

#[test]
fn how_a_process_ended_is_known_by_its_pidfd_after_it_is_reaped() {
    use woodfrog_linux::process::{Exit, exit_of};
    let ended = |script: &str| {
        let (_, writer) = std::io::pipe().unwrap();
        let child = spawn(spec(c"sh", &["sh", "-c", script], writer.into())).unwrap();
        waitpid(Some(child.pid), WaitOptions::empty()).unwrap();
        exit_of(child.pidfd.as_fd())
    };
    match ended("exit 9") {
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => return, // before 6.15
        exit => assert_eq!(exit.unwrap(), Some(Exit::Code(9))),
    }
    assert_eq!(ended("kill -15 $$").unwrap(), Some(Exit::Signal(15)));
}
