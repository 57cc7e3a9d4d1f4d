//! What E2B's clients do.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use woodfrog_types::Timestamp;

use crate::fixture::Server;

#[tokio::test]
async fn a_sandbox_s_life_with_exact_statuses() {
    let server = Server::start().await;
    assert_eq!(server.call("GET", "/health", "").await.status, 204);
    let id = server.sandbox().await;
    let path = format!("/sandboxes/{id}");
    for (method, tail, body, status) in [
        ("GET", "", "", 200),
        ("POST", "/connect", r#"{"timeout":400}"#, 200),
        ("POST", "/connect", "", 400),
        ("POST", "/timeout", r#"{"timeout":60}"#, 204),
        ("POST", "/refreshes", "", 204),
        ("POST", "/refreshes", r#"{"duration":9999}"#, 400),
        ("PUT", "/network", r#"{"denyOut":["8.8.8.8"]}"#, 204),
        ("GET", "/metrics", "", 200),
        ("GET", "/metrics?start=x", "", 400),
        ("GET", "/logs", "", 200),
        ("POST", "/resume", "", 409),
        ("POST", "/fork", r#"{"count":0}"#, 400),
        ("POST", "/fork", r#"{"count":101}"#, 400),
        ("DELETE", "", "", 204),
        ("DELETE", "", "", 404),
        ("GET", "", "", 404),
    ] {
        let answer = server.call(method, &format!("{path}{tail}"), body).await;
        assert_eq!(answer.status, status, "{method} {tail}: {answer:?}");
        if status >= 400 {
            assert_eq!(answer.json()["code"], status, "{method} {tail}");
        } else if status == 204 {
            assert!(answer.body.is_empty(), "{method} {tail}");
        }
    }
}

#[tokio::test]
async fn connect_extends_and_timeout_shortens() {
    let server = Server::start().await;
    let id = server.sandbox().await;
    let end = async || {
        let detail = server
            .call("GET", &format!("/sandboxes/{id}"), "")
            .await
            .json();
        detail["endAt"].as_str().expect("a time").to_owned()
    };
    let post = async |path: String, body: &'static str| {
        server.call("POST", &path, body).await.status.as_u16()
    };
    let before = end().await;
    let shorter = post(format!("/v2/sandboxes/{id}/connect"), r#"{"timeout":5}"#);
    assert_eq!(shorter.await, 200);
    assert_eq!(end().await, before);
    let longer = post(
        format!("/sandboxes/{id}-client/connect"),
        r#"{"timeout":900}"#,
    );
    assert_eq!(longer.await, 200);
    assert!(end().await > before);
    let set = post(format!("/sandboxes/{id}/timeout"), r#"{"timeout":30}"#);
    assert_eq!(set.await, 204);
    assert!(end().await < before);
}

#[tokio::test]
async fn lists_page_and_filter() {
    let server = Server::start().await;
    for owner in ["a b", "c&d", "c&d"] {
        let body = json!({"templateID": "base", "metadata": {"owner": owner}}).to_string();
        assert_eq!(
            server.call("POST", "/v2/sandboxes", &body).await.status,
            201
        );
    }
    let mut seen = Vec::new();
    let mut path = "/v2/sandboxes?limit=1".to_owned();
    loop {
        let page = server.call("GET", &path, "").await;
        assert_eq!(page.status, 200, "{page:?}");
        assert_eq!(page.headers["x-total-running"], "3");
        let items: Vec<Value> = serde_json::from_value(page.json()).expect("a list");
        assert!(items.len() <= 1);
        seen.extend(items.into_iter().map(|item| item["sandboxID"].clone()));
        let Some(next) = page.headers.get("x-next-token") else {
            break;
        };
        path = format!(
            "/v2/sandboxes?limit=1&nextToken={}",
            next.to_str().expect("text")
        );
    }
    assert_eq!(seen.len(), 3);
    for (query, wanted) in [
        ("metadata=owner%3Da%252520b", 1),
        ("metadata=owner%3Dc%252526d", 2),
        ("metadata=owner%3Dnobody", 0),
        ("state=paused", 0),
        ("state=running%2Cpaused", 3),
        ("template=base", 3),
        ("template=nosuch", 0),
        ("startedAfter=2000-01-01T00:00:00Z&order=asc", 3),
    ] {
        let answer = server
            .call("GET", &format!("/v2/sandboxes?{query}"), "")
            .await;
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        assert_eq!(
            answer.json().as_array().map(Vec::len),
            Some(wanted),
            "{query}"
        );
    }
    for bad in [
        "limit=0",
        "limit=101",
        "nextToken=rubbish",
        "order=up",
        "state=dead",
        "startedAfter=x",
    ] {
        let answer = server
            .call("GET", &format!("/v2/sandboxes?{bad}"), "")
            .await;
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
    }
}

#[tokio::test]
async fn a_list_from_a_time_on_has_what_started_then() {
    let server = Server::start().await;
    let id = server.sandbox().await;
    let detail = server
        .call("GET", &format!("/sandboxes/{id}"), "")
        .await
        .json();
    let started = detail["startedAt"].as_str().expect("a time");
    let started: Timestamp = started.parse().expect("RFC 3339");
    let later = started.plus(Duration::from_millis(1));
    for (from, wanted) in [(started, 1), (later, 0)] {
        let path = format!("/v2/sandboxes?startedAfter={from}");
        let list = server.call("GET", &path, "").await.json();
        assert_eq!(
            list.as_array().map(Vec::len),
            Some(wanted),
            "{from}: {list}"
        );
    }
}

#[tokio::test]
async fn an_idempotency_key_gives_one_sandbox() {
    let server = Server::start().await;
    let send = async |body: &'static str| {
        let request = Request::post("/v2/sandboxes")
            .header("x-api-key", &server.admin)
            .header("idempotency-key", "one")
            .body(Body::from(body))
            .expect("a request");
        server.send_request(request).await
    };
    let first = send(r#"{"templateID":"base"}"#).await;
    let second = send(r#"{"templateID":"base"}"#).await;
    assert_eq!(second.status, 201, "{second:?}");
    assert_eq!(first.json()["sandboxID"], second.json()["sandboxID"]);
    let another = send(r#"{"templateID":"base","timeout":7}"#).await;
    assert_eq!(another.status, 422, "{another:?}");
}

#[tokio::test]
async fn security_follows_the_generation() {
    let server = Server::start().await;
    let open = server
        .call("POST", "/sandboxes", r#"{"templateID":"base"}"#)
        .await
        .json();
    assert!(open.get("envdAccessToken").is_none(), "{open}");
    let asked = r#"{"templateID":"base","secure":true,"timeout":null,"metadata":null,"x":1}"#;
    let asked = server.call("POST", "/sandboxes", asked).await.json();
    assert!(asked["envdAccessToken"].is_string(), "{asked}");
    let newer = server
        .call(
            "POST",
            "/v2/sandboxes",
            r#"{"templateID":"base","mcp":{"a":{}}}"#,
        )
        .await;
    assert!(newer.json()["envdAccessToken"].is_string(), "{newer:?}");
    assert_eq!(newer.json()["domain"], "frog.test");
}
