//! Sessions that clients persist.

use serde_json::{Value, json};

use crate::fixture::{Answer, Server};

const SESSIONS: &str = "/api/v1/persist/sessions";

fn record(id: &str, created_at: i64) -> Value {
    json!({
        "id": id, "agent": "mock", "agentSessionId": "a", "lastConnectionId": "c",
        "createdAt": created_at,
    })
}

fn event(id: &str, session: &str, index: i64) -> Value {
    json!({
        "id": id, "eventIndex": index, "sessionId": session, "createdAt": 5,
        "connectionId": "c", "sender": "agent", "payload": {"jsonrpc": "2.0", "method": "m"},
    })
}

async fn put(server: &Server, record: &Value) {
    let path = format!("{SESSIONS}/{}", record["id"].as_str().expect("an id"));
    let answer = server.call("PUT", &path, &record.to_string()).await;
    assert_eq!(answer.status, 204, "{answer:?}");
}

async fn add(server: &Server, event: &Value) -> Answer {
    let path = format!(
        "{SESSIONS}/{}/events",
        event["sessionId"].as_str().expect("an id")
    );
    server.call("POST", &path, &event.to_string()).await
}

async fn page(server: &Server, path: &str) -> Value {
    let answer = server.call("GET", &format!("{SESSIONS}{path}"), "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn ids(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().expect("items");
    items
        .iter()
        .map(|item| item["id"].as_str().expect("an id"))
        .collect()
}

#[tokio::test]
async fn records_come_back_as_they_were_sent() {
    let server = Server::start().await;
    let text = r#"{"modes": null, "id":"a/b","agent":"z","agentSessionId":"\u0000","lastConnectionId":"",
        "createdAt":1,"sessionInit":{"z":1,"a":"\ud83d\udc38"}}"#;
    let path = format!("{SESSIONS}/a%2Fb");
    assert_eq!(server.call("PUT", &path, text).await.status, 204);
    let found = server.call("GET", &path, "").await;
    assert_eq!(String::from_utf8_lossy(&found.body), text);
    assert_eq!(found.headers["content-type"], "application/json");
    let events = format!("{path}/events");
    let sent = r#"{"id":"e","eventIndex":1,"sessionId":"a/b","createdAt":1,"connectionId":"","sender":"client","payload":{"z":1e21,"a":"\u0000"}}"#;
    assert_eq!(server.call("POST", &events, sent).await.status, 204);
    let listed = server.call("GET", &events, "").await;
    assert_eq!(
        String::from_utf8_lossy(&listed.body),
        format!(r#"{{"items":[{sent}]}}"#)
    );
}

#[tokio::test]
async fn sessions_are_listed_in_pages() {
    let server = Server::start().await;
    for (id, at) in [("b", 3), ("a", 3), ("z", 1), ("m", 2), ("B", 3)] {
        put(&server, &record(id, at)).await;
    }
    let all = page(&server, "").await;
    assert_eq!(ids(&all), ["z", "m", "B", "a", "b"]);
    assert_eq!(all.get("nextCursor"), None);
    let first = page(&server, "?limit=2").await;
    assert_eq!(first["nextCursor"], "k1:2:m");
    let gone = server.call("DELETE", &format!("{SESSIONS}/m"), "").await;
    assert_eq!(gone.status, 204);
    put(&server, &record("early", 0)).await;
    let second = page(&server, "?limit=2.9&cursor=k1:2:m").await;
    assert_eq!(ids(&second), ["B", "a"]);
    for (query, wanted) in [
        ("?cursor=4", vec!["b"]),
        ("?cursor=99", vec![]),
        ("?cursor=x&limit=1", vec!["early"]),
        ("?cursor=k1:3:a", vec!["b"]),
        ("?limit=0", vec!["early", "z", "B", "a", "b"]),
    ] {
        assert_eq!(ids(&page(&server, query).await), wanted, "{query}");
    }
    let bad = server.call("GET", &format!("{SESSIONS}?limit=x"), "").await;
    assert_eq!(bad.status, 400, "{bad:?}");
}

#[tokio::test]
async fn events_have_one_order() {
    let server = Server::start().await;
    for index in (1..=20).rev() {
        let answer = add(&server, &event(&format!("e{index}"), "s", index)).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    let again = add(&server, &event("e3", "s", 3)).await;
    assert_eq!(again.status, 204, "{again:?}");
    for (bad, pointer) in [
        (event("new", "s", 3), "#/eventIndex"),
        (event("e3", "s", 21), "#/id"),
    ] {
        let refused = add(&server, &bad).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        let problem = refused.json();
        assert_eq!(problem["code"], "conflict");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    let first = page(&server, "/s/events?limit=9").await;
    assert_eq!(first["items"].as_array().expect("items").len(), 9);
    assert_eq!(first["nextCursor"], "k1:9:e9");
    let rest = page(&server, "/s/events?cursor=k1:9:e9").await;
    assert_eq!(rest["items"].as_array().expect("items").len(), 11);
    assert_eq!(rest.get("nextCursor"), None);
    assert_eq!(ids(&page(&server, "/s/events?cursor=19").await), ["e20"]);
    let last = page(&server, "/s/events?order=desc&limit=2").await;
    assert_eq!(ids(&last), ["e20", "e19"]);
    assert_eq!(page(&server, "/none/events").await, json!({"items": []}));
    let both = format!("{SESSIONS}/s/events?order=desc&cursor=1");
    assert_eq!(server.call("GET", &both, "").await.status, 400);
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused() {
    let server = Server::start().await;
    let long = "x".repeat(257);
    for (field, value) in [
        ("id", json!("other")),
        ("id", json!(5)),
        ("agent", Value::Null),
        ("createdAt", json!(1.5)),
        ("createdAt", json!(1_u64 << 53)),
        ("destroyedAt", json!("x")),
        ("surplus", json!(1)),
    ] {
        let mut bad = record("s", 1);
        bad[field] = value;
        let answer = server
            .call("PUT", &format!("{SESSIONS}/s"), &bad.to_string())
            .await;
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
        assert_eq!(answer.json()["code"], "invalid_argument");
    }
    for id in [long.as_str(), "%00", "."] {
        let body = record(id, 1).to_string();
        let answer = server.call("PUT", &format!("{SESSIONS}/{id}"), &body).await;
        assert_eq!(answer.status, 400, "{id}: {answer:?}");
    }
    for (field, value) in [
        ("eventIndex", json!(0)),
        ("eventIndex", json!("1")),
        ("sender", json!("x")),
        ("payload", json!([])),
        ("sessionId", json!("other")),
        ("id", json!(long)),
    ] {
        let mut bad = event("e", "s", 1);
        bad[field] = value;
        let path = format!("{SESSIONS}/s/events");
        let answer = server.call("POST", &path, &bad.to_string()).await;
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
    }
    let mut large = record("s", 1);
    large["sandboxId"] = json!("x".repeat(1 << 20));
    let answer = server
        .call("PUT", &format!("{SESSIONS}/s"), &large.to_string())
        .await;
    assert_eq!(answer.status, 413, "{answer:?}");
    let mut large = event("e", "s", 1);
    large["payload"] = json!({"x": "x".repeat(15 << 20)});
    assert_eq!(add(&server, &large).await.status, 204);
    large["payload"] = json!({"x": "x".repeat(16 << 20)});
    let answer = add(&server, &large).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert_eq!(page(&server, "").await, json!({"items": []}));
}

#[tokio::test]
async fn another_workspace_s_session_is_not_there() {
    let server = Server::start().await;
    put(&server, &record("s", 1)).await;
    add(&server, &event("e", "s", 1)).await;
    let one = format!("{SESSIONS}/s");
    let other = Some(server.other.as_str());
    for method in ["GET", "DELETE"] {
        let answer = server.send(method, &one, other, "").await;
        assert_eq!(answer.status, 404, "{method}: {answer:?}");
    }
    for path in [SESSIONS.to_owned(), format!("{one}/events")] {
        let answer = server.send("GET", &path, other, "").await;
        assert_eq!(answer.json(), json!({"items": []}), "{path}");
    }
    assert_eq!(server.call("DELETE", &one, "").await.status, 204);
    assert_eq!(server.call("DELETE", &one, "").await.status, 404);
    assert_eq!(page(&server, "/s/events").await, json!({"items": []}));
}
