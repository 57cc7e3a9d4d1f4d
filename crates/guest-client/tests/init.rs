//! The guest as PID 1 of a namespace of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    path::PathBuf,
    process::{Child, Command},
    sync::Arc,
};

use common::{collect, eventually, guest_binary, sh, until};
use woodfrog_guest_client::{GuestClient, PathConnector, proto::*};

/// A PID namespace with its guest. It goes with the test.
struct Namespace {
    client: GuestClient,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Namespace {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket: PathBuf = dir.path().join("guest.sock");
        let child = Command::new("unshare")
            .args(["--pid", "--mount-proc", "--fork", "--kill-child"])
            .arg(guest_binary())
            .arg("--socket")
            .arg(&socket)
            .spawn()
            .unwrap();
        let client = GuestClient::new(Arc::new(PathConnector(socket)));
        eventually("the guest answers", async || client.hello().await.is_ok()).await;
        assert_eq!(client.hello().await.unwrap().pid, 1);
        Self {
            client,
            child,
            _dir: dir,
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn signals_from_inside_do_not_end_it() {
    let namespace = Namespace::start().await;
    let client = &namespace.client;
    let boot = client.hello().await.unwrap().boot_id;
    let mut stays = client.start(sh("echo up; exec sleep 1000")).await.unwrap();
    until(&mut stays, "up").await;
    let script = "for s in KILL TERM INT HUP QUIT STOP ABRT USR1 PIPE ALRM; do kill -$s 1; done; \
                  kill -0 1 && echo sent";
    let all = collect(&mut client.start(sh(script)).await.unwrap()).await;
    assert_eq!(all.out(), "sent\n");
    let all = collect(&mut client.start(sh("echo alive")).await.unwrap()).await;
    assert_eq!(all.out(), "alive\n");
    assert_eq!(client.hello().await.unwrap().boot_id, boot);
    let listed = client.processes().await.unwrap();
    let pid = stays.started().pid;
    assert!(listed.iter().any(|one| one.pid == pid && one.end.is_none()));
}

#[tokio::test]
async fn reaps_orphans_and_takes_everything_along() {
    let mut namespace = Namespace::start().await;
    let client = namespace.client.clone();

    // Orphans of a process that is gone at once, in sessions of their own.
    let script = "for i in 1 2 3 4 5; do (setsid sh -c 'exit 7' &); done; echo made";
    let all = collect(&mut client.start(sh(script)).await.unwrap()).await;
    assert_eq!(all.out(), "made\n");
    eventually("no zombie is left", async || {
        let script = "cat /proc/[0-9]*/stat | grep -c ') Z '";
        let all = collect(&mut client.start(sh(script)).await.unwrap()).await;
        all.out() == "0\n"
    })
    .await;

    // Another user can neither connect nor look into PID 1.
    let passwd = sh("cat /proc/1/environ >/dev/null 2>&1 && echo open || echo shut");
    let request = StartRequest {
        user: Some("nobody".to_owned()),
        ..passwd
    };
    assert_eq!(
        collect(&mut client.start(request).await.unwrap())
            .await
            .out(),
        "shut\n"
    );

    let mut stream = client
        .start(sh("setsid sleep 1000 & echo up; wait"))
        .await
        .unwrap();
    until(&mut stream, "up").await;
    // The guest may be gone before the answer has come.
    let _ = client.shutdown().await;
    let mut status = None;
    eventually("the namespace ends", async || {
        status = namespace.child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(status.unwrap().success());
}
