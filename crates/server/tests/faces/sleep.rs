//! Pausing, waking, snapshots and copies, on both faces.

use serde_json::{Value, json};

use crate::fixture::Server;

async fn statuses(server: &Server, calls: &[(&str, String, &str, u16)]) {
    for (method, path, body, status) in calls {
        let answer = server.call(method, path, body).await;
        assert_eq!(answer.status, *status, "{method} {path} {body}: {answer:?}");
        if *status >= 400 {
            assert_eq!(answer.json()["code"], *status, "{method} {path}");
        } else if *status == 204 {
            assert!(answer.body.is_empty(), "{method} {path}");
        }
    }
}

async fn detail(server: &Server, id: &str) -> Value {
    server
        .call("GET", &format!("/sandboxes/{id}"), "")
        .await
        .json()
}

#[tokio::test]
async fn a_pause_and_a_resume_have_the_contract_s_statuses() {
    let server = Server::start().await;
    let id = server.sandbox().await;
    let at = |tail: &str| format!("/sandboxes/{id}{tail}");
    let connect = format!("/v2/sandboxes/{id}/connect");
    statuses(
        &server,
        &[
            ("POST", at("/resume"), "", 409),
            ("POST", at("/pause"), "", 204),
            ("POST", at("/pause"), r#"{"memory":true}"#, 409),
            ("POST", at("/timeout"), r#"{"timeout":60}"#, 409),
            ("POST", at("/refreshes"), "", 409),
            ("PUT", at("/network"), "{}", 409),
            ("POST", at("/fork"), "", 409),
            ("GET", at("/metrics"), "", 200),
            ("GET", at("/logs"), "", 200),
            ("POST", connect.clone(), "{}", 201),
            ("POST", connect.clone(), "{}", 200),
            ("POST", at("/pause"), "{}", 204),
            ("POST", at("/resume"), r#"{"timeout":90}"#, 201),
            ("POST", at("/pause"), r#"{"memory":false}"#, 204),
            ("POST", at("/connect"), r#"{"timeout":90}"#, 201),
            ("POST", at("/pause"), "{}", 204),
            ("DELETE", at(""), "", 204),
            ("DELETE", at(""), "", 404),
            ("POST", at("/pause"), "{}", 404),
            ("POST", connect, "{}", 404),
        ],
    )
    .await;
}

#[tokio::test]
async fn details_and_lists_say_what_is_paused() {
    let server = Server::start().await;
    let (awake, asleep) = (server.sandbox().await, server.sandbox().await);
    let body = r#"{"memory":false}"#;
    server
        .call("POST", &format!("/sandboxes/{asleep}/pause"), body)
        .await;
    let paused = detail(&server, &asleep).await;
    assert_eq!(paused["state"], "paused", "{paused}");
    assert_eq!(paused["pauseMode"], "filesystem", "{paused}");
    let running = detail(&server, &awake).await;
    assert_eq!(running["state"], "running", "{running}");
    assert!(running.get("pauseMode").is_none(), "{running}");
    for (query, wanted) in [
        ("state=paused", vec![&asleep]),
        ("state=running", vec![&awake]),
        ("state=running,paused", vec![&asleep, &awake]),
        ("", vec![&asleep, &awake]),
        ("limit=1", vec![&asleep]),
        ("state=running&limit=1", vec![&awake]),
    ] {
        let path = format!("/v2/sandboxes?{query}");
        let answer = server.call("GET", &path, "").await;
        assert_eq!(answer.headers["x-total-running"], "1", "{query}");
        let listed = answer.json();
        let ids: Vec<&str> = listed
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|item| item["sandboxID"].as_str())
            .collect();
        assert_eq!(ids, wanted, "{query}");
    }
    let first = server.call("GET", "/sandboxes", "").await.json();
    assert_eq!(first.as_array().map(Vec::len), Some(1), "{first}");
}

#[tokio::test]
async fn the_lifecycle_that_was_asked_for_is_told() {
    let server = Server::start().await;
    for (body, lifecycle) in [
        (
            r#"{"templateID":"base"}"#,
            json!({"autoResume": false, "onTimeout": "kill"}),
        ),
        (
            r#"{"templateID":"base","autoPause":true,"autoResume":{"enabled":true}}"#,
            json!({"autoResume": true, "onTimeout": "pause"}),
        ),
        (
            r#"{"templateID":"base","autoPause":true,"autoPauseMemory":false}"#,
            json!({"autoResume": false, "onTimeout": "pause"}),
        ),
    ] {
        let made = server.call("POST", "/v2/sandboxes", body).await;
        assert_eq!(made.status, 201, "{body}: {made:?}");
        let id = made.json()["sandboxID"].as_str().expect("an id").to_owned();
        assert_eq!(detail(&server, &id).await["lifecycle"], lifecycle);
    }
}

#[tokio::test]
async fn snapshots_have_e2b_s_names() {
    let server = Server::start().await;
    let id = server.sandbox().await;
    let path = format!("/sandboxes/{id}/snapshots");
    let plain = server.call("POST", &path, "{}").await;
    assert_eq!(plain.status, 201, "{plain:?}");
    let plain = plain.json();
    let plain_id = plain["snapshotID"].as_str().expect("an id").to_owned();
    assert!(plain_id.ends_with(":default"), "{plain}");
    assert_eq!(plain["names"], json!([]));
    let named = server.call("POST", &path, r#"{"name":"mark"}"#).await;
    assert_eq!(named.status, 201, "{named:?}");
    let named_id = named.json()["snapshotID"].as_str().expect("id").to_owned();
    assert!(named_id.ends_with("/mark:default"), "{named_id}");
    assert_eq!(named.json()["names"], json!([named_id]));
    let again = server.call("POST", &path, r#"{"name":"mark"}"#).await;
    assert_eq!(again.status, 201, "{again:?}");
    let tagged = server.call("POST", &path, r#"{"name":"mark:v2"}"#).await;
    assert_eq!(tagged.status, 400, "{tagged:?}");
    for (query, wanted) in [
        (String::new(), 2),
        (format!("sandboxID={id}&limit=1"), 1),
        ("name=mark".to_owned(), 1),
        ("name=mark:default".to_owned(), 1),
        ("name=mark:v2".to_owned(), 0),
        (format!("name={plain_id}"), 1),
        ("sandboxID=nosuch".to_owned(), 0),
    ] {
        let listed = server.call("GET", &format!("/snapshots?{query}"), "").await;
        assert_eq!(listed.status, 200, "{query}: {listed:?}");
        let items = listed.json();
        assert_eq!(items.as_array().map(Vec::len), Some(wanted), "{query}");
        let more = listed.headers.contains_key("x-next-token");
        assert_eq!(more, query.contains("limit=1"), "{query}");
    }
    for template in ["mark", named_id.as_str(), plain_id.as_str()] {
        let body = json!({"templateID": template}).to_string();
        let made = server.call("POST", "/v2/sandboxes", &body).await;
        assert_eq!(made.status, 201, "{template}: {made:?}");
    }
    for name in [named_id, plain_id] {
        let path = format!("/templates/{}", name.replace('/', "%2F"));
        assert_eq!(server.call("DELETE", &path, "").await.status, 204, "{name}");
        assert_eq!(server.call("DELETE", &path, "").await.status, 404, "{name}");
    }
    let body = r#"{"templateID":"mark"}"#;
    let gone = server.call("POST", "/v2/sandboxes", body).await;
    assert_eq!(gone.status, 404, "{gone:?}");
}

#[tokio::test]
async fn a_fork_gives_as_many_as_were_asked_for() {
    let server = Server::start().await;
    let id = server.sandbox().await;
    let end = detail(&server, &id).await["endAt"].clone();
    let path = format!("/sandboxes/{id}/fork");
    let forked = server.call("POST", &path, r#"{"count":3}"#).await;
    assert_eq!(forked.status, 201, "{forked:?}");
    let forks: Vec<Value> = serde_json::from_value(forked.json()).expect("a list");
    let mut ids: Vec<&str> = forks
        .iter()
        .filter_map(|fork| fork["sandbox"]["sandboxID"].as_str())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3, "{forks:?}");
    assert!(!ids.contains(&id.as_str()));
    assert_eq!(detail(&server, &id).await["endAt"], end);
    for bad in [r#"{"count":0}"#, r#"{"count":101}"#, r#"{"timeout":-1}"#] {
        assert_eq!(server.call("POST", &path, bad).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn the_native_api_goes_up_and_down_the_rungs() {
    let server = Server::start().await;
    let body = r#"{"sleep":{"pause_after_seconds":60,"delete_after_seconds":null}}"#;
    let made = server.call("POST", "/api/v1/sandboxes", body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    assert_eq!(made["sleep_policy"]["pause_after_seconds"], 60);
    assert_eq!(made["sleep_policy"]["delete_after_seconds"], json!(null));
    let path = format!("/api/v1/sandboxes/{}", made["id"].as_str().expect("an id"));
    let post = async |tail: &str, body: &str| {
        let answer = server.call("POST", &format!("{path}{tail}"), body).await;
        assert_eq!(answer.status, 200, "{tail}: {answer:?}");
        answer.json()
    };
    let paused = post("/pause", "").await;
    assert_eq!(paused["state"], "paused", "{paused}");
    assert_eq!(paused["sleep"]["cause"], "requested", "{paused}");
    let hibernated = post("/hibernate", "").await;
    assert_eq!(hibernated["state"], "hibernated", "{hibernated}");
    assert_eq!(hibernated["sleep"]["content"], "memory", "{hibernated}");
    assert!(hibernated["sleep"]["snapshot_id"].is_string());
    let why = server
        .call("GET", &format!("{path}/wakefulness"), "")
        .await
        .json();
    assert_eq!(why["state"], "hibernated", "{why}");
    let resumed = post("/resume", "").await;
    assert_eq!(resumed["woke"], true, "{resumed}");
    assert_eq!(resumed["sandbox"]["state"], "running", "{resumed}");
    assert_eq!(resumed["sandbox"]["sleep"], json!(null));
    assert_eq!(post("/resume", "{}").await["woke"], false);
    post("/hibernate", r#"{"content":"filesystem"}"#).await;
    let touched = post("/activity", "").await;
    assert_eq!(touched["sandbox"]["state"], "running", "{touched}");
    let policy = server
        .call(
            "PUT",
            &format!("{path}/sleep-policy"),
            r#"{"hibernate_after_seconds":5}"#,
        )
        .await
        .json();
    assert_eq!(policy["sleep_policy"]["hibernate_after_seconds"], 5);
    assert_eq!(policy["sleep_policy"]["pause_after_seconds"], 60);
}

#[tokio::test]
async fn holds_are_kept_and_released() {
    let server = Server::start().await;
    let id = server.sandbox().await;
    let path = format!("/api/v1/sandboxes/{id}/holds/run-1");
    for body in ["", r#"{"ttl_seconds":60}"#] {
        let held = server.call("PUT", &path, body).await;
        assert_eq!(held.status, 200, "{held:?}");
        let items = held.json()["items"].clone();
        assert_eq!(items.as_array().map(Vec::len), Some(1), "{items}");
        assert_eq!(items[0]["expires_at"].is_null(), body.is_empty(), "{items}");
    }
    for _ in 0..2 {
        let released = server.call("DELETE", &path, "").await;
        assert_eq!(released.json(), json!({"items": []}), "{released:?}");
    }
    let bad = server.call("PUT", &path, r#"{"ttl_seconds":0}"#).await;
    assert_eq!(bad.status, 400, "{bad:?}");
    let bad = format!("/api/v1/sandboxes/{id}/holds/{}", "x".repeat(200));
    assert_eq!(server.call("PUT", &bad, "").await.status, 400);
}

#[tokio::test]
async fn native_snapshots_are_labeled_verified_and_deleted() {
    let server = Server::start().await;
    let id = server.sandbox().await;
    let taken = server
        .call(
            "POST",
            &format!("/api/v1/sandboxes/{id}/checkpoint"),
            r#"{"name":"mark","labels":{"a":"b"}}"#,
        )
        .await;
    assert_eq!(taken.status, 201, "{taken:?}");
    let taken = taken.json();
    assert_eq!(taken["source"], id);
    assert_eq!(taken["state"], "ready");
    let by_name = server
        .call("GET", "/api/v1/snapshots/mark", "")
        .await
        .json();
    assert_eq!(by_name["id"], taken["id"]);
    for (query, wanted) in [
        ("", 1),
        ("labels=a=b", 1),
        ("labels=a=c", 0),
        ("name=mark", 1),
        ("name=other", 0),
    ] {
        let path = format!("/api/v1/snapshots?{query}");
        let listed = server.call("GET", &path, "").await.json();
        let count = listed["items"].as_array().map(Vec::len);
        assert_eq!(count, Some(wanted), "{query}: {listed}");
    }
    let labels = r#"{"labels":{"a":null,"c":"d"}}"#;
    let labeled = server
        .call("PATCH", "/api/v1/snapshots/mark/labels", labels)
        .await;
    assert_eq!(labeled.json()["labels"], json!({"c": "d"}), "{labeled:?}");
    let checked = server
        .call("POST", "/api/v1/snapshots/mark/verify", "")
        .await;
    assert_eq!(checked.json()["state"], "ready", "{checked:?}");
    let other = server
        .send("GET", "/api/v1/snapshots/mark", Some(&server.other), "")
        .await;
    assert_eq!(other.status, 404, "{other:?}");
    let made = server
        .call("POST", "/api/v1/sandboxes", r#"{"template":"mark"}"#)
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    for status in [204, 404] {
        let path = "/api/v1/snapshots/mark";
        assert_eq!(server.call("DELETE", path, "").await.status, status);
    }
    let gc = server.call("POST", "/api/v1/snapshots/gc", "").await;
    assert_eq!(gc.status, 200, "{gc:?}");
    let other = server
        .send("POST", "/api/v1/snapshots/gc", Some(&server.other), "")
        .await;
    assert_eq!(other.status, 403, "{other:?}");
}
