//! The native API.

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::fixture::Server;

#[tokio::test]
async fn a_sandbox_s_life() {
    let server = Server::start().await;
    let body = json!({
        "template": "base", "timeout_seconds": 60, "metadata": {"a": "b"},
        "network": {"deny_out": ["10.0.0.0/8"]},
    });
    let made = server
        .call("POST", "/api/v1/sandboxes", &body.to_string())
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    assert_eq!(made["state"], "running");
    assert_eq!(made["network"]["deny_out"], json!(["10.0.0.0/8"]));
    let path = format!("/api/v1/sandboxes/{}", made["id"].as_str().expect("an id"));
    let never = server
        .call(
            "PUT",
            &format!("{path}/timeout"),
            r#"{"timeout_seconds":null}"#,
        )
        .await;
    assert_eq!(never.json()["deadline"], json!(null), "{never:?}");
    let listed = server
        .call("GET", "/api/v1/sandboxes?metadata=a=b", "")
        .await
        .json();
    assert_eq!(listed["items"][0]["id"], made["id"]);
    let events = server
        .call("GET", &format!("{path}/events"), "")
        .await
        .json();
    assert_eq!(events["items"][0]["seq"], 1, "{events}");
    assert_eq!(server.call("DELETE", &path, "").await.status, 204);
    let gone = server.call("GET", &path, "").await;
    assert_eq!(gone.status, 404);
    assert_eq!(gone.json()["type"], "urn:woodfrog:error:sandbox_not_found");
}

#[tokio::test]
async fn without_a_timeout_it_lives_on() {
    let server = Server::start().await;
    let made = server.call("POST", "/api/v1/sandboxes", "{}").await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.json()["deadline"], json!(null));
}

#[tokio::test]
async fn faults_point_at_the_field() {
    let server = Server::start().await;
    let bad = server
        .call("POST", "/api/v1/sandboxes", r#"{"timeout_seconds":0}"#)
        .await;
    assert_eq!(bad.status, 400);
    assert_eq!(bad.json()["errors"][0]["pointer"], "#/timeout_seconds");
}

#[tokio::test]
async fn request_ids_are_taken_over_and_made() {
    let server = Server::start().await;
    let ask = async |id: &'static str| {
        let request = Request::get("/api/v1/info")
            .header("authorization", format!("Bearer {}", server.admin))
            .header("x-request-id", id)
            .body(Body::empty())
            .expect("a request");
        let answer = server.send_request(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.headers["x-request-id"]
            .to_str()
            .expect("text")
            .to_owned()
    };
    assert_eq!(ask("mine-1").await, "mine-1");
    assert_ne!(ask("not allowed").await, "not allowed");
}

#[tokio::test]
async fn the_document_and_the_health_routes_need_no_key() {
    let server = Server::start().await;
    for path in ["/api/v1/openapi.json", "/healthz", "/readyz", "/metrics"] {
        let answer = server.send("GET", path, None, "").await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn metrics_count_requests_and_sandboxes() {
    let server = Server::start().await;
    server.sandbox().await;
    server
        .send("GET", "/sandboxes/nosuch", Some(&server.admin), "")
        .await;
    let text = String::from_utf8(server.call("GET", "/metrics", "").await.body).expect("text");
    for line in [
        "woodfrog_sandboxes_running 1",
        r#"woodfrog_sandbox_creates_total{outcome="ok"} 1"#,
        r#"woodfrog_http_requests_total{face="e2b",route="/sandboxes/{id}",status="404"} 1"#,
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} not in\n{text}"
        );
    }
}

#[tokio::test]
async fn an_exec_streams_events() {
    let server = Server::start().await;
    let id = server.sandbox().await;
    let path = format!("/api/v1/sandboxes/{id}/exec");
    let ran = server.call("POST", &path, r#"{"command":["true"]}"#).await;
    assert_eq!(ran.status, 200, "{ran:?}");
    let text = String::from_utf8(ran.body.clone()).expect("text");
    let first: serde_json::Value =
        serde_json::from_str(text.lines().next().expect("a line")).expect("json");
    assert_eq!(first["event"], "started");
    let last: serde_json::Value =
        serde_json::from_str(text.lines().last().expect("a line")).expect("json");
    assert_eq!(
        (&last["event"], &last["exit_code"]),
        (&json!("end"), &json!(0))
    );
    for bad in [
        "{}",
        r#"{"command":[]}"#,
        r#"{"command":["a"],"shell":"b"}"#,
    ] {
        assert_eq!(server.call("POST", &path, bad).await.status, 400, "{bad}");
    }
}
