//! Runs over a real guest on this machine.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use woodfrog_types::workspace::{LimitsRecord, WorkspaceLimits};
use woodfrog_types::{Timestamp, WorkspaceId};

use crate::fixture::Server;

/// Long enough for a busy machine; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

async fn start(server: &Server, body: &Value) -> Value {
    let body = body.to_string();
    let answer = server.call("POST", "/api/v1/runs", &body);
    let answer = tokio::time::timeout(PATIENCE, answer)
        .await
        .expect("no answer");
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.json()
}

/// Runs a command to its end.
async fn carried_out(server: &Server, command: &str, more: &Value) -> Value {
    let mut body = json!({"command": command, "wait": true});
    let fields = more.as_object().into_iter().flatten();
    for (name, value) in fields {
        body[name] = value.clone();
    }
    start(server, &body).await
}

async fn events(server: &Server, id: &str) -> Vec<Value> {
    let path = format!("/api/v1/runs/{id}/events?limit=1000");
    let answer = server.call("GET", &path, "").await.json();
    let items = answer["items"].as_array().expect("items").clone();
    for (event, place) in items.iter().zip(1_u64..) {
        assert_eq!(event["id"], place, "{event}");
    }
    items
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let kinds = events.iter().filter_map(|event| event["type"].as_str());
    kinds.filter(|kind| *kind != "status").collect()
}

async fn fetch(server: &Server, id: &str) -> Value {
    server
        .call("GET", &format!("/api/v1/runs/{id}"), "")
        .await
        .json()
}

/// Waits until the run is as `check` wants it.
async fn until(server: &Server, id: &str, check: impl Fn(&Value) -> bool) -> Value {
    let waited = async {
        loop {
            let run = fetch(server, id).await;
            if check(&run) {
                return run;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waited).await;
    waited.expect("the run never was so")
}

/// A workspace's starts are not what these tests are about.
async fn many(server: &Server) {
    let limits = LimitsRecord {
        workspace: WorkspaceId::default_workspace(),
        limits: WorkspaceLimits {
            user_runs_per_minute: None,
            ..WorkspaceLimits::default()
        },
        generation: 1,
        updated_at: Timestamp::now(),
    };
    let stored = server.app.engine.store().limits_put(&limits).await;
    stored.expect("stored");
}

#[tokio::test]
async fn a_program_that_writes_events_is_read() {
    let server = Server::with_guest().await;
    let script = r#"
        echo '{"type":"start","data":{"prompt":"p"}}'
        echo '{"type":"thinking","data":{"thinking":"hm","signature":"s"}}'
        echo '{"type":"text","data":{"text":"hello"}}'
        echo '{"type":"tool_use","data":{"id":"1","name":"Bash","input":{"command":"ls"}}}'
        echo '{"type":"tool_result","data":{"tool_use_id":"1","content":"a","is_error":false}}'
        echo 'no event'
        echo '{"type":"error","data":{"error":"e","message":"m"}}'
        echo '{"type":"result","data":{"result":"42","duration_ms":5,"cost":0.1,"num_turns":2,"usage":{"input_tokens":3,"output_tokens":4,"cache_read_input_tokens":5}}}'
        echo '{"type":"complete","data":{"status":"done"}}'
        echo oops >&2
    "#;
    let run = carried_out(&server, script, &json!({})).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    let log = events(&server, run["id"].as_str().expect("id")).await;
    let mut seen = kinds(&log);
    assert_eq!(seen.first(), Some(&"start"), "{log:?}");
    assert_eq!(seen.pop(), Some("complete"), "{log:?}");
    let of_program: Vec<&str> = seen[1..].to_vec();
    let expected = [
        "thinking",
        "text",
        "tool_use",
        "tool_result",
        "raw",
        "error",
        "result",
        "raw",
    ];
    // Standard error may come at any place.
    let mut sorted = (of_program.clone(), expected.to_vec());
    sorted.0.sort_unstable();
    sorted.1.sort_unstable();
    assert_eq!(sorted.0, sorted.1, "{log:?}");
    assert_eq!(log[0]["data"]["prompt"], script);
    assert_eq!(run["result"], "42");
    assert_eq!(run["stats"]["tool_calls"], 1);
    assert_eq!(run["stats"]["turns"], 2);
    assert_eq!(
        run["tokens"],
        json!({"input": 3, "output": 4, "cache_read": 5, "cache_write": 0})
    );
    assert_eq!(run["cost"]["unpriced"], true, "nobody gave it a price");
    let complete = log.last().expect("events");
    assert_eq!(
        complete["data"],
        json!({"status": "succeeded", "result": "42"})
    );
}

#[tokio::test]
async fn the_last_line_is_the_result_of_a_program_without_events() {
    let server = Server::with_guest().await;
    let script = r#"echo working; echo '{"result":"done","usage":{"input_tokens":7}}'"#;
    let run = carried_out(&server, script, &json!({})).await;
    assert_eq!(run["result"], "done");
    assert_eq!(run["tokens"]["input"], 7);
    let log = events(&server, run["id"].as_str().expect("id")).await;
    let result = log
        .iter()
        .find(|event| event["type"] == "result")
        .expect("a result");
    assert_eq!(result["data"]["usage"]["input_tokens"], 7, "{result}");
}

#[tokio::test]
async fn failures_say_why() {
    let server = Server::with_guest().await;
    many(&server).await;
    for (script, category, code) in [
        ("echo 'API is down' >&2; exit 1", "api_error", "exit_status"),
        ("echo 'Tool broke' >&2; exit 1", "tool_error", "exit_status"),
        ("exit 124", "timeout", "timeout"),
        (
            "echo 'no container' >&2; exit 3",
            "sandbox_error",
            "exit_status",
        ),
        ("exit 3", "unknown", "exit_status"),
        ("kill -9 $$", "unknown", "signal"),
    ] {
        let run = carried_out(&server, script, &json!({})).await;
        assert_eq!(run["status"], "failed", "{script}");
        assert_eq!(run["error"]["category"], category, "{run}");
        assert_eq!(run["error"]["code"], code, "{run}");
    }
    let late = carried_out(&server, "sleep 600", &json!({"timeout": 1})).await;
    assert_eq!(late["status"], "failed");
    assert_eq!(late["error"]["code"], "timeout", "{late}");
    assert!(late["duration_ms"].as_u64().expect("a time") >= 1000);
    let gone = carried_out(&server, "true", &json!({"cwd": "/no/such"})).await;
    assert_eq!(gone["status"], "failed");
    let log = events(&server, gone["id"].as_str().expect("id")).await;
    assert_eq!(kinds(&log), ["start", "error", "complete"], "{log:?}");
}

#[tokio::test]
async fn a_run_is_canceled_once_and_stays_so() {
    let server = Server::with_guest().await;
    let run = start(&server, &json!({"command": "echo on; sleep 600"})).await;
    let id = run["id"].as_str().expect("id");
    until(&server, id, |run| run["status"] == "running").await;
    let path = format!("/api/v1/runs/{id}/cancel");
    let foreign = server.send("POST", &path, Some(&server.other), "{}").await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    let answer = server
        .call("POST", &path, r#"{"reason":"enough"}"#)
        .await
        .json();
    assert_eq!(answer["canceled"], true, "{answer}");
    assert_eq!(answer["run"]["status"], "canceled");
    let again = server.call("POST", &path, "{}").await.json();
    assert_eq!(again["canceled"], false);
    assert_eq!(again["message"], "Run already in terminal state 'canceled'");
    assert_eq!(again["run"], fetch(&server, id).await);
    // Its sandbox goes with it.
    let sandbox = answer["run"]["sandbox"]
        .as_str()
        .expect("a sandbox")
        .to_owned();
    let gone = async {
        while server
            .call("GET", &format!("/api/v1/sandboxes/{sandbox}"), "")
            .await
            .status
            != 404
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("the sandbox stays");
}

#[tokio::test]
async fn fifty_starts_at_once_are_ten() {
    let server = Arc::new(Server::with_guest().await);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let server = Arc::clone(&server);
        // Whether it is recorded makes no difference.
        let body = json!({"command": "true", "track": number % 5 != 0});
        tasks.spawn(async move { server.call("POST", "/api/v1/runs", &body.to_string()).await });
    }
    let (mut started, mut refused) = (0, 0);
    while let Some(task) = tasks.join_next().await {
        let answer = task.expect("no panic");
        match answer.status {
            StatusCode::CREATED => started += 1,
            StatusCode::TOO_MANY_REQUESTS => {
                let text = "Rate limit exceeded: maximum 10 sandbox runs per minute";
                assert_eq!(answer.json()["detail"], text);
                refused += 1;
            }
            other => panic!("{other}: {answer:?}"),
        }
    }
    assert_eq!((started, refused), (10, 40));
}

#[tokio::test]
async fn an_untracked_run_is_the_same_and_in_no_list() {
    let server = Server::with_guest().await;
    let tracked = carried_out(&server, "echo a; echo b", &json!({})).await;
    let untracked = carried_out(&server, "echo a; echo b", &json!({"track": false})).await;
    assert_eq!(untracked["status"], "succeeded", "{untracked}");
    assert_eq!(untracked["tracked"], false);
    let of = |events: Vec<Value>| -> Vec<(Value, Value)> {
        let rest = events.into_iter().filter(|event| event["type"] != "status");
        rest.map(|event| (event["type"].clone(), event["data"].clone()))
            .collect()
    };
    let one = of(events(&server, tracked["id"].as_str().expect("id")).await);
    let two = of(events(&server, untracked["id"].as_str().expect("id")).await);
    assert_eq!(one, two);
    let list = server.call("GET", "/api/v1/runs", "").await.json();
    let ids: Vec<&Value> = list["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|it| &it["id"])
        .collect();
    assert_eq!(ids, [&tracked["id"]]);
    let trace = tracked["trace_id"].as_str().expect("a trace");
    let found = server
        .call("GET", &format!("/api/v1/runs?trace_id={trace}"), "")
        .await
        .json();
    assert_eq!(found["items"][0]["id"], tracked["id"]);
}

#[tokio::test]
async fn a_key_gives_one_run() {
    let server = Server::with_guest().await;
    let more = json!({"idempotency_key": "k"});
    let first = carried_out(&server, "true", &more).await;
    let second = carried_out(&server, "true", &more).await;
    assert_eq!(first["id"], second["id"]);
    let body = json!({"command": "false", "idempotency_key": "k"}).to_string();
    let other = server.call("POST", "/api/v1/runs", &body).await;
    assert_eq!(other.json()["code"], "idempotency_request_mismatch");
}

#[tokio::test]
async fn secrets_are_in_the_environment_and_nowhere_else() {
    let server = Server::with_guest().await;
    let made = server
        .call(
            "POST",
            "/secrets",
            r#"{"name":"token","value":"hush-hush"}"#,
        )
        .await;
    assert!(made.status.is_success(), "{made:?}");
    let more = json!({"env": {"A": "b"}, "secrets": {"TOKEN": "token"}});
    let script = r#"test "$TOKEN" = hush-hush && test "$A" = b && test -n "$WOODFROG_RUN_ID""#;
    let run = carried_out(&server, script, &more).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    let id = run["id"].as_str().expect("id").parse().expect("an id");
    let stored = server
        .app
        .engine
        .store()
        .run_fetch(&id)
        .await
        .expect("fetched");
    // The script has the word itself; nothing else may.
    let mut stored = stored.expect("is there");
    stored.input = None;
    assert!(!format!("{stored:?}").contains("hush"), "{stored:?}");
    let missing = json!({"command": "true", "secrets": {"X": "nobody"}}).to_string();
    let answer = server.call("POST", "/api/v1/runs", &missing).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_left() {
    let server = Server::with_guest().await;
    let run = carried_out(&server, "for i in 1 2 3; do echo $i; done", &json!({})).await;
    let id = run["id"].as_str().expect("id");
    let whole = events(&server, id).await;
    for after in [0, 2, whole.len() as u64] {
        let request = Request::builder()
            .uri(format!("/api/v1/runs/{id}/events"))
            .header("host", "api.frog.test")
            .header("x-api-key", &server.admin)
            .header("accept", "text/event-stream")
            .header("last-event-id", after.to_string())
            .body(Body::empty())
            .expect("a request");
        // The stream ends with the run.
        let answer = tokio::time::timeout(PATIENCE, server.send_request(request));
        let answer = answer.await.expect("the stream ends");
        let text = String::from_utf8(answer.body).expect("text");
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let data: Vec<Value> = data
            .map(|it| serde_json::from_str(it).expect("JSON"))
            .collect();
        assert_eq!(data, whole[usize::try_from(after).expect("small")..]);
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let server = Server::start().await;
    for (body, field) in [
        (json!({}), "prompt"),
        (json!({"prompt": "p"}), "agent"),
        (
            json!({"prompt": "p", "command": "c", "agent": "mock"}),
            "prompt",
        ),
        (json!({"command": " "}), "input"),
        (json!({"command": "c", "timeout": 601}), "timeout"),
        (json!({"command": "c", "timeout": 0}), "timeout"),
        (json!({"command": "c", "priority": 101}), "priority"),
        (json!({"command": "c", "thread": "t".repeat(101)}), "thread"),
        (json!({"command": "c", "env": {"": "x"}}), "env"),
        (json!({"command": "c".repeat(100_001)}), "input"),
    ] {
        let answer = server.call("POST", "/api/v1/runs", &body.to_string()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        let errors = &answer.json()["errors"][0]["pointer"];
        assert!(
            errors.as_str().is_some_and(|it| it.contains(field)),
            "{field}: {errors}"
        );
    }
    let unknown = server.call("GET", "/api/v1/runs/nonsense", "").await;
    assert_eq!(unknown.json()["code"], "run_not_found");
}
