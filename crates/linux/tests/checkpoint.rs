//! The self-test of checkpoints, as root, where there is a CRIU for this kernel.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use woodfrog_linux::criu::{Found, Owner, Program, default_prefix, find, selftest};

#[test]
fn a_sandbox_goes_on_after_its_checkpoint() {
    rounds(Owner::Host);
}

#[test]
fn with_a_network_of_its_own_its_connections_go_on_too() {
    rounds(Owner::Sandbox);
}

fn rounds(owner: Owner) {
    let criu = match find(&default_prefix()) {
        Found::Suitable(criu) => criu,
        other => {
            println!("NOT RUN: no CRIU that suits this kernel ({other:?})");
            return;
        }
    };
    let dir = tempfile::Builder::new()
        .prefix("wf-checkpoint")
        .tempdir_in("/var/tmp")
        .unwrap();
    let program = Program {
        path: env!("CARGO_BIN_EXE_linux-test-launcher").into(),
        launcher: vec![],
        subject: vec!["__checkpoint-subject".to_owned()],
    };
    for round in 0..5 {
        let done = selftest(&criu, &program, dir.path(), owner).unwrap();
        println!("{owner:?}, round {round}: {done:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
}
