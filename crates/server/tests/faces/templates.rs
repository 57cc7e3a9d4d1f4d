//! Building templates the way E2B's clients do.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use woodfrog_types::Timestamp;

use crate::fixture::Server;

const PATIENCE: Duration = Duration::from_secs(20);

/// Polls a build until it is over.
async fn finished(server: &Server, path: &str) -> Value {
    let began = Instant::now();
    loop {
        let answer = server.call("GET", path, "").await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let state = answer.json();
        if matches!(state["status"].as_str(), Some("ready" | "error")) {
            return state;
        }
        assert!(began.elapsed() < PATIENCE, "{state}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_template_is_requested_built_tagged_and_removed() {
    let server = Server::start().await;
    let body = r#"{"name":"mine","tags":["v1"],"cpuCount":1,"memoryMB":256}"#;
    let made = server.call("POST", "/v3/templates", body).await;
    assert_eq!(made.status, 202, "{made:?}");
    let made = made.json();
    let (template, build) = (&made["templateID"], &made["buildID"]);
    let (template, build) = (template.as_str().expect("id"), build.as_str().expect("id"));

    let hash = "a".repeat(64);
    let slot = server
        .call("GET", &format!("/templates/{template}/files/{hash}"), "")
        .await;
    assert_eq!(slot.status, 201, "{slot:?}");
    let url = slot.json()["url"].as_str().expect("a url").to_owned();
    let upload = url
        .strip_prefix("https://api.frog.test")
        .expect("where it was asked");
    let sent = server.send("PUT", upload, None, "an archive").await;
    assert_eq!(sent.status, 200, "{sent:?}");
    let again = server
        .call("GET", &format!("/templates/{template}/files/{hash}"), "")
        .await;
    assert_eq!(again.json(), json!({"present": true}));

    let steps = json!({
        "fromTemplate": "base",
        "steps": [
            {"type": "COPY", "args": ["a", "/b", "", ""], "filesHash": hash},
            {"type": "RUN", "args": ["true", "root"]},
            {"type": "ENV", "args": ["A", "1"]},
        ],
    });
    let path = format!("/v2/templates/{template}/builds/{build}");
    let started = server.call("POST", &path, &steps.to_string()).await;
    assert_eq!(started.status, 202, "{started:?}");
    let path = format!("/templates/{template}/builds/{build}/status?logsOffset=0");
    let state = finished(&server, &path).await;
    assert_eq!(state["status"], "ready", "{state}");

    let made = server
        .call("POST", "/v2/sandboxes", r#"{"templateID":"mine:v1"}"#)
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let tag = r#"{"target":"mine:v1","tags":["stable"]}"#;
    let tagged = server.call("POST", "/templates/tags", tag).await;
    assert_eq!(tagged.status, 201, "{tagged:?}");
    let tags = server.call("GET", "/templates/mine/tags", "").await.json();
    let names: Vec<_> = tags
        .as_array()
        .expect("tags")
        .iter()
        .map(|tag| &tag["tag"])
        .collect();
    assert!(names.contains(&&json!("stable")), "{names:?}");
    let alias = server.call("GET", "/templates/aliases/mine", "").await;
    assert_eq!(
        alias.json(),
        json!({"templateID": template, "public": false})
    );
    assert_eq!(
        server.call("DELETE", "/templates/mine", "").await.status,
        204
    );
    assert_eq!(
        server
            .call("GET", "/templates/aliases/mine", "")
            .await
            .status,
        404
    );
    assert_eq!(
        server.call("DELETE", "/templates/mine", "").await.status,
        404
    );
}

/// Builds `mine` from `base` with these tags.
async fn build(server: &Server, tags: &[&str]) -> String {
    let body = json!({"name": "mine", "tags": tags}).to_string();
    let made = server.call("POST", "/v3/templates", &body).await;
    assert_eq!(made.status, 202, "{made:?}");
    let made = made.json();
    let (template, build) = (&made["templateID"], &made["buildID"]);
    let (template, build) = (template.as_str().expect("id"), build.as_str().expect("id"));
    let path = format!("/v2/templates/{template}/builds/{build}");
    let started = server
        .call("POST", &path, r#"{"fromTemplate":"base"}"#)
        .await;
    assert_eq!(started.status, 202, "{started:?}");
    let path = format!("/templates/{template}/builds/{build}/status");
    let state = finished(server, &path).await;
    assert_eq!(state["status"], "ready", "{state}");
    build.to_owned()
}

#[tokio::test]
async fn tags_are_counted_found_and_listed_with_their_builds() {
    let server = Server::start().await;
    let first = build(&server, &["v1", "latest"]).await;
    let second = build(&server, &["latest"]).await;
    // What is tagged now must be newer, and times are in milliseconds.
    let at = Timestamp::now();
    while Timestamp::now() == at {
        std::thread::yield_now();
    }
    let body = json!({"target": format!("mine:{first}"), "tags": ["stable"]}).to_string();
    let tagged = server.call("POST", "/templates/tags", &body).await;
    assert_eq!(tagged.status, 201, "{tagged:?}");
    assert_eq!(tagged.json()["buildID"], first);

    let get = async |rest: &str| {
        let path = format!("/templates/mine/tags/{rest}");
        server.call("GET", &path, "").await
    };
    assert_eq!(get("count").await.json(), json!({"total": 3}));
    assert_eq!(
        get("exists?tag=v1").await.json(),
        json!({"exists": true, "normalizedTag": "v1"})
    );
    assert_eq!(
        get("exists?tag=v9").await.json(),
        json!({"exists": false, "normalizedTag": "v9"})
    );

    let latest = get("latest/assignments").await.json();
    let builds = |entries: &Value| -> Vec<Value> {
        let entries = entries.as_array().expect("a list");
        entries
            .iter()
            .map(|entry| entry["buildId"].clone())
            .collect()
    };
    assert_eq!(builds(&latest["data"]), [&*second, &*first], "{latest}");
    assert_eq!(latest["nextCursor"], Value::Null);
    let page = get("latest/assignments?limit=1").await.json();
    assert_eq!(builds(&page["data"]), [&*second]);
    let next = page["nextCursor"].as_str().expect("a cursor");
    let page = get(&format!("latest/assignments?limit=1&cursor={next}")).await;
    assert_eq!(page.json()["data"], json!([latest["data"][1]]));
    assert_eq!(get("v9/assignments").await.json()["data"], json!([]));

    let groups = get("groups?sort=name_asc&assignmentLimit=1").await.json();
    let names: Vec<&Value> = groups["tags"]
        .as_array()
        .expect("tags")
        .iter()
        .map(|group| &group["tag"])
        .collect();
    assert_eq!(names, ["latest", "stable", "v1"], "{groups}");
    assert_eq!(groups["tags"][0]["hasMore"], true);
    assert_eq!(builds(&groups["tags"][0]["assignments"]), [&*second]);
    assert_eq!(groups["tags"][1]["hasMore"], false);
    assert_eq!(builds(&groups["tags"][1]["assignments"]), [&*first]);
    let newest = get("groups?search=ST&tagsLimit=1").await.json();
    assert_eq!(newest["tags"][0]["tag"], "stable", "{newest}");
    let next = newest["nextCursor"].as_str().expect("a cursor");
    let path = format!("groups?search=ST&tagsCursor={}", next.replace('|', "%7C"));
    let rest = get(&path).await.json();
    assert_eq!(rest["tags"][0]["tag"], "latest", "{rest}");
    assert_eq!(rest["nextCursor"], Value::Null);

    for bad in [
        "exists",
        "exists?tag=a%20b",
        "groups?sort=size",
        "groups?tagsCursor=name_asc%7Cv1",
        "groups?tagsLimit=x",
        "latest/assignments?cursor=nothing",
    ] {
        let refused = get(bad).await;
        assert_eq!(refused.status, 400, "{bad}: {refused:?}");
        assert_eq!(refused.json()["code"], 400, "{bad}");
    }
    for path in ["count", "exists?tag=v1", "groups", "v1/assignments"] {
        let path = format!("/templates/mine/tags/{path}");
        let hidden = server.send("GET", &path, Some(&server.other), "").await;
        assert_eq!(hidden.status, 404, "{path}: {hidden:?}");
    }
}

#[tokio::test]
async fn an_uploaded_root_file_system_becomes_a_template_and_is_not_kept() {
    let server = Server::start().await;
    let path = "/api/v1/templates/imported/import?format=rootfs";
    let asked = server.call("POST", path, "bytes").await;
    assert_eq!(asked.status, 202, "{asked:?}");
    let build = asked.json()["id"].as_str().expect("an id").to_owned();
    let state = finished(
        &server,
        &format!("/api/v1/templates/imported/builds/{build}"),
    )
    .await;
    assert_eq!(state["status"], "ready", "{state}");
    let began = Instant::now();
    while server.spooled() > 0 {
        assert!(began.elapsed() < PATIENCE, "the upload is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn security_is_set_and_shown_with_what_it_costs() {
    let server = Server::start().await;
    let import = "/api/v1/templates/mine/import?format=rootfs";
    let asked = server.call("POST", import, "bytes").await;
    let build = asked.json()["id"].as_str().expect("an id").to_owned();
    finished(&server, &format!("/api/v1/templates/mine/builds/{build}")).await;
    let off = json!({
        "nested_namespaces": false, "io_uring": false, "userfaultfd": false, "landlock": false,
        "message_queues": false, "runtime": "native",
    });
    let shown = async || {
        server
            .call("GET", "/api/v1/templates/mine", "")
            .await
            .json()
    };
    assert_eq!(shown().await["security"], off);

    let path = "/api/v1/templates/mine/security";
    let body = r#"{"nested_namespaces":true,"message_queues":true,"runtime":"gvisor"}"#;
    let set = server.call("PUT", path, body).await;
    assert_eq!(set.status, 200, "{set:?}");
    let set = set.json();
    let mut on = off.clone();
    on["nested_namespaces"] = json!(true);
    on["message_queues"] = json!(true);
    on["runtime"] = json!("gvisor");
    assert_eq!(set["security"], on);
    assert_eq!(set["name"], "mine");
    assert_eq!(set["build"]["id"], build);
    // On gVisor nothing of what is allowed matters: one loss, its own.
    assert_eq!(set["losses"].as_array().expect("losses").len(), 1, "{set}");
    assert_eq!(shown().await["security"], on);

    for (path, key, status, code) in [
        (path, &server.other, 404, "template_not_found"),
        (
            "/api/v1/templates/nosuch/security",
            &server.admin,
            404,
            "template_not_found",
        ),
        (
            "/api/v1/templates/base/security",
            &server.other,
            403,
            "permission_denied",
        ),
        (
            "/api/v1/templates/mine:v9/security",
            &server.admin,
            409,
            "template_not_ready",
        ),
    ] {
        let refused = server.send("PUT", path, Some(key), "{}").await;
        assert_eq!(refused.status, status, "{path}: {refused:?}");
        assert_eq!(refused.json()["code"], code, "{path}");
    }
    assert_eq!(shown().await["security"], on);

    let set = server.call("PUT", path, "{}").await.json();
    assert_eq!(set["security"], off);
    assert_eq!(set["losses"], json!([]));
}
