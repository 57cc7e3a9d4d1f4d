//! Where the API is, who may use it, and the sandbox that nobody has to make.

use axum::body::Body;
use http::Request;
use serde_json::json;

use super::{Agent, code};
use crate::fixture::{Answer, PAGES, Server};

async fn with_key(server: &Server, path: &str, key: Option<&str>) -> Answer {
    let mut request = Request::builder().uri(path).header("host", "api.frog.test");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request.body(Body::empty()).expect("a request");
    server.send_request(request).await
}

#[tokio::test]
async fn a_key_opens_the_sandboxes_of_its_workspace() {
    let agent = Agent::start().await;
    let server = &agent.server;
    let health = format!("/agent/{}/v1/health", agent.sandbox);
    let open = with_key(server, &health, Some(&server.admin)).await;
    assert_eq!(open.json(), json!({"status": "ok"}));
    for wrong in [None, Some("wf_nobody")] {
        let refused = with_key(server, &health, wrong).await;
        assert_eq!(code(&refused), "token_invalid", "{wrong:?}");
    }
    for path in [
        health.replace(&agent.sandbox, "sb000000000000000000"),
        health.replace(&agent.sandbox, "No.Such"),
    ] {
        let unknown = with_key(server, &path, Some(&server.admin)).await;
        assert_eq!(
            (unknown.status.as_u16(), code(&unknown).as_str()),
            (404, "not_found")
        );
    }
    // Another workspace's sandbox answers as one that is not there.
    let foreign = with_key(server, &health, Some(&server.other)).await;
    assert_eq!(
        (foreign.status.as_u16(), code(&foreign).as_str()),
        (404, "not_found")
    );
    let nowhere = format!("/agent/{}/v1/nothing", agent.sandbox);
    let nowhere = with_key(server, &nowhere, Some(&server.admin)).await;
    assert_eq!(nowhere.json()["detail"], "endpoint not found");
    let name = with_key(server, &format!("/agent/{}/", agent.sandbox), None).await;
    assert_eq!(name.json()["name"], "Sandbox Agent");
}

#[tokio::test]
async fn the_default_sandbox_is_made_once_and_again_when_it_is_gone() {
    let server = Server::start().await;
    let ask = || with_key(&server, "/agent/default/v1/health", Some(&server.admin));
    let all = futures_util::future::join_all((0..8).map(|_| ask())).await;
    assert!(all.iter().all(|answer| answer.status == 200), "{all:?}");
    let ids = async || {
        let listed = server.call("GET", "/v2/sandboxes", "").await.json();
        let all = listed.as_array().expect("a list").clone();
        let ids = all
            .iter()
            .map(|one| one["sandboxID"].as_str().map(str::to_owned));
        ids.collect::<Option<Vec<_>>>().expect("ids")
    };
    let first = ids().await;
    assert_eq!(first.len(), 1, "{first:?}");
    let path = format!("/sandboxes/{}", first[0]);
    assert_eq!(server.call("DELETE", &path, "").await.status, 204);
    assert_eq!(ask().await.status, 200);
    let second = ids().await;
    assert_eq!(second.len(), 1);
    assert_ne!(first, second);
    // Another workspace has its own.
    let other = with_key(&server, "/agent/default/v1/health", Some(&server.other)).await;
    assert_eq!(other.status, 200);
    assert_eq!(ids().await, second);
    let refused = with_key(&server, "/agent/default/v1/health", None).await;
    assert_eq!(code(&refused), "token_invalid");
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call() {
    let agent = Agent::start().await;
    let health = format!("/agent/{}/v1/health", agent.sandbox);
    let ask = async |method: &str, origin: &str| {
        let request = Request::builder()
            .method(method)
            .uri(&health)
            .header("host", "api.frog.test")
            .header("origin", origin)
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization")
            .body(Body::empty())
            .expect("a request");
        let answer = agent.server.send_request(request).await;
        let allowed = answer.headers.get("access-control-allow-origin").cloned();
        (answer.status.as_u16(), allowed)
    };
    // A browser asks without a key whether it may, and must be able to read a refusal.
    let pages = Some(http::HeaderValue::from_static(PAGES));
    assert_eq!(ask("OPTIONS", PAGES).await, (200, pages.clone()));
    assert_eq!(ask("GET", PAGES).await, (401, pages));
    assert_eq!(ask("OPTIONS", "https://elsewhere.test").await.1, None);
}
