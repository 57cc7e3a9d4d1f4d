//! Processes over Connect.

use std::time::{Duration, Instant};

use axum::body::Body;
use serde_json::json;

use crate::common::{World, output};

#[tokio::test]
async fn a_command_streams_start_output_and_end() {
    let world = World::start().await;
    let mut frames = world.sh("echo out; echo err >&2; exit 3", &[]).await;
    let start = frames.message().await;
    assert!(
        start["event"]["start"]["pid"].as_u64().unwrap() > 0,
        "{start}"
    );
    let (messages, end) = frames.rest().await;
    assert_eq!(output(&messages, "stdout"), b"out\n");
    assert_eq!(output(&messages, "stderr"), b"err\n");
    let last = json!({"event": {"end": {
        "exitCode": 3, "exited": true, "status": "exit status 3", "error": "exit status 3",
    }}});
    assert_eq!(messages.last(), Some(&last));
    assert_eq!(end, json!({}));
}

#[tokio::test]
async fn the_environment_is_what_clients_expect() {
    let world = World::start().await;
    let message = json!({"process": {
        "cmd": "/bin/sh", "args": ["-c", "echo $USER $LOGNAME $HOME $E2B_SANDBOX $E2B_SANDBOX_ID $MINE; pwd; id -un || id -u"],
        "envs": {"MINE": "1"},
    }, "stdin": false});
    let mut frames = world
        .open("process.Process/Start", &[&message.to_string()], &[])
        .await;
    let (messages, _) = frames.rest().await;
    let (home, id) = (world.home().display().to_string(), world.id());
    let text = String::from_utf8(output(&messages, "stdout")).unwrap();
    assert!(
        text.starts_with(&format!("user user {home} true {id} 1\n{home}\n")),
        "{text}"
    );
}

#[tokio::test]
async fn large_output_comes_whole_in_chunks_of_32_kib() {
    let world = World::start().await;
    let mut frames = world
        .sh("head -c 5000000 /dev/zero | tr '\\0' x", &[])
        .await;
    let (messages, end) = frames.rest().await;
    let text = output(&messages, "stdout");
    assert_eq!(text.len(), 5_000_000);
    assert!(text.iter().all(|byte| *byte == b'x'));
    for message in &messages {
        let length = message["event"]["data"]["stdout"]
            .as_str()
            .map_or(0, str::len);
        assert!(length <= (32_usize << 10).div_ceil(3) * 4, "{length}");
    }
    assert_eq!(end, json!({}));
}

#[tokio::test]
async fn a_timeout_kills_the_process() {
    let world = World::start().await;
    let begin = Instant::now();
    let mut frames = world
        .sh("echo $$; exec sleep 300", &[("connect-timeout-ms", "300")])
        .await;
    let (messages, end) = frames.rest().await;
    assert_eq!(end["error"]["code"], "deadline_exceeded");
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(
        messages
            .iter()
            .all(|message| message["event"]["end"].is_null())
    );
    let listed = world.call("process.Process/List", "{}").await.json();
    assert_eq!(listed, json!({"processes": []}));
    let pid = String::from_utf8(output(&messages, "stdout")).unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{}/exe", pid.trim())).exists());
}

#[tokio::test]
async fn a_silent_stream_says_that_it_lives() {
    let world = World::start().await;
    let mut frames = world
        .sh("read x < /dev/zero", &[("keepalive-ping-interval", "1")])
        .await;
    frames.message().await;
    assert_eq!(frames.message().await, json!({"event": {"keepalive": {}}}));
}

#[tokio::test]
async fn going_away_leaves_the_process_and_others_can_connect() {
    let world = World::start().await;
    let message = json!({"process": {"cmd": "/bin/cat"}, "tag": "kitty"});
    let mut frames = world
        .open("process.Process/Start", &[&message.to_string()], &[])
        .await;
    let pid = frames.message().await["event"]["start"]["pid"]
        .as_u64()
        .unwrap();
    drop(frames);
    let listed = world.call("process.Process/List", "{}").await.json();
    assert_eq!(listed["processes"][0]["pid"], pid);
    assert_eq!(listed["processes"][0]["tag"], "kitty");
    assert_eq!(listed["processes"][0]["config"]["cmd"], "/bin/cat");
    let select = json!({"process": {"tag": "kitty"}}).to_string();
    let mut frames = world.open("process.Process/Connect", &[&select], &[]).await;
    assert_eq!(
        frames.message().await,
        json!({"event": {"start": {"pid": pid}}})
    );
    let input = json!({"process": {"pid": pid}, "input": {"stdin": "aGVsbG8K"}}).to_string();
    assert_eq!(
        world.call("process.Process/SendInput", &input).await.json(),
        json!({})
    );
    assert_eq!(
        frames.message().await,
        json!({"event": {"data": {"stdout": "aGVsbG8K"}}})
    );
    let select = json!({"process": {"pid": pid}}).to_string();
    for _ in 0..2 {
        assert_eq!(
            world
                .call("process.Process/CloseStdin", &select)
                .await
                .status,
            200
        );
    }
    let (messages, end) = frames.rest().await;
    assert_eq!(messages[0]["event"]["end"]["exitCode"], 0);
    assert_eq!(end, json!({}));
    let refused = world.call("process.Process/SendInput", &input).await;
    assert!(matches!(refused.status, 404 | 500), "{}", refused.text());
}

#[tokio::test]
async fn input_streams_in_order() {
    let world = World::start().await;
    let message = json!({"process": {"cmd": "/bin/cat"}}).to_string();
    let mut frames = world.open("process.Process/Start", &[&message], &[]).await;
    let pid = frames.message().await["event"]["start"]["pid"]
        .as_u64()
        .unwrap();
    let start = json!({"start": {"process": {"pid": pid}}}).to_string();
    let data = |text: &str| json!({"data": {"input": {"stdin": text}}}).to_string();
    let messages = [
        start,
        data("YQ=="),
        json!({"keepalive": {}}).to_string(),
        data("Yg=="),
    ];
    let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
    let (replies, end) = world
        .open("process.Process/StreamInput", &messages, &[])
        .await
        .rest()
        .await;
    assert_eq!((replies, end), (vec![json!({})], json!({})));
    let select = json!({"process": {"pid": pid}}).to_string();
    world.call("process.Process/CloseStdin", &select).await;
    let (messages, _) = frames.rest().await;
    assert_eq!(output(&messages, "stdout"), b"ab");
    let lost = json!({"start": {"process": {"pid": 4_000_000_000_u64}}}).to_string();
    let mut frames = world
        .open("process.Process/StreamInput", &[&lost, &data("YQ==")], &[])
        .await;
    assert_eq!(frames.rest().await.1["error"]["code"], "not_found");
}

#[tokio::test]
async fn signals_end_processes() {
    let world = World::start().await;
    let mut frames = world.sh("exec sleep 300", &[]).await;
    let pid = frames.message().await["event"]["start"]["pid"]
        .as_u64()
        .unwrap();
    let kill = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"}).to_string();
    assert_eq!(
        world.call("process.Process/SendSignal", &kill).await.json(),
        json!({})
    );
    let (messages, end) = frames.rest().await;
    let last = json!({"event": {"end": {
        "exitCode": -1, "exited": false, "status": "signal: killed", "error": "signal: killed",
    }}});
    assert_eq!((messages, end), (vec![last], json!({})));
    let again = world.call("process.Process/SendSignal", &kill).await;
    assert_eq!(
        (again.status, again.json()["code"].as_str()),
        (404, Some("not_found"))
    );
    // What ended not long ago can still be asked how.
    let select = json!({"process": {"pid": pid}}).to_string();
    let (messages, _) = world
        .open("process.Process/Connect", &[&select], &[])
        .await
        .rest()
        .await;
    assert_eq!(messages[0]["event"]["start"]["pid"], pid);
    assert_eq!(messages[1]["event"]["end"]["exitCode"], -1);
}

#[tokio::test]
async fn terminals_take_input_and_sizes() {
    let world = World::start().await;
    let message = json!({
        "process": {"cmd": "/bin/sh", "args": ["-c", "stty size; read x; stty size; echo got $x; exec sleep 300"]},
        "pty": {"size": {"cols": 80, "rows": 24}},
    });
    let mut frames = world
        .open("process.Process/Start", &[&message.to_string()], &[])
        .await;
    let pid = frames.message().await["event"]["start"]["pid"]
        .as_u64()
        .unwrap();
    // A line may come in pieces.
    let mut first = Vec::new();
    while !output(&first, "pty").ends_with(b"\r\n") {
        first.push(frames.message().await);
    }
    assert_eq!(output(&first, "pty"), b"24 80\r\n");
    let size = json!({"process": {"pid": pid}, "pty": {"size": {"cols": 100, "rows": 30}}});
    assert_eq!(
        world
            .call("process.Process/Update", &size.to_string())
            .await
            .json(),
        json!({})
    );
    let close = world
        .call(
            "process.Process/CloseStdin",
            &json!({"process": {"pid": pid}}).to_string(),
        )
        .await;
    assert_eq!(close.json()["code"], "unknown");
    let input = json!({"process": {"pid": pid}, "input": {"pty": "aGkK"}}).to_string();
    assert_eq!(
        world.call("process.Process/SendInput", &input).await.status,
        200
    );
    let mut text = String::new();
    while !text.contains("got hi") {
        let message = frames.message().await;
        assert!(message["event"]["end"].is_null(), "ended after {text}");
        text.push_str(std::str::from_utf8(&output(&[message], "pty")).unwrap());
    }
    assert!(text.contains("30 100\r\n"), "{text}");
    let kill = json!({"process": {"pid": pid}, "signal": 9}).to_string();
    world.call("process.Process/SendSignal", &kill).await;
    assert_eq!(frames.rest().await.1, json!({}));
}

#[tokio::test]
async fn mistakes_have_their_codes() {
    let world = World::start().await;
    let start = async |message: serde_json::Value| {
        let mut frames = world
            .open("process.Process/Start", &[&message.to_string()], &[])
            .await;
        let (messages, end) = frames.rest().await;
        assert!(messages.is_empty());
        end["error"].clone()
    };
    let error = start(json!({"process": {"cmd": "/bin/true", "cwd": "/not/there"}})).await;
    assert_eq!(error["code"], "invalid_argument");
    assert_eq!(error["message"], "cwd '/not/there' does not exist");
    let error = start(json!({"process": {"cmd": "/not/there"}})).await;
    assert_eq!(error["code"], "invalid_argument");
    let select = json!({"process": {"pid": 4_000_000_000_u64}}).to_string();
    let (_, end) = world
        .open("process.Process/Connect", &[&select], &[])
        .await
        .rest()
        .await;
    assert_eq!(end["error"]["code"], "not_found");
    let (_, end) = world
        .open("process.Process/Start", &["{"], &[])
        .await
        .rest()
        .await;
    assert_eq!(end["error"]["code"], "invalid_argument");
    let request = world
        .envd("POST", "/process.Process/List")
        .header("content-type", "application/proto")
        .body(Body::empty())
        .unwrap();
    assert_eq!(world.fetch(request).await.status, 415);
    let request = world
        .to_port(49983, "POST", "/process.Process/List")
        .header("content-type", "application/json")
        .body(Body::from("{}"))
        .unwrap();
    let answer = world.fetch(request).await;
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.json(),
        json!({"code": 401, "message": "unauthorized access, please provide a valid access token or method signing if supported"})
    );
}

#[tokio::test]
async fn the_end_of_the_sandbox_breaks_streams_and_is_told_afterwards() {
    let world = World::start().await;
    let health = world
        .fetch(
            world
                .to_port(49983, "GET", "/health")
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!(health.status, 204);
    let mut frames = world.sh("exec sleep 300", &[]).await;
    frames.message().await;
    world.plane.ended.cancel();
    assert!(
        frames.next().await.is_err(),
        "the stream must break, not end"
    );
    let health = world.get("/health").await;
    assert_eq!(health.status, 502);
    assert_eq!(
        health.json(),
        json!({"sandboxId": world.id(), "message": "The sandbox was not found", "code": 502})
    );
}
