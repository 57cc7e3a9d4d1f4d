//! Processes.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::{Agent, code, text};

fn sh(script: &str) -> Value {
    json!({"command": "sh", "args": ["-c", script]})
}

/// What the entries of a log hold together.
fn output(entries: &[Value]) -> String {
    let bytes = entries.iter().flat_map(|entry| {
        assert_eq!(entry["encoding"], "base64");
        let data = entry["data"].as_str().expect("data");
        BASE64.decode(data).expect("base64")
    });
    String::from_utf8(bytes.collect()).expect("text")
}

async fn entries(agent: &Agent, id: &str, query: &str) -> Vec<Value> {
    let path = format!("/v1/processes/{id}/logs{query}");
    let log = agent.call("GET", &path).await;
    assert_eq!(log.status, 200, "{log:?}");
    let log = log.json();
    assert_eq!(log["processId"], id);
    log["entries"].as_array().expect("entries").clone()
}

/// Runs commands that each wait until what the one before printed was read, so that it is an
/// entry of its own.
async fn in_stages(agent: &Agent, commands: &[&str]) -> String {
    let id = agent.start_process(sh(&commands.join("; read x; "))).await;
    for stage in 1..commands.len() {
        while entries(agent, &id, "").await.len() < stage {
            tokio::task::yield_now().await;
        }
        let input = json!({"data": "\n", "encoding": "utf8"});
        let path = format!("/v1/processes/{id}/input");
        let taken = agent.json("POST", &path, input).await;
        assert_eq!(taken.json(), json!({"bytesWritten": 1}));
    }
    id
}

#[tokio::test]
async fn programs_run_to_their_end() {
    let agent = Agent::start().await;
    let run = async |body: Value| agent.json("POST", "/v1/processes/run", body).await;
    let mut ran = run(sh("echo hi; echo err >&2; exit 3")).await.json();
    assert!(ran["durationMs"].is_u64());
    ran["durationMs"] = json!(0);
    assert_eq!(
        ran,
        json!({
            "exitCode": 3, "timedOut": false, "stdout": "hi\n", "stderr": "err\n",
            "stdoutTruncated": false, "stderrTruncated": false, "durationMs": 0,
        })
    );
    let killed = run(sh("kill -9 $$")).await.json();
    assert_eq!(killed["exitCode"], Value::Null);
    let request = json!({"command": "sh", "args": ["-c", "echo abcdefgh"], "maxOutputBytes": 4});
    let cut = run(request).await.json();
    assert_eq!(
        (
            &cut["stdout"],
            &cut["stdoutTruncated"],
            &cut["stderrTruncated"]
        ),
        (&json!("abcd"), &json!(true), &json!(false))
    );
    let request = json!({"command": "sleep", "args": ["1000"], "timeoutMs": 50});
    let late = run(request).await.json();
    assert_eq!(
        (&late["timedOut"], &late["exitCode"]),
        (&json!(true), &Value::Null)
    );
    let there = json!({"command": "pwd", "cwd": "/usr", "env": {}});
    assert_eq!(run(there).await.json()["stdout"], "/usr\n");
    for bad in [
        json!({"command": ""}),
        json!({"command": "no-such-program"}),
        json!({"command": "pwd", "cwd": "/no/such/place"}),
        json!({"command": "pwd", "timeoutMs": 0}),
    ] {
        let refused = run(bad.clone()).await;
        assert_eq!(code(&refused), "invalid_request", "{bad}");
    }
    let plain = agent
        .send(agent.request("POST", "/v1/processes/run"), "{}".into())
        .await;
    assert_eq!(plain.status, 415);
    assert_eq!(run(json!({})).await.status, 422);
}

#[tokio::test]
async fn logs_are_read_from_any_place() {
    let agent = Agent::start().await;
    let id = in_stages(&agent, &["echo one", "echo two >&2", "echo three"]).await;
    let ended = agent.ended(&id).await;
    assert_eq!(ended["exitCode"], 0);
    let all = entries(&agent, &id, "").await;
    assert_eq!(output(&all), "one\ntwo\nthree\n");
    let streams: Vec<&Value> = all.iter().map(|entry| &entry["stream"]).collect();
    assert_eq!(streams, ["stdout", "stderr", "stdout"]);
    let sequences: Vec<u64> = all.iter().filter_map(|e| e["sequence"].as_u64()).collect();
    assert_eq!(sequences, [1, 2, 3]);
    let (began, over) = (
        ended["createdAtMs"].as_u64().expect("a time"),
        ended["exitedAtMs"].as_u64().expect("a time"),
    );
    let times: Vec<u64> = all
        .iter()
        .filter_map(|e| e["timestampMs"].as_u64())
        .collect();
    assert!(times.is_sorted() && times.len() == 3, "{times:?}");
    assert!(
        times.iter().all(|at| (began..=over).contains(at)),
        "{times:?}"
    );

    assert_eq!(
        output(&entries(&agent, &id, "?stream=stderr").await),
        "two\n"
    );
    assert_eq!(entries(&agent, &id, "?stream=pty").await.len(), 0);
    assert_eq!(output(&entries(&agent, &id, "?tail=1").await), "three\n");
    assert_eq!(
        output(&entries(&agent, &id, "?tail=2").await),
        "two\nthree\n"
    );
    assert_eq!(entries(&agent, &id, "?tail=0").await.len(), 0);
    assert_eq!(
        output(&entries(&agent, &id, "?stream=stdout&tail=2").await),
        "one\nthree\n"
    );
    assert_eq!(output(&entries(&agent, &id, "?since=2").await), "three\n");
    assert_eq!(entries(&agent, &id, "?since=3").await.len(), 0);
    for bad in ["?since=4", "?since=-1", "?stream=bogus", "?tail=x"] {
        let path = format!("/v1/processes/{id}/logs{bad}");
        assert_eq!(agent.call("GET", &path).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_followed_log_goes_on_where_its_reader_stopped() {
    let agent = Agent::start().await;
    let id = in_stages(&agent, &["echo one", "echo two"]).await;
    agent.ended(&id).await;
    let path = format!("/v1/processes/{id}/logs?follow=true");
    let whole = agent.call("GET", &path).await;
    assert_eq!(whole.headers["content-type"], "text/event-stream");
    let last = "event: log\nid: 2\ndata: {\"sequence\":2,\"stream\":\"stdout\"";
    assert!(text(&whole).contains(last), "{whole:?}");
    let resumed = agent.request("GET", &path).header("last-event-id", "1");
    let resumed = agent.send(resumed, axum::body::Body::empty()).await;
    let data = text(&resumed)
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let rest: Vec<Value> = data
        .map(|json| serde_json::from_str(json).expect("json"))
        .collect();
    assert_eq!(output(&rest), "two\n");
    let bad = agent.request("GET", &path).header("last-event-id", "x");
    let bad = agent.send(bad, axum::body::Body::empty()).await;
    assert_eq!(code(&bad), "invalid_request");
}

#[tokio::test]
async fn output_that_is_not_kept_is_a_gap() {
    let agent = Agent::start().await;
    let config = json!({
        "maxConcurrentProcesses": 64, "defaultRunTimeoutMs": 30000, "maxRunTimeoutMs": 300000,
        "maxOutputBytes": 1048576, "maxLogBytesPerProcess": 4096, "maxInputBytesPerRequest": 65536,
    });
    let changed = agent
        .json("POST", "/v1/processes/config", config.clone())
        .await;
    assert_eq!(changed.json(), config);
    let id = agent.start_process(sh("yes | head -c 100000")).await;
    agent.ended(&id).await;
    let kept = entries(&agent, &id, "").await;
    assert_eq!(output(&kept).len(), 4096);
    let first = kept[0]["sequence"].as_u64().expect("a sequence");
    let path = format!("/v1/processes/{id}/logs?follow=true&since=1");
    let followed = agent.call("GET", &path).await;
    let to = first - 1;
    let gap = format!(
        "event: gap\nid: {to}\ndata: {{\"from\":2,\"to\":{to}}}\n\nevent: log\nid: {first}\n"
    );
    assert!(text(&followed).starts_with(&gap), "{followed:?}");
}

#[tokio::test]
async fn processes_are_stopped_killed_and_deleted() {
    let agent = Agent::start().await;
    let id = agent.start_process(json!({"command": "cat"})).await;
    let path = format!("/v1/processes/{id}");
    let running = agent.call("GET", &path).await.json();
    assert_eq!(running["status"], "running");
    assert_eq!(running["owner"], "user");
    assert!(running["pid"].is_u64(), "{running}");
    let refused = agent.call("DELETE", &path).await;
    assert_eq!(code(&refused), "conflict");
    for _ in 0..2 {
        let stop = format!("{path}/stop?waitMs=20000");
        let stopped = agent.call("POST", &stop).await.json();
        assert_eq!(stopped["status"], "exited", "{stopped}");
        assert!(stopped.get("exitCode").is_none(), "{stopped}");
        assert!(stopped.get("pid").is_none(), "{stopped}");
    }
    let input = json!({"data": "aGk="});
    let refused = agent.json("POST", &format!("{path}/input"), input).await;
    assert_eq!(code(&refused), "conflict");
    assert_eq!(agent.call("DELETE", &path).await.status, 204);
    for method in ["GET", "DELETE"] {
        let gone = agent.call(method, &path).await;
        assert_eq!(
            gone.json()["details"],
            json!({"resource": "process", "id": id})
        );
    }
    // One that does not listen: it is reported as running, and then it is killed.
    let deaf = agent
        .start_process(sh(
            "trap '' TERM; echo ready; while :; do read x || sleep 1; done",
        ))
        .await;
    while entries(&agent, &deaf, "").await.is_empty() {
        tokio::task::yield_now().await;
    }
    let path = format!("/v1/processes/{deaf}");
    let began = Instant::now();
    let still = agent
        .call("POST", &format!("{path}/stop?waitMs=100"))
        .await
        .json();
    assert_eq!(still["status"], "running");
    assert!(began.elapsed() >= Duration::from_millis(100));
    let dead = agent
        .call("POST", &format!("{path}/kill?waitMs=20000"))
        .await
        .json();
    assert_eq!(dead["status"], "exited");
}

#[tokio::test]
async fn input_is_decoded_and_limited() {
    let agent = Agent::start().await;
    let id = agent.start_process(json!({"command": "cat"})).await;
    let path = format!("/v1/processes/{id}/input");
    let send = async |body: Value| agent.json("POST", &path, body).await;
    assert_eq!(send(json!({"data": "YQ=="})).await.status, 200);
    assert_eq!(
        send(json!({"data": "b", "encoding": "text"})).await.status,
        200
    );
    assert_eq!(code(&send(json!({"data": "!!!"})).await), "invalid_request");
    let other = send(json!({"data": "x", "encoding": "zzz"})).await;
    let detail = "invalid request: encoding must be one of: base64, utf8, text";
    assert_eq!(other.json()["detail"], detail);
    let most = "x".repeat(65536);
    let taken = send(json!({"data": most, "encoding": "utf8"})).await;
    assert_eq!(taken.json(), json!({"bytesWritten": 65536}));
    let more = format!("{most}x");
    assert_eq!(
        send(json!({"data": more, "encoding": "utf8"})).await.status,
        413
    );
    let resize = json!({"cols": 80, "rows": 24});
    let path = format!("/v1/processes/{id}/terminal/resize");
    let refused = agent.json("POST", &path, resize).await;
    assert_eq!(code(&refused), "conflict");
    let wanted = format!("ab{most}");
    while output(&entries(&agent, &id, "").await).len() < wanted.len() {
        tokio::task::yield_now().await;
    }
    assert_eq!(output(&entries(&agent, &id, "").await), wanted);
}

#[tokio::test]
async fn there_are_only_so_many_at_once() {
    let agent = Agent::start().await;
    let mut config = agent.call("GET", "/v1/processes/config").await.json();
    assert_eq!(config["maxConcurrentProcesses"], 64);
    config["maxConcurrentProcesses"] = json!(2);
    agent
        .json("POST", "/v1/processes/config", config.clone())
        .await;
    let start = || agent.json("POST", "/v1/processes", json!({"command": "cat"}));
    let all = futures_util::future::join_all((0..5).map(|_| start())).await;
    let started = all.iter().filter(|answer| answer.status == 200).count();
    let refused = all.iter().filter(|answer| answer.status == 409).count();
    assert_eq!((started, refused), (2, 3));
    config["maxOutputBytes"] = json!(0);
    let zero = agent.json("POST", "/v1/processes/config", config).await;
    let detail = "invalid request: maxOutputBytes must be greater than 0";
    assert_eq!(zero.json()["detail"], detail);
    let half = json!({"maxConcurrentProcesses": 1});
    let half = agent.json("POST", "/v1/processes/config", half).await;
    assert_eq!(half.status, 422);
}

#[tokio::test]
async fn they_are_kept_until_they_are_deleted() {
    let agent = Agent::start().await;
    let first = agent.start_process(sh("echo first")).await;
    agent.ended(&first).await;
    // More than the guest keeps of those that nobody wants to keep.
    for _ in 0..70 {
        let ran = agent.json("POST", "/v1/processes/run", sh(":")).await;
        assert_eq!(ran.status, 200);
    }
    let second = agent.start_process(json!({"command": "cat"})).await;
    let listed = agent.call("GET", "/v1/processes?owner=user").await.json();
    let ids: Vec<&Value> = listed["processes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|process| &process["id"])
        .collect();
    assert_eq!(ids, [first.as_str(), second.as_str()]);
    assert_eq!(output(&entries(&agent, &first, "").await), "first\n");
    let none = agent.call("GET", "/v1/processes?owner=system").await.json();
    assert_eq!(none, json!({"processes": []}));
    assert_eq!(agent.call("GET", "/v1/processes?owner=x").await.status, 400);
}
