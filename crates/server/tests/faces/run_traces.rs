//! Runs as a collector is told of them.

use std::time::Duration;

use serde_json::{Value, json};
use woodfrog_core::run::sample::is_sampled;
use woodfrog_runs::Pace;
use woodfrog_testkit::collector::{Collector, Manner, Seen};

use crate::fixture::Server;

/// Long enough for a busy machine; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

const SCRIPT: &str = r#"
    echo '{"type":"tool_use","data":{"id":"1","name":"Bash","input":{"command":"hush"}}}'
    echo '{"type":"tool_result","data":{"tool_use_id":"1","content":"a","is_error":true}}'
    echo '{"type":"result","data":{"result":"42","usage":{"input_tokens":3,"output_tokens":4,"cache_read_input_tokens":5}}}'
"#;

async fn run(server: &Server, command: &str) -> Value {
    let body = json!({"command": command, "wait": true}).to_string();
    let answer = server.call("POST", "/api/v1/runs", &body);
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    let answer = answer.expect("no answer");
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

async fn until<T>(mut check: impl FnMut() -> Option<T>) -> T {
    let waited = async {
        loop {
            if let Some(found) = check() {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waited).await;
    waited.expect("it never was so")
}

async fn seen(collector: &Collector, count: usize) -> Vec<Seen> {
    until(|| Some(collector.seen()).filter(|seen| seen.len() >= count)).await
}

async fn metrics(server: &Server) -> String {
    let answer = server.send("GET", "/metrics", None, "").await;
    String::from_utf8(answer.body).expect("text")
}

#[tokio::test]
async fn a_run_and_its_tool_calls_arrive() {
    let collector = Collector::start(Manner::Takes).expect("a collector");
    let server = Server::with_guest().await;
    let server = server.with_traces(&collector, 1.0, Pace::AtEnd);
    let run = run(&server, SCRIPT).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    let seen = seen(&collector, 2).await;
    let [tool, whole] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!(run["trace_id"], whole.trace.as_str());
    assert_eq!(
        (whole.parent.as_str(), tool.parent.as_str()),
        ("", whole.id.as_str())
    );
    assert_eq!(tool.trace, whole.trace);
    assert_eq!(
        (tool.name.as_str(), tool.failed),
        ("execute_tool Bash", true)
    );
    assert_eq!(tool.attributes["gen_ai.operation.name"], "execute_tool");
    assert_eq!((whole.name.as_str(), whole.failed), ("run command", false));
    for (name, value) in [
        ("gen_ai.usage.input_tokens", "8"),
        ("gen_ai.usage.output_tokens", "4"),
        ("woodfrog.run.id", run["id"].as_str().expect("an id")),
        ("woodfrog.run.status", "succeeded"),
        ("woodfrog.sandbox.id", run["sandbox"].as_str().expect("one")),
        ("woodfrog.sampled_out", "false"),
    ] {
        assert_eq!(whole.attributes[name], value, "{name}");
    }
    assert!(
        !format!("{seen:?}").contains("hush"),
        "what was said is in no span"
    );
    // The trace leads to the run.
    let path = format!("/api/v1/runs?trace_id={}", whole.trace);
    let found = server.call("GET", &path, "").await.json();
    assert_eq!(found["items"][0]["id"], run["id"]);
    let told = until_told(&server, r#"outcome="sent"} 2"#).await;
    assert!(told.contains(r#"outcome="overflowed"} 0"#), "{told}");
}

async fn until_told(server: &Server, line: &str) -> String {
    let waited = async {
        loop {
            let text = metrics(server).await;
            if text.contains(line) {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waited).await;
    waited.expect("the metrics never say so")
}

#[tokio::test]
async fn spans_are_told_while_the_run_goes_on_if_that_is_wanted() {
    let collector = Collector::start(Manner::Takes).expect("a collector");
    let server = Server::with_guest().await;
    let server = server.with_traces(&collector, 1.0, Pace::AtOnce);
    let body = json!({"command": format!("{SCRIPT}\nsleep 600")}).to_string();
    let started = server.call("POST", "/api/v1/runs", &body).await.json();
    let first = seen(&collector, 1).await;
    assert_eq!(first[0].name, "execute_tool Bash");
    let path = format!(
        "/api/v1/runs/{}/cancel",
        started["id"].as_str().expect("an id")
    );
    server.call("POST", &path, "{}").await;
    let all = seen(&collector, 2).await;
    assert_eq!(all[1].attributes["error.type"], "canceled");
    assert_eq!(all.len(), 2, "nothing is told twice");
}

#[tokio::test]
async fn the_sample_goes_by_the_prompt_and_failures_are_told_anyway() {
    let collector = Collector::start(Manner::Takes).expect("a collector");
    let server = Server::with_guest().await;
    let server = server.with_traces(&collector, 0.5, Pace::AtEnd);
    let commands = (0..).map(|number| format!("true {number}"));
    let (mut told, mut passed) = (None, None);
    for command in commands {
        match is_sampled(&command, 0.5) {
            true => told.get_or_insert(command),
            false => passed.get_or_insert(command),
        };
        if told.is_some() && passed.is_some() {
            break;
        }
    }
    let (told, passed) = (told.expect("some"), passed.expect("some"));
    let fails = (0..).map(|number| format!("false {number}"));
    let fails = fails.into_iter().find(|command| !is_sampled(command, 0.5));
    let passed = run(&server, &passed).await;
    let failed = run(&server, &fails.expect("some")).await;
    let told = run(&server, &told).await;
    let seen = seen(&collector, 2).await;
    let traces: Vec<&str> = seen.iter().map(|span| span.trace.as_str()).collect();
    assert_eq!(
        traces,
        [
            failed["trace_id"].as_str().expect("one"),
            told["trace_id"].as_str().expect("one")
        ]
    );
    assert_eq!(passed["status"], "succeeded");
    assert!(seen[0].failed);
    assert_eq!(seen[0].attributes["woodfrog.sampled_out"], "true");
    assert_eq!(seen[1].attributes["woodfrog.sampled_out"], "false");
}

#[tokio::test]
async fn a_collector_that_hangs_or_refuses_changes_nothing_of_a_run() {
    for manner in [Manner::Hangs, Manner::Refuses(400)] {
        let collector = Collector::start(manner).expect("a collector");
        let server = Server::with_guest().await;
        let server = server.with_traces(&collector, 1.0, Pace::AtOnce);
        let times = server.path("times");
        let command = format!("echo once >> {times}; {SCRIPT}");
        let run = run(&server, &command).await;
        assert_eq!(run["status"], "succeeded", "{manner:?}: {run}");
        assert_eq!(run["result"], "42");
        until(|| (collector.requests() > 0).then_some(())).await;
        // The program was carried out once, whatever became of its trace.
        let times = std::fs::read_to_string(times).expect("it ran");
        assert_eq!(times, "once\n");
        if manner != Manner::Hangs {
            until_told(&server, r#"outcome="failed"} 2"#).await;
        }
        assert_eq!(collector.seen(), []);
    }
}
