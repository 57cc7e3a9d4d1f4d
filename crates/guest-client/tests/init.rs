//! The guest as PID 1 of a namespace of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{path::PathBuf, process::Command, sync::Arc};

use common::{collect, eventually, guest_binary, sh, until};
use woodfrog_guest_client::{GuestClient, PathConnector, proto::*};

#[tokio::test]
async fn reaps_orphans_and_takes_everything_along() {
    let dir = tempfile::tempdir().unwrap();
    let socket: PathBuf = dir.path().join("guest.sock");
    let mut namespace = Command::new("unshare")
        .args(["--pid", "--mount-proc", "--fork", "--kill-child"])
        .arg(guest_binary())
        .arg("--socket")
        .arg(&socket)
        .spawn()
        .unwrap();
    let client = GuestClient::new(Arc::new(PathConnector(socket)));
    eventually("the guest answers", async || client.hello().await.is_ok()).await;
    assert_eq!(client.hello().await.unwrap().pid, 1);

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
    collect_killed(&client).await;
    let mut status = None;
    eventually("the namespace ends", async || {
        status = namespace.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(status.unwrap().success());
}

/// Asks PID 1 to end, from inside.
async fn collect_killed(client: &GuestClient) {
    // The answer may or may not come before the guest is gone.
    if let Ok(mut stream) = client.start(sh("kill -TERM 1")).await {
        while let Ok(Some(_)) = stream.next().await {}
    }
}
