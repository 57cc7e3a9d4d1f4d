//! The probes against this machine, as root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use woodfrog_linux::probe::{Status, all};

#[test]
fn what_the_other_tests_use_is_found_and_nothing_is_left() {
    let dir = tempfile::Builder::new()
        .prefix("wf-probe")
        .tempdir_in("/var/tmp")
        .unwrap();
    let probes = all(dir.path());
    for probe in &probes {
        println!("{:<22} {:?}: {}", probe.name, probe.status, probe.detail);
    }
    for name in [
        "user namespaces",
        "id-mapped mounts",
        "overlay",
        "cgroup limits",
        "seccomp",
    ] {
        let probe = probes.iter().find(|probe| probe.name == name).unwrap();
        assert_eq!(probe.status, Status::Ok, "{probe:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let missing = all(&dir.path().join("not-there"));
    let mapped = missing
        .iter()
        .find(|probe| probe.name == "id-mapped mounts")
        .unwrap();
    assert_eq!(mapped.status, Status::Missing);
}
