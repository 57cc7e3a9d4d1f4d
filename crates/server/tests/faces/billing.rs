//! Prices, budgets, usage and webhooks through the native API, and deliveries to a real receiver.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use woodfrog_billing::Reach;
use woodfrog_core::webhook;
use woodfrog_types::Timestamp;
use woodfrog_types::usage::{Cost, Quantity, Tokens, UsageEntry};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{RunId, WorkspaceId};

use crate::fixture::Server;

/// How long something may take that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn prices_are_versions() {
    let server = Server::start().await;
    let first = server.call("GET", "/api/v1/prices", "").await.json();
    assert_eq!(first["version"], 1);
    let sonnet = &first["models"]["claude-sonnet-4-5-20250929"];
    assert_eq!(
        (&sonnet["input"], &sonnet["cache_write"]),
        (&json!(3_000_000), &json!(3_750_000))
    );
    let patch = json!({
        "models": {"new": {"input": 1, "output": 2, "cache_read": 3, "cache_write": null}},
        "remove_models": ["claude-haiku-4-0-20250604"],
        "compute": {"paused": {"cpu": 0, "memory": 9, "disk": 0}},
    });
    let second = server
        .call("PATCH", "/api/v1/prices", &patch.to_string())
        .await
        .json();
    assert_eq!(second["version"], 2);
    assert_eq!(second["models"]["new"]["output"], 2);
    assert_eq!(second["models"]["claude-haiku-4-0-20250604"], Value::Null);
    assert_eq!(second["compute"]["paused"]["memory"], 9);
    // Nothing changes: no version.
    let again = server.call("PATCH", "/api/v1/prices", "{}").await.json();
    assert_eq!(again["version"], 2);
    let old = server
        .call("GET", "/api/v1/prices?version=1", "")
        .await
        .json();
    assert_eq!(old, first);
    let versions = server
        .call("GET", "/api/v1/prices/versions", "")
        .await
        .json();
    assert_eq!(versions["items"], json!([second, first]));
    // They hold for everybody: a workspace's key may read them and no more.
    let other = Some(server.other.as_str());
    let read = server.send("GET", "/api/v1/prices", other, "").await;
    assert_eq!(read.status, 200);
    let refused = server.send("PATCH", "/api/v1/prices", other, "{}").await;
    assert_eq!(refused.status, 403);
    let wrong = json!({"compute": {"sneezing": {"cpu": 0, "memory": 9, "disk": 0}}});
    let refused = server
        .call("PATCH", "/api/v1/prices", &wrong.to_string())
        .await;
    assert_eq!(refused.status, 400);
}

fn entry(key: &str, run: Option<RunId>, cost: u64) -> UsageEntry {
    UsageEntry {
        key: key.to_owned(),
        workspace: WorkspaceId::default_workspace(),
        user: UserId::operator(),
        run,
        thread: Some("t,1".to_owned()),
        agent: Some("mock".to_owned()),
        sandbox: None,
        at: Timestamp::now(),
        quantity: Quantity::Tokens {
            model: "m".to_owned(),
            tokens: Tokens {
                input: 10,
                output: 1,
                ..Tokens::default()
            },
        },
        cost: Cost {
            model: cost,
            ..Cost::default()
        },
        price_version: 1,
    }
}

#[tokio::test]
async fn a_budget_refuses_tells_once_and_lets_go_on() {
    let server = Server::start().await;
    let missing = server.call("GET", "/api/v1/budget", "").await;
    assert_eq!(missing.status, 404);
    let set = json!({"amount_micros": 1_000, "reserve_micros": 400}).to_string();
    let set = server.call("PATCH", "/api/v1/budget", &set).await.json();
    assert_eq!(
        (&set["hard"], &set["policy"]),
        (&json!(true), &json!("freeze"))
    );
    let workspace = WorkspaceId::default_workspace();
    let budgets = &server.app.billing.budgets;
    let admit = async |limit| budgets.admit(&workspace, &RunId::generate(), limit).await;
    admit(None).await.expect("there is room");
    admit(Some(600)).await.expect("there is just room");
    let refused = admit(None).await.expect_err("there is none");
    assert_eq!(refused.code.as_str(), "budget_exceeded");
    let store = server.app.engine.store();
    store
        .usage_book(vec![entry("a", None, 900)])
        .await
        .expect("booked");
    use woodfrog_core::budget::Verdict;
    assert_eq!(
        budgets.verdict(&workspace).await.expect("asked"),
        Verdict::Go
    );
    store
        .usage_book(vec![entry("b", None, 100)])
        .await
        .expect("booked");
    for _ in 0..3 {
        assert_eq!(
            budgets.verdict(&workspace).await.expect("asked"),
            Verdict::Hold
        );
    }
    let shown = server.call("GET", "/api/v1/budget", "").await.json();
    assert_eq!(shown["spent_micros"], 1_000);
    let told: Vec<_> = shown["alerts"]
        .as_array()
        .expect("alerts")
        .iter()
        .map(|a| a["threshold"].clone())
        .collect();
    assert_eq!(told, [50, 80, 100]);
    server
        .call("PATCH", "/api/v1/budget", r#"{"amount_micros": 5000}"#)
        .await;
    assert_eq!(
        budgets.verdict(&workspace).await.expect("asked"),
        Verdict::Go
    );
    server
        .call(
            "PATCH",
            "/api/v1/budget",
            r#"{"amount_micros": 10, "reserve_micros": 0, "policy": "end"}"#,
        )
        .await;
    assert_eq!(
        budgets.verdict(&workspace).await.expect("asked"),
        Verdict::End
    );
    let other = Some(server.other.as_str());
    assert_eq!(
        server
            .send("GET", "/api/v1/budgets", other, "")
            .await
            .status,
        403
    );
    assert_eq!(
        server.send("GET", "/api/v1/budget", other, "").await.status,
        404
    );
    assert_eq!(
        server.call("DELETE", "/api/v1/budget", "").await.status,
        204
    );
    assert_eq!(
        budgets.verdict(&workspace).await.expect("asked"),
        Verdict::Go
    );
}

#[tokio::test]
async fn an_export_is_the_sum_of_all_entries() {
    let server = Server::start().await;
    let store = server.app.engine.store();
    let entries = (1..=250)
        .map(|n| entry(&format!("k{n}"), None, n))
        .collect();
    store.usage_book(entries).await.expect("booked");
    let lines = server.call("GET", "/api/v1/usage/export", "").await;
    let lines = String::from_utf8(lines.body).expect("text");
    let cost = |line: &str| -> u64 {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        line["model_cost_micros"].as_u64().expect("a cost")
    };
    let sum: u64 = lines.lines().map(cost).sum();
    assert_eq!((lines.lines().count(), sum), (250, 250 * 251 / 2));
    let csv = server
        .call("GET", "/api/v1/usage/export?format=csv", "")
        .await;
    let csv = String::from_utf8(csv.body).expect("text");
    assert_eq!(csv.lines().count(), 251);
    assert!(csv.contains(",\"t,1\",mock,,m,,10,1,0,0,"), "{csv}");
    for by in ["day", "model", "user", "thread", "agent"] {
        let shown = server
            .call("GET", &format!("/api/v1/usage?by={by}"), "")
            .await
            .json();
        assert_eq!(shown["total"]["total_cost_micros"], sum, "{by}");
        assert_eq!(shown["rows"].as_array().expect("rows").len(), 1, "{by}");
    }
    let wrong = server.call("GET", "/api/v1/usage?by=weather", "").await;
    assert_eq!(wrong.status, 400);
    let runs = server.call("GET", "/api/v1/usage/runs", "").await.json();
    assert_eq!(
        (&runs["total_runs"], &runs["trend"]),
        (&json!(0), &json!([]))
    );
}

/// What a receiver got, and what it is to answer next; then 204.
#[derive(Default)]
struct Received {
    calls: Vec<(HeaderMap, String)>,
    answers: Vec<u16>,
}

type Shared = Arc<Mutex<Received>>;

async fn receive(State(shared): State<Shared>, headers: HeaderMap, body: String) -> StatusCode {
    let mut shared = shared.lock().expect("not poisoned");
    shared.calls.push((headers, body));
    let answer = shared.answers.pop().unwrap_or(204);
    StatusCode::from_u16(answer).expect("a status")
}

async fn receiver(answers: Vec<u16>) -> (String, Shared) {
    let shared = Shared::default();
    shared.lock().expect("not poisoned").answers = answers;
    let router = axum::Router::new()
        .route("/hook", post(receive))
        .with_state(Arc::clone(&shared));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}/hook"), shared)
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.unwrap_or_else(|_| panic!("{what} did not come"))
}

#[tokio::test]
async fn a_webhook_is_told_signed_again_and_once_more_if_asked() {
    let server = Server::start().await.with_reach(Reach::Anywhere);
    let stop = CancellationToken::new();
    let billing = server.app.billing.clone();
    tokio::spawn({
        let stop = stop.clone();
        async move { billing.run(stop).await }
    });
    // The first try fails; there is another one five seconds later.
    let (url, shared) = receiver(vec![500]).await;
    let body = json!({"url": url, "events": ["sandbox.*"], "description": "mine"});
    let made = server
        .call("POST", "/api/v1/webhooks", &body.to_string())
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let id = made["id"].as_str().expect("an id").to_owned();
    let secret = made["secret"].as_str().expect("a secret").to_owned();
    let sandbox = server.sandbox().await;
    let calls = until("two tries", async || {
        let calls = shared.lock().expect("not poisoned").calls.clone();
        (calls.len() >= 2).then_some(calls)
    })
    .await;
    use base64::Engine as _;
    let key = secret.strip_prefix("whsec_").expect("the usual form");
    let key = base64::engine::general_purpose::STANDARD
        .decode(key)
        .expect("base64");
    for (headers, body) in &calls {
        let text = |name: &str| headers[name].to_str().expect("text").to_owned();
        assert_eq!(text("webhook-id"), format!("sandbox/{sandbox}/1"));
        let at: i64 = text("webhook-timestamp").parse().expect("seconds");
        let at = Timestamp::from_millis(at * 1_000);
        let wanted = webhook::sign(&key, &text("webhook-id"), at, body.as_bytes());
        assert_eq!(text("webhook-signature"), wanted);
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["type"], "sandbox.created");
        assert_eq!(body["data"]["sandbox"], sandbox.as_str());
    }
    let path = format!("/api/v1/webhooks/{id}/deliveries");
    let delivery = until("the record of the second try", async || {
        let listed = server.call("GET", &path, "").await.json();
        let first = listed["items"][0].clone();
        (first["state"] == "delivered").then_some(first)
    })
    .await;
    assert_eq!(
        (&delivery["attempts"], &delivery["last_status"]),
        (&json!(2), &json!(204))
    );
    let number = delivery["number"].clone();
    let replay = json!({ "number": number }).to_string();
    let path = format!("/api/v1/webhooks/{id}/replay");
    let replayed = server.call("POST", &path, &replay).await;
    assert_eq!(replayed.json()["count"], 1);
    until("the repetition", async || {
        (shared.lock().expect("not poisoned").calls.len() >= 3).then_some(())
    })
    .await;
    // Nobody else sees it, and the secret is not shown again.
    let other = Some(server.other.as_str());
    let foreign = server
        .send("GET", &format!("/api/v1/webhooks/{id}"), other, "")
        .await;
    assert_eq!(foreign.status, 404);
    let shown = server
        .call("GET", &format!("/api/v1/webhooks/{id}"), "")
        .await;
    assert!(!String::from_utf8_lossy(&shown.body).contains(&secret));
    let gone = server
        .call("DELETE", &format!("/api/v1/webhooks/{id}"), "")
        .await;
    assert_eq!(gone.status, 204);
    stop.cancel();
}

#[tokio::test]
async fn private_addresses_and_unknown_events_are_refused() {
    let server = Server::start().await;
    for body in [
        json!({"url": "http://127.0.0.1:9/"}),
        json!({"url": "http://[::1]/"}),
        json!({"url": "https://169.254.169.254/"}),
        json!({"url": "ftp://example.com/"}),
        json!({"url": "https://u:p@example.com/"}),
        json!({"url": "https://example.com/", "events": ["weather.*"]}),
        json!({"url": "https://example.com/", "description": "x".repeat(201)}),
    ] {
        let refused = server
            .call("POST", "/api/v1/webhooks", &body.to_string())
            .await;
        assert_eq!(refused.status, 400, "{body}");
    }
}
