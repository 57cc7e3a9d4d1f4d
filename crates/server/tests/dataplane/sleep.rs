//! What sleeps: who is asked before it is woken, and streams whose connection to the guest breaks.

use std::sync::atomic::Ordering;

use axum::body::Body;
use woodfrog_engine::Reach;

use crate::common::{Setup, World, output};

fn asleep(reach: Reach) -> Setup {
    Setup {
        reach,
        traffic_token: Some("traffic".to_owned()),
        ..Setup::default()
    }
}

fn breakable() -> Setup {
    Setup {
        breakable: true,
        ..Setup::default()
    }
}

/// How often the sandbox was woken, or would have been.
fn wakes(world: &World) -> usize {
    world.plane.guests.load(Ordering::SeqCst)
}

#[tokio::test]
async fn health_says_whether_it_runs_and_wakes_nothing() {
    for (reach, status) in [
        (Reach::Awake, 204),
        (Reach::Dozing, 204),
        (Reach::Resumable, 502),
        (Reach::Held, 502),
    ] {
        let world = World::with(asleep(reach)).await;
        let answer = world.get("/health").await;
        assert_eq!(answer.status, status, "{reach:?}: {answer:?}");
        if status == 502 {
            assert_eq!(answer.json()["message"], "The sandbox was not found");
        }
        assert_eq!(wakes(&world), 0, "{reach:?}");
    }
}

#[tokio::test]
async fn what_traffic_does_not_wake_was_not_found() {
    let world = World::with(asleep(Reach::Held)).await;
    for answer in [
        world.get("/metrics").await,
        world.get("/files?path=x").await,
        world.call("process.Process/List", "{}").await,
        world
            .fetch(
                world
                    .to_port(8000, "GET", "/")
                    .header("e2b-traffic-access-token", "traffic")
                    .body(Body::empty())
                    .unwrap(),
            )
            .await,
    ] {
        assert_eq!(answer.status, 502, "{answer:?}");
        assert_eq!(answer.json()["message"], "The sandbox was not found");
        assert_eq!(answer.header("should-retry"), Some("false"));
    }
    assert_eq!(wakes(&world), 0);
}

#[tokio::test]
async fn who_has_no_right_wakes_nothing() {
    for (reach, status) in [(Reach::Dozing, 401), (Reach::Resumable, 403)] {
        let world = World::with(asleep(reach)).await;
        for path in ["/metrics", "/files?path=x", "/files?path=x&signature=v1_x"] {
            let request = world.to_port(49983, "GET", path).body(Body::empty());
            let answer = world.fetch(request.unwrap()).await;
            assert_eq!(answer.status, status, "{reach:?} {path}: {answer:?}");
        }
        let request = world
            .to_port(49983, "POST", "/process.Process/List")
            .header("content-type", "application/json")
            .header("x-access-token", "wrong")
            .body(Body::from("{}"));
        let answer = world.fetch(request.unwrap()).await;
        assert_eq!(answer.status, status, "{reach:?}: {answer:?}");
        let request = world.to_port(8000, "GET", "/").body(Body::empty());
        let answer = world.fetch(request.unwrap()).await;
        assert_eq!(answer.status, 403, "{reach:?}: {answer:?}");
        assert_eq!(wakes(&world), 0, "{reach:?}");
    }
}

#[tokio::test]
async fn who_has_the_right_wakes_it() {
    for reach in [Reach::Dozing, Reach::Resumable] {
        let world = World::with(asleep(reach)).await;
        assert_eq!(world.get("/metrics").await.status, 200, "{reach:?}");
        assert_eq!(wakes(&world), 1, "{reach:?}");
    }
}

#[tokio::test]
async fn output_goes_on_where_its_connection_broke() {
    let world = World::with(breakable()).await;
    let mut frames = world
        .sh(
            "until [ -p gate ]; do :; done; exec 3<>gate
             for i in 1 2 3 4 5 6; do echo line $i; read _ <&3; done",
            &[],
        )
        .await;
    // The shell holds both ends: opened anew for each line, it could meet the
    // writer before it as that one closes, read an end and go a line ahead.
    let (gate, unready) = (world.home().join("gate"), world.home().join("gate.new"));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &unready,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    rustix::fs::chmod(&unready, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
    // It has its name only now that the shell may open it, which does so as soon as it sees it.
    std::fs::rename(&unready, &gate).unwrap();
    let mut messages = vec![frames.message().await];
    for line in 1..=6 {
        let want = format!("line {line}\n");
        while !output(&messages, "stdout").ends_with(want.as_bytes()) {
            messages.push(frames.message().await);
        }
        world.plane.cut.cut();
        let gate = gate.clone();
        tokio::task::spawn_blocking(move || std::fs::write(gate, "go on\n"))
            .await
            .unwrap()
            .unwrap();
    }
    let (rest, end) = frames.rest().await;
    messages.extend(rest);
    let text = String::from_utf8(output(&messages, "stdout")).unwrap();
    assert_eq!(text, "line 1\nline 2\nline 3\nline 4\nline 5\nline 6\n");
    let starts = messages
        .iter()
        .filter(|message| message["event"]["start"].is_object());
    assert_eq!(starts.count(), 1);
    assert_eq!(end, serde_json::json!({}));
}

#[tokio::test]
async fn a_guest_that_is_gone_ends_its_streams() {
    let world = World::with(breakable()).await;
    let mut frames = world.sh("echo up; sleep 300", &[]).await;
    frames.message().await;
    frames.message().await;
    world.plane.cut.refuse();
    world.plane.cut.cut();
    let (_, end) = frames.rest().await;
    assert_eq!(end["error"]["code"], "unavailable", "{end}");
}
