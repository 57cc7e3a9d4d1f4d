//! Secrets: what goes in does not come out.

use serde_json::{Value, json};

use crate::fixture::Server;

const VALUE: &str = "sk-very-hidden-0123456789";

#[tokio::test]
async fn a_secret_s_life() {
    let server = Server::start().await;
    let body = json!({"name": "OpenAI-Key", "value": VALUE, "metadata": {"team": "a"}});
    let made = server.call("POST", "/secrets", &body.to_string()).await;
    assert_eq!(made.status, 201, "{made:?}");
    let one = made.json();
    let id = one["secretID"].as_str().expect("an id").to_owned();
    assert!(id.starts_with("sec_"), "{id}");
    assert_eq!(one["name"], "openai-key");
    assert_eq!(one["currentVersion"], 1);
    assert_eq!(one["metadata"], json!({"team": "a"}));
    assert!(one["createdAt"].is_string() && one["updatedAt"].is_string());

    for name in [&*id, "openai-key", "OpenAI-Key"] {
        let found = server.call("GET", &format!("/secrets/{name}"), "").await;
        assert_eq!(found.json(), one, "{name}");
    }
    let again = server.call("POST", "/secrets", &body.to_string()).await;
    assert_eq!(again.status, 409, "{again:?}");

    let body = json!({"value": "another"}).to_string();
    let updated = server.call("POST", "/secrets/openai-key", &body).await;
    assert_eq!(updated.status, 200, "{updated:?}");
    assert_eq!(updated.json()["currentVersion"], 2);
    assert_eq!(updated.json()["metadata"], json!({"team": "a"}));
    let body = json!({"value": "third", "metadata": {}}).to_string();
    let updated = server.call("POST", &format!("/secrets/{id}"), &body).await;
    assert_eq!(updated.json()["currentVersion"], 3);
    assert_eq!(updated.json()["metadata"], json!({}));

    for name in ["b", "a"] {
        let body = json!({"name": name, "value": "x"}).to_string();
        assert_eq!(server.call("POST", "/secrets", &body).await.status, 201);
    }
    let page = server.call("GET", "/secrets?limit=2", "").await;
    let names = |answer: &Value| -> Vec<Value> {
        let items = answer.as_array().expect("a list");
        items.iter().map(|item| item["name"].clone()).collect()
    };
    assert_eq!(names(&page.json()), ["a", "b"]);
    let next = page.headers["x-next-token"].to_str().expect("text");
    let path = format!("/secrets?limit=2&nextToken={next}");
    let page = server.call("GET", &path, "").await;
    assert_eq!(names(&page.json()), ["openai-key"]);
    assert!(!page.headers.contains_key("x-next-token"));

    let path = format!("/secrets/{id}");
    for method in ["GET", "POST", "DELETE"] {
        let body = r#"{"value":"x"}"#;
        let hidden = server.send(method, &path, Some(&server.other), body).await;
        assert_eq!(hidden.status, 404, "{method}: {hidden:?}");
    }
    let others = server.send("GET", "/secrets", Some(&server.other), "");
    assert_eq!(others.await.json(), json!([]));
    assert_eq!(server.call("DELETE", &path, "").await.status, 204);
    assert_eq!(server.call("DELETE", &path, "").await.status, 404);
    assert_eq!(server.call("GET", &path, "").await.status, 404);
}

#[tokio::test]
async fn what_is_refused_is_not_told_back() {
    let server = Server::start().await;
    let many: serde_json::Map<String, Value> =
        (0..33).map(|n| (format!("k{n}"), json!(""))).collect();
    let long = "x".repeat((64 << 10) + 1);
    for body in [
        json!(VALUE),
        json!([VALUE]),
        json!({"name": "a"}),
        json!({"name": "a", "value": [VALUE]}),
        json!({"name": "a", "value": 7, "metadata": VALUE}),
        json!({"name": "a", "value": ""}),
        json!({"name": "a", "value": long}),
        json!({"name": "", "value": VALUE}),
        json!({"name": "a b", "value": VALUE}),
        json!({"name": "sec_mine", "value": VALUE}),
        json!({"name": "x".repeat(129), "value": VALUE}),
        json!({"name": "a", "value": VALUE, "metadata": many}),
        json!({"name": "a", "value": VALUE, "metadata": {"k": "v".repeat(1025)}}),
        json!({"name": "a", "value": VALUE, "metadata": {"k".repeat(129): "v"}}),
    ] {
        let refused = server.call("POST", "/secrets", &body.to_string()).await;
        assert_eq!(refused.status, 400, "{body}: {refused:?}");
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(!text.contains("hidden"), "{body}: {text}");
    }
    let none = server.call("GET", "/secrets", "").await;
    assert_eq!(none.json(), json!([]));
}
