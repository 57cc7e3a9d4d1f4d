//! Processes of a real guest.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::{TestGuest, collect, end_guest, eventually, sh, until};
use sha2::{Digest, Sha256};
use woodfrog_guest_client::{ProcessEvent, proto::*};

fn code(error: woodfrog_guest_client::GuestError) -> ErrorCode {
    error
        .code()
        .unwrap_or_else(|| panic!("not a refusal: {error:?}"))
}

#[tokio::test]
async fn output_codes_and_signals() {
    let guest = TestGuest::start().await;
    let mut stream = guest
        .client
        .start(sh("echo out; echo err >&2; exit 3"))
        .await
        .unwrap();
    let all = collect(&mut stream).await;
    assert_eq!(
        (all.out().as_str(), &all.stderr[..]),
        ("out\n", &b"err\n"[..])
    );
    assert_eq!(all.end().exit, Exit::Exited { code: 3 });
    assert_eq!(all.end().status, "exit status 3");
    assert_eq!(all.end().offset, 8);

    let mut stream = guest.client.start(sh("kill -9 $$")).await.unwrap();
    let all = collect(&mut stream).await;
    assert_eq!(
        all.end().exit,
        Exit::Signaled {
            signal: 9,
            core: false
        }
    );
    assert_eq!(all.end().status, "signal: killed");

    let mut stream = guest
        .client
        .start(sh("echo ready; exec sleep 1000"))
        .await
        .unwrap();
    until(&mut stream, "ready").await;
    let id = ProcessRef::Id(stream.started().id);
    guest
        .client
        .signal(id.clone(), 15, SignalTarget::Process)
        .await
        .unwrap();
    assert_eq!(
        collect(&mut stream).await.end().status,
        "signal: terminated"
    );
    let again = guest
        .client
        .signal(id, 15, SignalTarget::Process)
        .await
        .unwrap_err();
    assert_eq!(code(again), ErrorCode::ProcessGone);
}

#[tokio::test]
async fn refusals_have_codes() {
    let guest = TestGuest::start().await;
    let start = async |request| code(guest.client.start(request).await.err().unwrap());
    let program = |cmd: &str| StartRequest {
        cmd: cmd.to_owned(),
        ..StartRequest::default()
    };
    assert_eq!(start(program("no-such-program")).await, ErrorCode::NotFound);
    assert_eq!(
        start(program("/etc/passwd")).await,
        ErrorCode::PermissionDenied
    );
    assert_eq!(start(program("")).await, ErrorCode::InvalidArgument);
    let user = StartRequest {
        user: Some("nobody-here".to_owned()),
        ..sh("true")
    };
    assert_eq!(start(user).await, ErrorCode::UnknownUser);
    let request = StartRequest {
        cwd: Some("/x/y".to_owned()),
        ..sh("true")
    };
    let error = guest.client.start(request).await.err().unwrap();
    assert_eq!(error.to_string(), "cwd '/x/y' does not exist");
    assert_eq!(code(error), ErrorCode::InvalidArgument);
    let missing = guest
        .client
        .attach(ProcessRef::Pid(1), From::Latest)
        .await
        .err()
        .unwrap();
    assert_eq!(code(missing), ErrorCode::NotFound);
}

#[tokio::test]
async fn a_slow_reader_gets_every_byte() {
    let guest = TestGuest::start().await;
    let script = "head -c 12000000 /dev/urandom > data; sha256sum < data; cat data >&2";
    let request = StartRequest {
        cwd: Some(guest.path("home")),
        ..sh(script)
    };
    let mut stream = guest.client.start(request).await.unwrap();
    let mut all = common::Collected::default();
    let mut events = 0u32;
    while let Some(event) = stream.next().await.unwrap() {
        events += 1;
        if events.is_multiple_of(16) {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        all.add(event);
    }
    let hash: String = Sha256::digest(&all.stderr)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(all.stderr.len(), 12_000_000);
    assert!(all.out().starts_with(&hash));
    assert!(all.gaps.is_empty());
}

#[tokio::test]
async fn reattaches_where_it_left_off() {
    let guest = TestGuest::start().await;
    let request = StartRequest {
        stdin: StdinMode::Open,
        tag: Some("t".into()),
        ..sh("echo one; cat")
    };
    let mut stream = guest.client.start(request).await.unwrap();
    until(&mut stream, "one\n").await;
    let id = ProcessRef::Id(stream.started().id);
    drop(stream);
    guest
        .client
        .write_stdin(id.clone(), None, b"two\n")
        .await
        .unwrap();
    let tag = ProcessRef::Tag("t".to_owned());
    let mut stream = guest.client.attach(tag, From::Offset(4)).await.unwrap();
    assert_eq!(until(&mut stream, "two\n").await.out(), "two\n");
    let mut latest = guest.client.attach(id.clone(), From::Latest).await.unwrap();
    assert_eq!(latest.started().offset, 8);
    guest
        .client
        .write_stdin(id.clone(), None, b"three\n")
        .await
        .unwrap();
    guest.client.close_stdin(id.clone()).await.unwrap();
    guest.client.close_stdin(id.clone()).await.unwrap();
    assert_eq!(collect(&mut latest).await.out(), "three\n");
    // After the end everything is still there.
    let mut stream = guest
        .client
        .attach(id.clone(), From::Offset(0))
        .await
        .unwrap();
    let all = collect(&mut stream).await;
    assert_eq!(all.out(), "one\ntwo\nthree\n");
    assert_eq!(all.end().exit, Exit::Exited { code: 0 });
    let beyond = guest
        .client
        .attach(id, From::Offset(1000))
        .await
        .err()
        .unwrap();
    assert_eq!(code(beyond), ErrorCode::InvalidArgument);
}

#[tokio::test]
async fn unread_output_is_dropped_with_a_gap() {
    let guest = TestGuest::start().await;
    let request = StartRequest {
        retention: Some(8192),
        ..sh("seq 1 20000; echo last")
    };
    let started = guest.client.start_detached(request).await.unwrap();
    let id = ProcessRef::Id(started.id);
    eventually("the process ends", async || {
        guest
            .client
            .processes()
            .await
            .unwrap()
            .iter()
            .any(|p| p.end.is_some())
    })
    .await;
    let mut stream = guest.client.attach(id, From::Offset(10)).await.unwrap();
    let all = collect(&mut stream).await;
    let end = all.end().offset;
    assert_eq!(
        all.gaps,
        [Gap {
            from: 10,
            to: end - 8192
        }]
    );
    assert_eq!(all.stdout.len(), 8192);
    assert!(all.out().ends_with("20000\nlast\n"));
}

#[tokio::test]
async fn a_timeout_kills_the_session() {
    let guest = TestGuest::start().await;
    let script = "sleep 1000 & echo $!; wait";
    let mut timeout_ms = 3_000;
    let child = loop {
        let request = StartRequest {
            timeout_ms: Some(timeout_ms),
            ..sh(script)
        };
        let mut stream = guest.client.start(request).await.unwrap();
        let all = collect(&mut stream).await;
        assert!(all.end().timed_out);
        assert_eq!(
            all.end().exit,
            Exit::Signaled {
                signal: 9,
                core: false
            }
        );
        let child = all.out().trim().to_owned();
        if !child.is_empty() {
            break child;
        }
        // Killed before it could say anything: once more, with more time.
        timeout_ms *= 2;
        assert!(timeout_ms < 30_000, "the shell says nothing");
    };
    eventually("the descendant dies", async || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    })
    .await;
    let request = StartRequest {
        timeout_ms: Some(60_000),
        ..sh("true")
    };
    let all = collect(&mut guest.client.start(request).await.unwrap()).await;
    assert!(!all.end().timed_out);
}

#[tokio::test]
async fn a_background_child_does_not_hold_the_end() {
    let guest = TestGuest::start().await;
    let marker = guest.path("home/marker");
    // The child goes on writing after the end, and is not killed by that.
    let script = format!(
        "(trap 'touch {marker}' EXIT; while [ ! -e {marker}.stop ]; do echo x; sleep 0.02; done) & echo $!"
    );
    let mut stream = guest.client.start(sh(&script)).await.unwrap();
    let all = collect(&mut stream).await;
    // The child may have written before the shell did.
    let child = all.out().lines().find(|l| *l != "x").unwrap().to_owned();
    for _ in 0..5 {
        assert!(std::path::Path::new(&format!("/proc/{child}")).exists());
        guest.client.hello().await.unwrap();
    }
    std::fs::write(format!("{marker}.stop"), "").unwrap();
    eventually("the child ends by itself", async || {
        std::path::Path::new(&marker).exists()
    })
    .await;
}

#[tokio::test]
async fn stdin_is_ordered_and_repeatable() {
    let guest = TestGuest::start().await;
    let request = StartRequest {
        stdin: StdinMode::Open,
        ..sh("sha256sum")
    };
    let mut stream = guest.client.start(request).await.unwrap();
    let id = ProcessRef::Id(stream.started().id);
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut writer = guest.client.open_stdin(id.clone(), None).await.unwrap();
    for chunk in data.chunks(100_000) {
        writer.write(chunk).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap(), 3_000_000);
    // The last part again, with more behind it: only the new part counts.
    let mut repeated = data[2_900_000..].to_vec();
    repeated.extend_from_slice(b"tail");
    let at = guest
        .client
        .write_stdin(id.clone(), Some(2_900_000), &repeated)
        .await
        .unwrap();
    assert_eq!(at, 3_000_004);
    let hole = guest
        .client
        .write_stdin(id.clone(), Some(9_000_000), b"x")
        .await
        .unwrap_err();
    assert_eq!(code(hole), ErrorCode::InvalidArgument);
    guest.client.close_stdin(id.clone()).await.unwrap();
    let all = collect(&mut stream).await;
    let mut whole = data;
    whole.extend_from_slice(b"tail");
    let hash: String = Sha256::digest(&whole)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert!(all.out().starts_with(&hash), "{}", all.out());
    let gone = guest.client.write_stdin(id, None, b"x").await.unwrap_err();
    assert_eq!(code(gone), ErrorCode::ProcessGone);

    let mut stream = guest
        .client
        .start(sh("echo ready; sleep 1000"))
        .await
        .unwrap();
    until(&mut stream, "ready").await;
    let id = ProcessRef::Id(stream.started().id);
    let closed = guest
        .client
        .write_stdin(id.clone(), None, b"x")
        .await
        .unwrap_err();
    assert_eq!(code(closed), ErrorCode::Closed);
    guest
        .client
        .signal(id, 9, SignalTarget::Group)
        .await
        .unwrap();
    collect(&mut stream).await;
}

#[tokio::test]
async fn input_that_ends_its_process_was_taken() {
    let guest = TestGuest::start().await;
    let request = StartRequest {
        stdin: StdinMode::Open,
        ..sh("read x; exit 7")
    };
    let mut stream = guest.client.start(request).await.unwrap();
    let id = ProcessRef::Id(stream.started().id);
    let mut writer = guest.client.open_stdin(id, None).await.unwrap();
    writer.write(b"go\n").await.unwrap();
    let all = collect(&mut stream).await;
    assert_eq!(all.end().exit, Exit::Exited { code: 7 });
    // The end of the input comes after the end of the process.
    assert_eq!(writer.finish().await.unwrap(), 3);
}

#[tokio::test]
async fn ends_with_everything_it_started() {
    let mut guest = TestGuest::start().await;
    let script = "setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & wait";
    let mut stream = guest.client.start(sh(script)).await.unwrap();
    let pid = until(&mut stream, "\n").await.out().trim().to_owned();
    let alive = format!("/proc/{pid}/exe");
    assert!(std::fs::read_link(&alive).is_ok());
    end_guest(&mut guest.child);
    eventually("the daemon lives on", async || {
        std::fs::read_link(&alive).is_err()
    })
    .await;
}

#[tokio::test]
async fn a_terminal_echoes_and_resizes() {
    let guest = TestGuest::start().await;
    let request = StartRequest {
        pty: Some(PtySize { cols: 80, rows: 24 }),
        ..sh("stty size; read x; stty size; tty >/dev/null && echo tty; echo TERM=$TERM")
    };
    let mut stream = guest.client.start(request).await.unwrap();
    let id = ProcessRef::Id(stream.started().id);
    until(&mut stream, "24 80").await;
    guest
        .client
        .resize(
            id.clone(),
            PtySize {
                cols: 100,
                rows: 40,
            },
        )
        .await
        .unwrap();
    guest
        .client
        .write_stdin(id.clone(), None, b"hello\r")
        .await
        .unwrap();
    let all = collect(&mut stream).await;
    let text = String::from_utf8_lossy(&all.pty).into_owned();
    for part in ["hello", "40 100", "tty", "TERM=xterm-256color"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let gone = guest
        .client
        .resize(id, PtySize { cols: 1, rows: 1 })
        .await
        .unwrap_err();
    assert_eq!(code(gone), ErrorCode::ProcessGone);
}

#[tokio::test]
async fn runs_as_the_user_with_the_environment() {
    let guest = TestGuest::start().await;
    let env = [
        ("A".to_owned(), "configured".to_owned()),
        ("B".to_owned(), "b".to_owned()),
    ];
    let change = Configure {
        default_user: Some("user".to_owned()),
        env: Some(env.into()),
        files: [
            (guest.path("run/marks/.NAME"), "value".to_owned()),
            ("/proc/nothing/here".to_owned(), String::new()),
        ]
        .into(),
        ..Configure::default()
    };
    guest.client.configure(change).await.unwrap();
    assert_eq!(
        std::fs::read_to_string(guest.path("run/marks/.NAME")).unwrap(),
        "value"
    );
    let script =
        "id -u; id -g; id -G; pwd; echo $HOME $USER $A $B; ulimit -n; echo via > /dev/stdout";
    let request = StartRequest {
        env: [("A".to_owned(), "own".to_owned())].into(),
        rlimits: vec![Rlimit {
            resource: "nofile".into(),
            soft: Some(99),
            hard: Some(99),
        }],
        ..sh(script)
    };
    let all = collect(&mut guest.client.start(request).await.unwrap()).await;
    let home = guest.path("home");
    let expected = format!("54321\n54322\n54322 54400\n{home}\n{home} user own b\n99\nvia\n");
    assert_eq!(
        all.out(),
        expected,
        "{}",
        String::from_utf8_lossy(&all.stderr)
    );
    let unknown = Configure {
        default_user: Some("ghost".into()),
        ..Configure::default()
    };
    assert_eq!(
        code(guest.client.configure(unknown).await.unwrap_err()),
        ErrorCode::UnknownUser
    );
}

#[tokio::test]
async fn many_connections_at_once() {
    let guest = TestGuest::start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..100 {
        let client = guest.client.clone();
        tasks.spawn(async move {
            let mut stream = client
                .start(sh(&format!("echo {i}; cat /dev/null")))
                .await
                .unwrap();
            let all = collect(&mut stream).await;
            assert_eq!(all.out(), format!("{i}\n"));
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    let listed = guest.client.processes().await.unwrap();
    assert_eq!(listed.len(), limits::ENDED_KEPT);
    assert!(listed.iter().all(|p| p.end.is_some()));
}

#[tokio::test]
async fn events_come_in_order() {
    let guest = TestGuest::start().await;
    let mut stream = guest.client.start(sh("echo a")).await.unwrap();
    assert!(matches!(
        stream.next().await.unwrap(),
        Some(ProcessEvent::Started(_))
    ));
    assert!(matches!(
        stream.next().await.unwrap(),
        Some(ProcessEvent::Output { offset: 0, .. })
    ));
    assert!(matches!(
        stream.next().await.unwrap(),
        Some(ProcessEvent::End(_))
    ));
    assert!(stream.next().await.unwrap().is_none());
}

/// Reads what is there to the end, with the time of each piece.
async fn timed(guest: &TestGuest, id: u64) -> Vec<(u64, String)> {
    let attached = guest
        .client
        .attach_with(ProcessRef::Id(id), From::Offset(0), Times::Told);
    let mut stream = attached.await.unwrap();
    let mut pieces = Vec::new();
    while let Some(event) = stream.next().await.unwrap() {
        if let ProcessEvent::Output { bytes, .. } = event {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            pieces.push((stream.moment().unwrap().at_ms, text));
        }
    }
    pieces
}

#[tokio::test]
async fn output_has_its_time() {
    let guest = TestGuest::start().await;
    let mut request = sh("echo one; read x; echo two; read x; echo three");
    request.stdin = StdinMode::Open;
    request.pieces = Pieces::Apart;
    let started = guest.client.start_detached(request).await.unwrap();
    let process = ProcessRef::Id(started.id);
    let written = async |offset: u64| {
        let all = guest.client.processes().await.unwrap();
        all.iter()
            .any(|info| info.id == started.id && info.offset >= offset)
    };
    for offset in [4, 8] {
        while !written(offset).await {
            tokio::task::yield_now().await;
        }
        // So long that the clock shows it.
        let written_at = Instant::now();
        while written_at.elapsed() < Duration::from_millis(20) {
            tokio::task::yield_now().await;
        }
        guest
            .client
            .write_stdin(process.clone(), None, b"\n")
            .await
            .unwrap();
    }
    let pieces = timed(&guest, started.id).await;
    let texts: Vec<&str> = pieces.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["one\n", "two\n", "three\n"]);
    let info = guest.client.processes().await.unwrap();
    let info = info.iter().find(|info| info.id == started.id).unwrap();
    let times: Vec<u64> = pieces.iter().map(|(at, _)| *at).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    let span = info.started_ms..=info.ended_ms.unwrap();
    assert!(
        times.iter().all(|at| span.contains(at)),
        "{times:?} {span:?}"
    );
}

#[tokio::test]
async fn some_are_kept_until_they_are_forgotten() {
    let guest = TestGuest::start().await;
    let mut request = sh("echo kept");
    request.keep = Keep::UntilForgotten;
    let kept = guest.client.start_detached(request).await.unwrap();
    let brief = guest.client.start_detached(sh("echo brief")).await.unwrap();
    // It is forgotten once enough have ended after it.
    eventually("it ends", async || {
        let all = guest.client.processes().await.unwrap();
        all.iter().any(|p| p.id == brief.id && p.end.is_some())
    })
    .await;
    for _ in 0..=limits::ENDED_KEPT {
        collect(&mut guest.client.start(sh(":")).await.unwrap()).await;
    }
    let attach = async |id: u64| {
        let process = ProcessRef::Id(id);
        guest.client.attach(process, From::Offset(0)).await
    };
    let mut stream = attach(kept.id).await.unwrap();
    assert_eq!(collect(&mut stream).await.out(), "kept\n");
    assert_eq!(
        attach(brief.id).await.map(drop).map_err(code),
        Err(ErrorCode::NotFound)
    );
    let forget = async |id: u64| guest.client.forget(ProcessRef::Id(id)).await.map_err(code);
    assert_eq!(forget(kept.id).await, Ok(()));
    assert_eq!(forget(kept.id).await, Err(ErrorCode::NotFound));
    let running = guest.client.start_detached(sh("exec sleep 1000")).await;
    assert_eq!(forget(running.unwrap().id).await, Err(ErrorCode::Busy));
}

#[tokio::test]
async fn processes_are_not_spared_like_the_guest_when_memory_runs_out() {
    let guest = TestGuest::start().await;
    let score = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    if score("self").trim().parse::<i32>().unwrap() > 0 {
        eprintln!("skipped: this test is held for dispensable itself, and may not change that");
        return;
    }
    // Lowering takes a privilege that not every root has; raising does not.
    let pid = guest.child.id().to_string();
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), "300").unwrap();
    for user in ["root", "user"] {
        let request = StartRequest {
            user: Some(user.to_owned()),
            cwd: Some("/".to_owned()),
            ..sh("cat /proc/self/oom_score_adj")
        };
        let all = collect(&mut guest.client.start(request).await.unwrap()).await;
        assert_eq!(all.out(), "0\n", "{user}");
    }
    assert_eq!(score(&pid), "300\n");
}
