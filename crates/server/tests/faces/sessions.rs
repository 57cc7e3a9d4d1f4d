//! Sessions with agents: what concerns a workspace as a whole.

use serde_json::{Value, json};

use crate::fixture::Server;

const RETENTION: &str = "/api/v1/session-retention";

async fn retention(server: &Server) -> Value {
    let answer = server.call("GET", RETENTION, "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn a_workspace_says_how_long_its_sessions_are_kept() {
    let server = Server::start().await;
    let forever = json!({"ended_seconds": null, "age_seconds": null, "entries": null});
    let none = json!({"effective": forever, "own": null, "server": forever});
    assert_eq!(retention(&server).await, none);
    let own = json!({"ended_seconds": 86400, "age_seconds": null, "entries": 5000});
    let put = server.call("PUT", RETENTION, &own.to_string()).await;
    assert_eq!(put.status, 204, "{put:?}");
    let now = retention(&server).await;
    assert_eq!(now["effective"], own);
    assert_eq!(now["own"], own);
    for bad in [
        json!({"ended_seconds": 5, "age_seconds": null, "entries": null}),
        json!({"ended_seconds": null, "age_seconds": null, "entries": 3}),
        json!({"ended": 86400}),
    ] {
        let put = server.call("PUT", RETENTION, &bad.to_string()).await;
        assert!(put.status.is_client_error(), "{bad}: {put:?}");
    }
    assert_eq!(
        retention(&server).await,
        now,
        "what is refused changes nothing"
    );
    assert_eq!(server.call("DELETE", RETENTION, "").await.status, 204);
    assert_eq!(retention(&server).await, none);
}

#[tokio::test]
async fn all_sessions_are_exported_in_one_stream() {
    let server = Server::start().await;
    let made = server
        .call("POST", "/api/v1/sandboxes", r#"{"template": "base"}"#)
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let sandbox = made.json()["id"].as_str().expect("an id").to_owned();
    let mut ids = Vec::new();
    // More than one page of the list.
    for number in 0..103 {
        let body = json!({"agent": "mock", "sandbox": sandbox, "name": format!("n{number}")});
        let made = server
            .call("POST", "/api/v1/sessions", &body.to_string())
            .await;
        assert_eq!(made.status, 201, "{made:?}");
        ids.push(made.json()["id"].as_str().expect("an id").to_owned());
    }
    let answer = server.call("GET", "/api/v1/session-export", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let text = String::from_utf8(answer.body.to_vec()).expect("text");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut shown: Vec<String> = lines
        .filter_map(|line| line["session"]["id"].as_str().map(str::to_owned))
        .collect();
    shown.sort();
    ids.sort();
    assert_eq!(shown, ids);
}
