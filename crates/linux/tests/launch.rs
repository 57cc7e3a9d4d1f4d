//! Sandboxes on the real kernel, as root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use common::{Bench, eventually};
use woodfrog_linux::launcher::{Call, DestroySpec, Event, MAX_MESSAGE, Network};
use woodfrog_linux::process::Exit;

#[test]
fn init_is_root_of_its_own_world() {
    Bench::both().into_iter().for_each(own_world);
}

fn own_world(mut bench: Bench) {
    let script = "echo $$; id -u; uname -n; cat /proc/self/uid_map | tr -s ' '; \
        set -- /proc/[0-9]*; echo $#; stat -c %a /tmp; touch /tmp/mine; \
        readlink /proc/$$/fd/0; ls /sys/class/net; umask; exit 7";
    let (text, exit) = bench.run("a", script);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "1",
            "0",
            "pond",
            "0 1000000 65536",
            "1",
            "1777",
            "/dev/null",
            "lo",
            "0022"
        ],
    );
    assert_eq!(exit, Exit::Code(7));
    let made = bench.dir.path().join("a/u/tmp/mine");
    assert_eq!(
        made.metadata().unwrap().uid(),
        0,
        "layers are stored unshifted"
    );
}

#[test]
fn host_sees_shifted_ids() {
    Bench::both().into_iter().for_each(shifted_ids);
}

fn shifted_ids(mut bench: Bench) {
    let spec = bench.spec("a", "sleep 1000");
    let (launched, _pidfd) = bench.launch(spec).unwrap();
    let proc = format!("/proc/{}", launched.identity.pid);
    eventually("init runs as the shifted root", || {
        std::fs::metadata(&proc).is_ok_and(|data| data.uid() == 1_000_000)
    });
    println!("{:?}", launched.timing);
    assert_eq!(bench.destroy("a"), Exit::Signal(libc::SIGKILL));
    assert!(!std::path::Path::new(&proc).exists());
}

#[test]
fn what_a_sandbox_must_not_do_is_refused() {
    Bench::both().into_iter().for_each(refused);
}

fn refused(mut bench: Bench) {
    // Perl's syscall() by number (x86-64): what comes back is the errno.
    let script = r#"perl -e '
        my %calls = (unshare => [272, 0x10000000], mount => [165, 0, 0, 0, 0, 0],
            init_module => [175, 0, 0, 0], io_uring_setup => [425, 1, 0], bpf => [321, 0, 0, 0],
            clone_newuser => [56, 0x10000011, 0, 0, 0, 0], clone3 => [435, 0, 0],
            vsock => [41, 40, 1, 0], tiocsti => [16, 0, 0x5412, 0], keyctl => [250, 0, 0],
            x32_getpid => [0x40000000 + 39],
            persona => [135, 0x10000]);
        for (sort keys %calls) {
            my @c = @{$calls{$_}};
            $! = 0; my $rc = syscall(shift @c, map { $_ + 0 } @c);
            print "$_ ", $rc == -1 ? $! + 0 : "went through", "\n";
        }'; grep -E 'Seccomp:|NoNewPrivs|CapBnd|CapEff' /proc/self/status | tr -d '\t'"#;
    let (text, _) = bench.run("a", script);
    let (eperm, enosys) = (libc::EPERM, libc::ENOSYS);
    let bound = format!("{:016x}", woodfrog_linux::caps::CapSet::SANDBOX.0);
    let expected = format!(
        "bpf {eperm}\nclone3 {enosys}\nclone_newuser {eperm}\ninit_module {eperm}\n\
         io_uring_setup {eperm}\nkeyctl {eperm}\nmount {eperm}\npersona {eperm}\n\
         tiocsti {eperm}\nunshare {eperm}\nvsock {eperm}\n\
         x32_getpid {enosys}\nCapEff:{bound}\nCapBnd:{bound}\nNoNewPrivs:0\nSeccomp:2\n"
    );
    assert_eq!(text, expected);
}

#[test]
fn kernel_files_are_masked_and_sysctls_read_only() {
    Bench::both().into_iter().for_each(masked);
}

fn masked(mut bench: Bench) {
    let script = "for f in kcore keys timer_list sysrq-trigger; do \
          test -e /proc/$f && stat -L -c '%n %t:%T' /proc/$f; done; \
        ls /sys/firmware | wc -l; touch /sys/x; echo a >/proc/sys/kernel/domainname; \
        ls /proc/acpi 2>/dev/null | wc -l; test -c /dev/null -a -c /dev/urandom && echo devices; \
        head -c 4 /dev/urandom | wc -c; readlink /dev/tty";
    let (text, _) = bench.run("a", script);
    for file in ["kcore", "keys", "timer_list", "sysrq-trigger"] {
        let path = format!("/proc/{file}");
        if std::path::Path::new(&path).exists() {
            assert!(text.contains(&format!("{path} 1:3\n")), "{text}");
        }
    }
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
    assert!(
        text.ends_with("\n0\ndevices\n4\n/proc/self/fd/2\n"),
        "{text}"
    );
}

#[test]
fn nested_namespaces_can_be_allowed() {
    let mut bench = Bench::new();
    let mut spec = bench.spec("a", "exec >/out 2>&1; unshare -U id -u");
    spec.seccomp.allow_nested_namespaces = true;
    bench.launch(spec).unwrap();
    bench.exit_of("a");
    assert_eq!(bench.out("a"), "65534\n");
}

#[test]
fn failures_name_step_and_path() {
    Bench::both().into_iter().for_each(failures);
}

fn failures(mut bench: Bench) {
    let mut spec = bench.spec("a", "");
    spec.program = "/no/such".to_owned();
    let failure = bench.launch(spec).unwrap_err();
    let told = (
        failure.step.as_str(),
        failure.path.as_deref(),
        failure.errno,
    );
    assert_eq!(told, ("exec", Some("/no/such"), libc::ENOENT));
    let mut spec = bench.spec("a", "");
    spec.layers.push("/no/layer".to_owned());
    let failure = bench.launch(spec).unwrap_err();
    let told = (
        failure.step.as_str(),
        failure.path.as_deref(),
        failure.errno,
    );
    assert_eq!(told, ("overlay", Some("/no/layer"), libc::ENOENT));
    // An upper layer that swaps a mount point for a link to elsewhere.
    let spec = bench.spec("b", "");
    std::os::unix::fs::symlink("/etc", format!("{}/u/run", spec.upper_dir)).unwrap();
    let failure = bench.launch(spec).unwrap_err();
    assert_eq!(
        (failure.step.as_str(), failure.path.as_deref()),
        ("attach file systems", Some("/run"))
    );
    let (text, _) = bench.run("c", "echo still serving");
    assert_eq!(text, "still serving\n");
}

#[test]
fn a_sandbox_outlives_its_launcher() {
    Bench::both().into_iter().for_each(outlives);
}

fn outlives(mut bench: Bench) {
    let spec = bench.spec("a", "sleep 1000 & echo up >/out; wait");
    let (launched, pidfd) = bench.launch(spec).unwrap();
    eventually("init is up", || bench.out("a") == "up\n");
    woodfrog_linux::process::kill(&bench.launcher_fd).unwrap();
    let ended = woodfrog_linux::process::wait_ended;
    assert!(ended(bench.launcher_fd.as_fd(), common::TIMEOUT).unwrap());
    let adopted = launched
        .identity
        .open()
        .unwrap()
        .expect("still the same process");
    assert!(!ended(adopted.as_fd(), std::time::Duration::from_millis(50)).unwrap());
    let mut stranger = launched.identity;
    stranger.starttime += 1;
    assert!(stranger.open().unwrap().is_none());
    woodfrog_linux::process::kill(&adopted).unwrap();
    assert!(ended(pidfd.as_fd(), common::TIMEOUT).unwrap());
    assert!(
        launched.identity.open().unwrap().is_none()
            || ended(pidfd.as_fd(), common::TIMEOUT).unwrap()
    );
}

#[test]
fn an_undumpable_init_cannot_be_traced_by_the_sandbox_root() {
    Bench::both().into_iter().for_each(undumpable);
}

fn undumpable(mut bench: Bench) {
    let script = r#"exec >/out 2>&1; id -u; cat /proc/$$/oom_score_adj
        perl -e '$! = 0; syscall(101, 16, 1, 0, 0); print "attach ", $! + 0, "\n";
            $p = fork || exec "sleep", "100";
            $! = 0; syscall(101, 0x4206, $p, 0, 0); print "own child ", $! + 0, "\n"; kill 9, $p;
            print "mem ", (open(M, "+<", "/proc/1/mem") ? "opened" : $! + 0), "\n";
            kill 9, 1; print "root ", readlink("/proc/1/root") // $! + 0, "\n"'"#;
    let mut spec = bench.spec("a", "");
    spec.program = "/usr/bin/init".to_owned();
    spec.argv = vec!["init".to_owned(), script.to_owned()];
    bench.launch(spec).unwrap();
    assert_eq!(bench.exit_of("a"), Exit::Code(0));
    let (eperm, eacces) = (libc::EPERM, libc::EACCES);
    let expected = format!("0\n100\nattach {eperm}\nown child 0\nmem {eacces}\nroot {eacces}\n");
    assert_eq!(bench.out("a"), expected);
}

#[test]
fn a_given_network_is_used_and_low_ports_are_open() {
    let mut bench = Bench::new();
    let (event, netns) = bench
        .client
        .call(Call::CreateNetns, &[], common::TIMEOUT)
        .unwrap();
    assert!(matches!(event, Event::Netns));
    let mut spec = bench.spec(
        "a",
        "exec >/out 2>&1; readlink /proc/self/ns/net; \
         perl -e 'socket(S, 2, 1, 0); $> = 1000; \
            print bind(S, pack(\"S n C4 x8\", 2, 80, 127, 0, 0, 1)) ? \"bound\" : $!'",
    );
    spec.network = Network::Given;
    let launch = Call::Launch(Box::new(spec.clone()));
    let (event, _) = bench
        .client
        .call(launch, &[netns[0].as_fd()], common::TIMEOUT)
        .unwrap();
    assert!(matches!(event, Event::Launched(_)), "{event:?}");
    bench.exit_of("a");
    let inode = rustix::fs::fstat(&netns[0]).unwrap().st_ino;
    assert_eq!(bench.out("a"), format!("net:[{inode}]\nbound"));
    spec.id = "b".to_owned();
    assert_eq!(bench.launch(spec).unwrap_err().detail, "none was sent");
}

#[test]
fn an_owned_network_belongs_to_the_sandbox() {
    Bench::both().into_iter().for_each(owned_network);
}

fn owned_network(mut bench: Bench) {
    let pair = woodfrog_linux::netns::create_owned().unwrap();
    let mut spec = bench.spec(
        "a",
        "exec >/out 2>&1; readlink /proc/self/ns/net /proc/self/ns/user; ls /sys/class/net; \
         cat /proc/self/uid_map | tr -s ' '; cat /sys/class/net/lo/flags; touch /sys/x; \
         perl -e 'socket(S, 2, 1, 0); $> = 1000; \
            print bind(S, pack(\"S n C4 x8\", 2, 80, 127, 0, 0, 1)) ? \"bound\" : $!, \"\\n\"; \
            print socket(I, 2, 2, 1) ? \"icmp\" : $!'",
    );
    spec.network = Network::Owned;
    let call = Call::Launch(Box::new(spec.clone()));
    let fds = [pair.network.as_fd(), pair.user.as_fd()];
    let (event, _) = bench.client.call(call, &fds, common::TIMEOUT).unwrap();
    let Event::Launched(launched) = event else {
        panic!("{event:?}")
    };
    println!("{:?}", launched.timing);
    assert_eq!(bench.exit_of("a"), Exit::Code(0));
    let inode = |fd: &std::os::fd::OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
    let expected = format!(
        "net:[{}]\nuser:[{}]\nlo\n 0 1000000 65536\n0x9\n\
         touch: cannot touch '/sys/x': Read-only file system\nbound\nicmp",
        inode(&pair.network),
        inode(&pair.user)
    );
    assert_eq!(bench.out("a"), expected);
    spec.id = "b".to_owned();
    let failure = bench.launch(spec.clone()).unwrap_err();
    assert_eq!(failure.detail, "none was sent");
    // A pair whose ids are mapped already is nobody else's.
    spec.id = "c".to_owned();
    let call = Call::Launch(Box::new(spec));
    let (event, _) = bench.client.call(call, &fds, common::TIMEOUT).unwrap();
    assert!(matches!(event, Event::Failed(f) if f.step == "id maps"));
}

#[test]
fn nonsense_is_refused_and_survived() {
    let mut bench = Bench::new();
    let spec = bench.spec("a", "sleep 1000");
    bench.launch(spec.clone()).unwrap();
    assert_eq!(bench.launch(spec).unwrap_err().step, "request");
    let call = Call::Destroy(DestroySpec {
        id: "none".to_owned(),
    });
    let (event, _) = bench.client.call(call, &[], common::TIMEOUT).unwrap();
    assert!(matches!(event, Event::Failed(_)));
    bench.client.send_raw(b"{}").unwrap();
    let report = bench.client.next_report(common::TIMEOUT).unwrap();
    assert!(matches!(report, Event::Failed(_)), "{report:?}");
    bench.client.send_raw(&vec![b' '; MAX_MESSAGE + 1]).unwrap();
    let report = bench.client.next_report(common::TIMEOUT).unwrap();
    assert!(matches!(report, Event::Failed(_)), "{report:?}");
    assert_eq!(bench.destroy("a"), Exit::Signal(libc::SIGKILL));
}

#[test]
fn many_layers_by_path_work_and_leave_no_mount() {
    let shown = ["lowerdir+=/", "lowerdir=0:1:2:"];
    for (mut bench, shown) in Bench::both().into_iter().zip(shown) {
        let mut spec = bench.spec(
            "a",
            "exec >/out 2>&1; cat /top /etc/low; grep ' / ' /proc/mounts",
        );
        for index in 0..120 {
            let layer = bench.dir.path().join(format!("layer-{index}"));
            std::fs::create_dir_all(layer.join("etc")).unwrap();
            std::fs::write(layer.join("top"), format!("{index}\n")).unwrap();
            if index == 119 {
                std::fs::write(layer.join("etc/low"), "lowest\n").unwrap();
            }
            spec.layers
                .insert(1 + index, layer.to_str().unwrap().to_owned());
        }
        bench.launch(spec).unwrap();
        bench.exit_of("a");
        let text = bench.out("a");
        assert!(text.starts_with("0\nlowest\n"), "{text}");
        for option in [shown, "index=on", "nfs_export=on"] {
            assert!(text.contains(option), "{text}");
        }
        let path = format!("/proc/{}/mountinfo", bench.launcher.as_raw_nonzero());
        let mounts = std::fs::read_to_string(path).unwrap();
        let own = bench.dir.path().file_name().unwrap().to_str().unwrap();
        assert!(!mounts.contains(own), "{mounts}");
    }
}
