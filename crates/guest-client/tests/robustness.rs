//! The guest against bad peers, ports, and its own end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{io::Write, os::unix::net::UnixStream, time::Duration};

use common::{PATIENCE, TestGuest, collect, eventually, sh, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use woodfrog_guest_client::proto::*;

/// Sends raw bytes and returns what comes back before the guest closes.
async fn raw(guest: &TestGuest, bytes: &[u8]) -> Vec<u8> {
    let mut stream = tokio::net::UnixStream::connect(&guest.socket)
        .await
        .unwrap();
    // The guest may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the guest neither answers nor closes");
    answer
}

fn error(answer: &[u8]) -> ErrorCode {
    let mut decoder = Decoder::new();
    decoder.feed(answer);
    match decoder.next_frame() {
        Ok(Some(Frame::Error(payload))) => parse_json::<ErrorBody>(&payload).unwrap().code,
        other => panic!("not an error frame: {other:?}"),
    }
}

#[tokio::test]
async fn malformed_frames_harm_nobody() {
    let guest = TestGuest::start().await;
    let boot = guest.client.hello().await.unwrap().boot_id;
    assert_eq!(
        error(&raw(&guest, b"GET / HTTP/1.1\r\n\r\n").await),
        ErrorCode::Unsupported
    );
    let huge = [VERSION, 1, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(error(&raw(&guest, &huge).await), ErrorCode::TooLarge);
    let unknown = encode(FrameKind::Request, br#"{"fly":{}}"#).unwrap();
    assert_eq!(error(&raw(&guest, &unknown).await), ErrorCode::Unsupported);
    let wrong = encode(FrameKind::Request, br#"{"signal":{"signal":"x"}}"#).unwrap();
    assert_eq!(
        error(&raw(&guest, &wrong).await),
        ErrorCode::InvalidArgument
    );
    let reply = encode(FrameKind::Reply, b"{}").unwrap();
    assert_eq!(
        error(&raw(&guest, &reply).await),
        ErrorCode::InvalidArgument
    );
    let deep = encode(FrameKind::Request, "[".repeat(500_000).as_bytes()).unwrap();
    assert_eq!(error(&raw(&guest, &deep).await), ErrorCode::InvalidArgument);
    // Half a frame, and gone.
    UnixStream::connect(&guest.socket)
        .unwrap()
        .write_all(&[VERSION, 1, 0])
        .unwrap();
    assert_eq!(guest.client.hello().await.unwrap().boot_id, boot);
}

#[tokio::test]
async fn a_flood_is_refused_and_passes() {
    let guest = TestGuest::start().await;
    let mut idle = Vec::new();
    for _ in 0..limits::MAX_CONNECTIONS {
        idle.push(UnixStream::connect(&guest.socket).unwrap());
    }
    eventually("the limit is reached", async || {
        guest
            .client
            .hello()
            .await
            .is_err_and(|e| e.code() == Some(ErrorCode::Busy))
    })
    .await;
    drop(idle);
    eventually("the guest recovers", async || {
        guest.client.hello().await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn connects_to_ports_inside() {
    let guest = TestGuest::start().await;
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (listener, port, _reserved) = loop {
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            // Bound and not listening: no other program of this machine answers there in its
            // place. If one has the port already, another is taken.
            let reserved = tokio::net::TcpSocket::new_v4().unwrap();
            if !address.starts_with('[') || reserved.bind(([127, 0, 0, 1], port).into()).is_ok() {
                break (listener, port, reserved);
            }
        };
        assert!(
            guest
                .client
                .ports()
                .await
                .unwrap()
                .iter()
                .any(|p| p.port == port)
        );
        let mut near = guest.client.connect(port).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        near.write_all(b"ping").await.unwrap();
        let mut text = [0; 4];
        far.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"ping");
        drop(listener);
        let refused = guest.client.connect(port).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::ConnectionRefused));
    }
}

#[tokio::test]
async fn metrics_make_sense() {
    let guest = TestGuest::start().await;
    let first = guest.client.metrics().await.unwrap();
    let second = guest.client.metrics().await.unwrap();
    assert!(first.cpu_count > 0 && second.cpu_used_ns >= first.cpu_used_ns);
    assert!((0.0..=100.0).contains(&second.cpu_used_pct));
    assert!(second.mem_total >= second.mem_used && second.mem_used > 0);
    assert!(second.disk_total >= second.disk_used && second.disk_used > 0);
}

#[tokio::test]
async fn detaching_leaves_the_process_alone() {
    let guest = TestGuest::start().await;
    // Far more output than is retained: with nobody attached it must not block.
    let script = "echo ready; read x; head -c 5000000 /dev/zero; echo done";
    let request = StartRequest {
        stdin: StdinMode::Open,
        ..sh(script)
    };
    let mut stream = guest.client.start(request).await.unwrap();
    until(&mut stream, "ready").await;
    let id = ProcessRef::Id(stream.started().id);
    // Attached and not reading: the process is held back until the reader leaves.
    guest
        .client
        .write_stdin(id.clone(), None, b"go\n")
        .await
        .unwrap();
    let state = async || {
        let all = guest.client.processes().await.unwrap();
        all.into_iter()
            .find(|p| ProcessRef::Id(p.id) == id)
            .unwrap()
    };
    eventually("the output fills", async || {
        state().await.offset >= limits::DEFAULT_RETENTION as u64
    })
    .await;
    assert!(state().await.end.is_none());
    assert!(state().await.offset < 4_000_000);
    drop(stream);
    eventually("the process ends", async || state().await.end.is_some()).await;
    let mut stream = guest
        .client
        .attach(id.clone(), From::Offset(6))
        .await
        .unwrap();
    let all = collect(&mut stream).await;
    assert_eq!(all.end().offset, 5_000_011);
    assert!(all.out().ends_with("done\n"));
}

#[tokio::test]
async fn sigterm_ends_everything() {
    let mut guest = TestGuest::start().await;
    let mut stream = guest
        .client
        .start(sh("trap '' TERM; echo ready; sleep 1000"))
        .await
        .unwrap();
    until(&mut stream, "ready").await;
    let pid = stream.started().pid;
    std::process::Command::new("kill")
        .arg(guest.child.id().to_string())
        .status()
        .unwrap();
    let mut status = None;
    eventually("the guest exits", async || {
        status = guest.child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(status.unwrap().success());
    assert!(!guest.socket.exists());
    eventually("its process dies", async || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    })
    .await;
}

#[tokio::test]
async fn a_deadline_passes() {
    let guest = TestGuest::start().await;
    let client = guest.client.with_deadline(Duration::from_millis(50));
    let request = StartRequest {
        stdin: StdinMode::Open,
        ..sh("exec sleep 1000")
    };
    let started = guest.client.start_detached(request).await.unwrap();
    let id = ProcessRef::Id(started.id);
    // More than the pipe takes, and nobody reads it.
    let result = client
        .write_stdin(id.clone(), None, &vec![0; 4_000_000])
        .await;
    assert!(matches!(
        result,
        Err(woodfrog_guest_client::GuestError::Timeout)
    ));
    // The abandoned writer does not keep the place.
    eventually("another writer gets its turn", async || {
        client.write_stdin(id.clone(), None, b"").await.is_ok()
    })
    .await;
    guest
        .client
        .signal(id, 9, SignalTarget::Group)
        .await
        .unwrap();
}
