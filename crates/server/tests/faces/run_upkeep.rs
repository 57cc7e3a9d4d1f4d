//! What is not to be kept of runs, how many may be started, and what the metrics say of them.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use woodfrog_types::page::PageRequest;
use woodfrog_types::run::RunFilter;
use woodfrog_types::usage::Month;
use woodfrog_types::workspace::{LimitsRecord, WorkspaceLimits};
use woodfrog_types::{Timestamp, WorkspaceId};

use crate::fixture::{Answer, Server};

const DAY: i64 = 24 * 3600 * 1000;
const PATIENCE: Duration = Duration::from_secs(60);

async fn limit(server: &Server, limits: WorkspaceLimits) {
    let record = LimitsRecord {
        workspace: WorkspaceId::default_workspace(),
        limits,
        generation: 1,
        updated_at: Timestamp::now(),
    };
    let stored = server.app.engine.store().limits_put(&record).await;
    stored.expect("stored");
}

async fn start(server: &Server, body: &Value) -> Answer {
    server.call("POST", "/api/v1/runs", &body.to_string()).await
}

fn later(days: i64) -> Timestamp {
    Timestamp::from_millis(Timestamp::now().as_millis() + days * DAY)
}

#[tokio::test]
async fn texts_artifacts_and_runs_go_after_their_days() {
    let server = Server::with_guest().await;
    let limits = WorkspaceLimits {
        prompt_retention_days: Some(10),
        artifact_retention_days: Some(20),
        run_retention_days: Some(30),
        ..WorkspaceLimits::default()
    };
    limit(&server, limits).await;
    let sandbox = server.sandbox().await;
    let out = server.path(&format!("{sandbox}/out"));
    std::fs::create_dir_all(&out).expect("made");
    let body = json!({
        "command": format!("echo a > {out}/a"), "sandbox": sandbox, "wait": true,
        "artifacts": {"paths": ["/out"]},
    });
    let run = start(&server, &body).await.json();
    assert_eq!(run["status"], "succeeded", "{run}");
    let id = run["id"].as_str().expect("id");
    let path = format!("/api/v1/runs/{id}");
    let fetch = async || server.call("GET", &path, "").await;
    let artifacts = async || {
        let listed = server.call("GET", "/api/v1/artifacts", "").await.json();
        listed["items"].as_array().map(Vec::len)
    };
    let tend = async |days| {
        let tended = server
            .app
            .runs
            .tend_once(later(days))
            .await
            .expect("tended");
        (tended.texts, tended.artifacts, tended.runs)
    };
    assert_eq!(tend(9).await, (0, 0, 0));
    assert!(fetch().await.json()["prompt"].is_string());
    for texts in [1, 0] {
        assert_eq!(tend(11).await, (texts, 0, 0));
    }
    let forgotten = fetch().await.json();
    assert!(forgotten["prompt"].is_null(), "{forgotten}");
    assert_eq!(forgotten["prompt_hash"], run["prompt_hash"]);
    let log = server
        .call("GET", &format!("{path}/events"), "")
        .await
        .json();
    assert_eq!(log["items"], json!([]), "{log}");
    assert_eq!(artifacts().await, Some(1));
    assert_eq!(tend(21).await, (0, 1, 0));
    assert_eq!(artifacts().await, Some(0));
    assert_eq!(fetch().await.status, StatusCode::OK);
    assert_eq!(tend(31).await, (0, 0, 1));
    assert_eq!(fetch().await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_goes_on_is_kept_however_old() {
    let server = Server::with_guest().await;
    let limits = WorkspaceLimits {
        prompt_retention_days: Some(0),
        run_retention_days: Some(0),
        ..WorkspaceLimits::default()
    };
    limit(&server, limits).await;
    let run = start(&server, &json!({"command": "sleep 600"}))
        .await
        .json();
    let tended = server.app.runs.tend_once(later(1)).await.expect("tended");
    assert_eq!((tended.texts, tended.runs), (0, 0));
    let path = format!("/api/v1/runs/{}/cancel", run["id"].as_str().expect("id"));
    assert_eq!(server.call("POST", &path, "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_workspace_has_a_rate_and_a_burst() {
    let server = Server::with_guest().await;
    let limits = WorkspaceLimits {
        user_runs_per_minute: None,
        runs_per_minute: Some(2),
        run_burst: 1,
        ..WorkspaceLimits::default()
    };
    limit(&server, limits).await;
    // Runs that are not recorded count as well.
    for (track, status) in [
        (true, StatusCode::CREATED),
        (false, StatusCode::CREATED),
        (true, StatusCode::CREATED),
        (true, StatusCode::TOO_MANY_REQUESTS),
        (false, StatusCode::TOO_MANY_REQUESTS),
    ] {
        let answer = start(&server, &json!({"command": "true", "track": track})).await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status == StatusCode::TOO_MANY_REQUESTS {
            let detail = answer.json()["detail"].to_string();
            assert!(
                detail.contains("maximum 2 sandbox runs per minute"),
                "{detail}"
            );
        }
    }
}

#[tokio::test]
async fn metrics_count_runs_by_state() {
    let server = Server::with_guest().await;
    for command in ["true", "exit 1"] {
        start(&server, &json!({"command": command, "wait": true})).await;
    }
    let metrics = server.call("GET", "/metrics", "").await;
    let text = String::from_utf8(metrics.body).expect("text");
    for line in [
        r#"woodfrog_runs{state="succeeded"} 1"#,
        r#"woodfrog_runs{state="failed"} 1"#,
        "woodfrog_runs_waiting 0",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[tokio::test]
async fn a_workspace_goes_with_its_runs_and_books() {
    let server = Server::with_guest().await;
    let at = async |method: &str, path: &str, body: Value| {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header("host", "api.frog.test")
            .header("x-api-key", &server.admin)
            .header("x-woodfrog-workspace", "team")
            .body(Body::from(body.to_string()));
        server.send_request(request.expect("a request")).await
    };
    let made = server
        .call("POST", "/api/v1/workspaces", r#"{"name":"team"}"#)
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let workspace = made.json()["id"].as_str().expect("id").to_owned();
    let workspace: WorkspaceId = workspace.parse().expect("an id");
    let budget = at("PATCH", "/budget", json!({"amount_micros": 1_000_000})).await;
    assert_eq!(budget.status, StatusCode::OK, "{budget:?}");
    let hook = json!({"url": "https://example.com/x", "events": ["run.*"]});
    let hook = at("POST", "/webhooks", hook).await;
    assert_eq!(hook.status, StatusCode::CREATED, "{hook:?}");
    let usage = r#"echo '{"type":"result","data":{"result":"x","usage":{"input_tokens":3}}}'"#;
    let body = json!({"command": usage, "wait": true});
    let over = at("POST", "/runs", body).await.json();
    assert_eq!(over["status"], "succeeded", "{over}");
    let going = at("POST", "/runs", json!({"command": "sleep 600"})).await;
    assert_eq!(going.status, StatusCode::CREATED, "{going:?}");
    let store = server.app.engine.store();
    let month = Month::of(Timestamp::now());
    let totals = store.usage_totals(&workspace, month).await.expect("asked");
    assert!(totals.entries > 0);
    let removed = server.call("DELETE", "/api/v1/workspaces/team", "").await;
    assert_eq!(removed.status, StatusCode::ACCEPTED, "{removed:?}");
    let gone = async {
        while !store.workspace_removing().await.expect("listed").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let gone = tokio::time::timeout(PATIENCE, gone).await;
    gone.expect("the workspace goes");
    let page = PageRequest {
        limit: 10,
        cursor: None,
    };
    let runs = store
        .run_list(&workspace, &RunFilter::default(), &page)
        .await;
    assert_eq!(runs.expect("listed").items, []);
    let totals = store.usage_totals(&workspace, month).await.expect("asked");
    assert_eq!(totals.entries, 0);
    assert_eq!(store.budget_fetch(&workspace).await.expect("asked"), None);
    assert_eq!(store.webhook_list(&workspace).await.expect("listed"), []);
}
