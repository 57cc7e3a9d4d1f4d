//! Sandboxes on the real kernel, as root.

mod common;

use std::os::unix::fs::MetadataExt;

use common::{Bench, eventually};
use woodfrog_linux::process::Exit;

#[test]
fn init_is_root_of_its_own_world() {
    let mut bench = Bench::new();
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
    let mut bench = Bench::new();
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
