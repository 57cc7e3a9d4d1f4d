//! Checkpoints that are given up, refused, late, or leave the sandbox running, as root, where there
//! is a CRIU for this kernel.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod napper;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::eventually;
use napper::{Napper, Outside};
use woodfrog_linux::cgroup::{Hierarchies, Limits};
use woodfrog_linux::criu::{
    After, LazyPages, POST_DUMP, Refusal, RpcError, SETUP_NAMESPACES, allow_lazy_pages, lazy_pages,
    obstacles,
};
use woodfrog_linux::seccomp::SeccompPolicy;

#[test]
fn a_sandbox_can_go_on_after_its_checkpoint_and_be_restored_as_it_was_then() {
    let Some(mut napper) = Napper::new() else {
        return;
    };
    assert_eq!(napper.ask(), "1 1 true true\n");
    napper.is_masked();
    napper.dump(After::Running, &mut |_| Ok(())).unwrap();
    assert_eq!(napper.ask(), "2 2 true true\n");
    assert_eq!(napper.ask(), "3 3 true true\n");
    napper.end();
    napper.restore(None, &mut |_| Ok(())).unwrap();
    assert_eq!(napper.ask(), "2 2 true true\n");
    // And once more, of what was restored.
    napper.dump(After::Killed, &mut |_| Ok(())).unwrap();
    napper.restore(None, &mut |_| Ok(())).unwrap();
    assert_eq!(napper.ask(), "3 3 true true\n");
    napper.is_masked();
}

#[test]
fn a_checkpoint_given_up_leaves_the_sandbox_running() {
    let Some(napper) = Napper::new() else {
        return;
    };
    let mut names = vec![];
    for round in 1..4 {
        let failed = napper.dump(After::Killed, &mut |notice| {
            names.push(notice.name.clone());
            match notice.name == POST_DUMP {
                true => Err(std::io::Error::other("not recorded")),
                false => Ok(()),
            }
        });
        assert!(matches!(failed, Err(RpcError::GivenUp(_))), "{failed:?}");
        assert_eq!(napper.ask(), format!("{round} {round} true true\n"));
    }
    assert_eq!(names.iter().filter(|name| *name == POST_DUMP).count(), 3);
    napper.nothing_is_left();
}

#[test]
fn a_restore_given_up_or_late_leaves_no_process() {
    let Some(mut napper) = Napper::new() else {
        return;
    };
    assert_eq!(napper.ask(), "1 1 true true\n");
    napper.dump(After::Killed, &mut |_| Ok(())).unwrap();
    for at in [SETUP_NAMESPACES, "post-restore", "pre-resume"] {
        let mut seen = 0;
        let failed = napper.restore(None, &mut |notice| match notice.name == at {
            true => {
                seen = notice.pid;
                Err(std::io::Error::other("no"))
            }
            false => Ok(()),
        });
        assert!(matches!(failed, Err(RpcError::GivenUp(_))), "{failed:?}");
        napper.nothing_is_left();
        assert!(at != SETUP_NAMESPACES || seen != 0);
    }
    for micros in [1, 3000, 6000, 9000, 12_000, 20_000, 30_000, 45_000] {
        napper.timeout = Duration::from_micros(micros);
        match napper.restore(None, &mut |_| Ok(())) {
            Ok(()) => napper.end(),
            Err(RpcError::Timeout { .. }) => {}
            other => panic!("{other:?}"),
        }
        napper.nothing_is_left();
    }
    napper.timeout = common::TIMEOUT;
    napper.restore(None, &mut |_| Ok(())).unwrap();
    assert_eq!(napper.ask(), "2 2 true true\n");
}

#[test]
fn a_checkpoint_that_is_late_leaves_the_sandbox_running() {
    let Some(mut napper) = Napper::new() else {
        return;
    };
    let mut round = 0;
    for micros in [1, 3000, 6000, 9000, 12_000, 20_000, 30_000] {
        napper.timeout = Duration::from_micros(micros);
        match napper.dump(After::Running, &mut |_| Ok(())) {
            Ok(()) | Err(RpcError::Timeout { .. }) => {}
            other => panic!("{other:?}"),
        }
        round += 1;
        assert_eq!(napper.ask(), format!("{round} {round} true true\n"));
    }
    napper.nothing_is_left();
}

#[test]
fn connections_live_on_when_criu_is_killed_in_the_middle() {
    let Some(napper) = Napper::new() else {
        return;
    };
    for round in 1..4 {
        let failed = napper.dump(After::Killed, &mut |notice| {
            if notice.name == POST_DUMP {
                napper.kill_criu();
            }
            Ok(())
        });
        let died = matches!(failed, Err(RpcError::Died { .. } | RpcError::Io(_)));
        assert!(died, "{failed:?}");
        assert_eq!(napper.ask(), format!("{round} {round} true true\n"));
    }
    napper.nothing_is_left();
}

#[test]
fn connections_to_the_outside_live_on_where_the_addresses_stay() {
    let script = r#"socket(L, 2, 1, 0); bind(L, pack("S n C4 x8", 2, 7000, 0, 0, 0, 0)) or die;
        listen(L, 5); accept(C, L); while (sysread(C, $b, 1)) { syswrite(C, uc $b) }"#;
    let Some(mut napper) = Napper::running(
        "/usr/bin/perl",
        &["perl", "-e", script],
        SeccompPolicy::default(),
    ) else {
        return;
    };
    // A child of ours, too: not before we are alone.
    if std::process::Command::new("ip").arg("-V").output().is_err() {
        println!("NOT RUN: there is no `ip`");
        return;
    }
    let mut outside = Outside::new();
    outside.link(napper.pid());
    let mut connection = outside.connect(7000);
    connection.set_read_timeout(Some(common::TIMEOUT)).unwrap();
    let mut exchange = |said: &[u8], expected: &[u8]| {
        connection.write_all(said).unwrap();
        let mut heard = [0];
        connection.read_exact(&mut heard).unwrap();
        assert_eq!(heard, expected);
    };
    exchange(b"a", b"A");
    for _ in 0..2 {
        napper.dump(After::Killed, &mut |_| Ok(())).unwrap();
        let link = &mut |notice: &woodfrog_linux::criu::Notice| {
            if notice.name == SETUP_NAMESPACES {
                outside.link(notice.pid);
            }
            Ok(())
        };
        napper.restore(None, link).unwrap();
        exchange(b"b", b"B");
    }
}

#[test]
fn a_restored_sandbox_pays_for_its_memory() {
    const MEMORY: u64 = 24 << 20;
    let Some(mut napper) = Napper::holding(MEMORY) else {
        return;
    };
    let hierarchies = Hierarchies::detect().unwrap();
    let instance = format!("wfnap-{}", std::process::id());
    let limits = Limits {
        memory_bytes: Some(256 << 20),
        cpu_millicores: Some(500),
        pids: Some(16),
    };
    let group = hierarchies
        .create(&format!("{instance}/one"), &limits)
        .unwrap();
    assert_eq!(napper.ask(), "1 1 true true\n");
    napper.dump(After::Killed, &mut |_| Ok(())).unwrap();
    let failed = napper.restore(Some(&group), &mut |_| Err(std::io::Error::other("no")));
    assert!(matches!(failed, Err(RpcError::GivenUp(_))), "{failed:?}");
    eventually("the group is empty", || group.pids().unwrap().is_empty());
    napper.restore(Some(&group), &mut |_| Ok(())).unwrap();
    assert_eq!(napper.ask(), "2 2 true true\n");
    let usage = group.usage().unwrap();
    let anonymous = usage.memory_bytes - usage.cache_bytes;
    assert!(anonymous > MEMORY, "{usage:?}");
    assert_eq!(usage.memory_limit, limits.memory_bytes);
    assert_eq!(group.pids().unwrap(), [napper.pid()]);
    napper.end();
    group.kill_all().unwrap();
    group.remove().unwrap();
    hierarchies.group(&instance).remove().unwrap();
}

/// What the sandbox does, the reason that CRIU's log must give, and whether it is seen before.
#[cfg(target_arch = "x86_64")]
const REFUSED: [(&str, Refusal, bool); 5] = [
    (
        "$p = pack 'x256'; syscall(425, 4, $p) >= 0 or die",
        Refusal::IoUring,
        true,
    ),
    ("syscall(323, 1) >= 0 or die", Refusal::Userfaultfd, true),
    (
        "$p = fork || exec 'unshare', '-U', 'sh', '-c', ': >/nested; exec sleep 1000'; \
         select undef, undef, undef, .01 until -e '/nested'",
        Refusal::NestedUserNamespace,
        true,
    ),
    (
        "socket(L, 1, 1, 0); bind(L, pack('S a*', 1, '/in-flight')); listen(L, 5); \
         socket(C, 1, 1, 0); connect(C, pack('S a*', 1, '/in-flight')) or die; syswrite C, 'x'",
        Refusal::UnixInFlight,
        false,
    ),
    (
        "$p = pack 'Q', 1; syscall(444, $p, 8, 0) >= 0 or die",
        Refusal::FileKind,
        false,
    ),
];

#[test]
#[cfg(target_arch = "x86_64")]
fn refusals_are_read_from_the_log() {
    let free = SeccompPolicy {
        allow_nested_namespaces: true,
        allow_io_uring: true,
        allow_userfaultfd: true,
        allow_landlock: true,
        allow_message_queues: true,
    };
    for (script, refusal, seen) in REFUSED {
        // A checkpoint, also one that fails, interrupts a sleep.
        let script = format!("{script}; open F, '>', '/ready'; close F; sleep 1000 while 1");
        let Some(napper) = Napper::running("/usr/bin/perl", &["perl", "-e", &script], free) else {
            return;
        };
        eventually("the script is ready", || napper.said("ready"));
        let failed = napper.dump(After::Killed, &mut |_| Ok(())).unwrap_err();
        assert_eq!(failed.refusal(), Some(refusal), "{failed}");
        let pids = napper.pids();
        let found = obstacles(napper.pid(), &pids);
        let expected = seen.then_some(refusal);
        assert_eq!(found.first().map(|found| found.refusal), expected);
        assert_eq!(napper.pids(), pids, "all of them live on");
    }
}

#[test]
fn a_traced_process_is_named_as_the_reason() {
    let Some(napper) = Napper::new() else {
        return;
    };
    napper.ask();
    let pid = napper.pid().to_string();
    let tracer = napper::Tracer::of(&pid);
    let failed = napper.dump(After::Killed, &mut |_| Ok(())).unwrap_err();
    assert_eq!(failed.refusal(), Some(Refusal::Traced), "{failed}");
    assert!(failed.to_string().contains("traced"), "{failed}");
    let found = obstacles(napper.pid(), &[napper.pid()]);
    assert_eq!(
        found.first().map(|found| found.refusal),
        Some(Refusal::Traced)
    );
    drop(tracer);
    assert_eq!(obstacles(napper.pid(), &[napper.pid()]), []);
    assert_eq!(napper.ask(), "2 2 true true\n");
}

/// Puts the machine's setting back.
struct Setting(String);

impl Setting {
    const FILE: &str = "/proc/sys/vm/unprivileged_userfaultfd";
}

impl Drop for Setting {
    fn drop(&mut self) {
        std::fs::write(Self::FILE, &self.0).unwrap();
    }
}

#[test]
fn memory_can_come_later() {
    const MEMORY: u64 = 64 << 20;
    let Some(mut napper) = Napper::holding(MEMORY) else {
        return;
    };
    let Ok(before) = std::fs::read_to_string(Setting::FILE) else {
        assert_eq!(lazy_pages(), LazyPages::Missing);
        return;
    };
    let _setting = Setting(before);
    allow_lazy_pages().unwrap();
    assert_eq!(lazy_pages(), LazyPages::Ready);
    assert_eq!(napper.ask(), "1 1 true true\n");
    napper.dump(After::Killed, &mut |_| Ok(())).unwrap();
    for round in [2, 4] {
        let begun = Instant::now();
        let mut daemon = napper.restore_lazily().unwrap();
        let restored = begun.elapsed();
        // All of it is touched.
        assert_eq!(napper.ask(), format!("{round} {round} true true\n"));
        assert!(daemon.wait(common::TIMEOUT).unwrap());
        println!("restored {restored:?}, all in {:?}", begun.elapsed());
        let next = round + 1;
        assert_eq!(napper.ask(), format!("{next} {next} true true\n"));
        napper.dump(After::Killed, &mut |_| Ok(())).unwrap();
    }
}
