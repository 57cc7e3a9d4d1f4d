//! Sandbox sessions over REST and tRPC.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use crate::fixture::{Answer, Server};

const SESSIONS: &str = "/api/v1/sandbox-sessions";

async fn create(server: &Server, sandbox: &str, user: &str) -> Value {
    let body = json!({
        "sandboxId": sandbox, "projectId": "p1", "userId": user, "framework": "NEXTJS",
        "autoPauseTimeout": 120_000,
    });
    let made = server.call("POST", SESSIONS, &body.to_string()).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.json()
}

/// A request with a key, on behalf of a user.
async fn as_user(server: &Server, method: &str, path: &str, key: &str, user: &str) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {key}"))
        .header("x-user-id", user)
        .body(Body::empty());
    server.send_request(request.expect("a request")).await
}

/// A query as `httpLink` sends it; what is in its envelope.
async fn query(server: &Server, key: Option<&str>, name: &str, input: &Value) -> Answer {
    let input = json!({ "json": input }).to_string();
    let encoded: String = input.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let path = format!("/api/trpc/sandbox.{name}?input={encoded}");
    server.send("GET", &path, key, "").await
}

fn data(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["result"]["data"]["json"].clone()
}

#[tokio::test]
async fn a_session_has_the_fields_of_the_contract() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let made = create(&server, &sandbox, "u1").await;
    let object = made.as_object().expect("an object");
    let fields: Vec<_> = object.keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "_creationTime",
            "_id",
            "autoPauseTimeout",
            "createdAt",
            "framework",
            "lastActivity",
            "projectId",
            "sandboxId",
            "state",
            "updatedAt",
            "userId"
        ]
    );
    assert_eq!(made["state"], "RUNNING");
    assert_eq!(made["framework"], "NEXTJS");
    assert_eq!(made["autoPauseTimeout"], 120_000);
    assert_eq!(made["_creationTime"], made["createdAt"]);
    let id = made["_id"].as_str().expect("an id");
    for path in [
        format!("{SESSIONS}/{id}"),
        format!("{SESSIONS}/by-sandbox/{sandbox}"),
    ] {
        let found = server.call("GET", &path, "").await.json();
        assert_eq!(found["_id"], id, "{path}");
    }
    for query in ["", "?projectId=p1", "?userId=u1", "?state=RUNNING&limit=1"] {
        let listed = server.call("GET", &format!("{SESSIONS}{query}"), "").await;
        assert_eq!(listed.json()["items"][0]["_id"], id, "{query}: {listed:?}");
    }
    for query in ["?projectId=p2", "?userId=u2", "?state=PAUSED"] {
        let listed = server.call("GET", &format!("{SESSIONS}{query}"), "").await;
        assert_eq!(listed.json()["items"], json!([]), "{query}");
    }
    for bad in ["?state=ASLEEP", "?limit=0", "?limit=101", "?project=p1"] {
        let refused = server.call("GET", &format!("{SESSIONS}{bad}"), "").await;
        assert_eq!(refused.status, 400, "{bad}: {refused:?}");
    }
}

#[tokio::test]
async fn a_session_is_moved_and_ended() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let made = create(&server, &sandbox, "u1").await;
    let one = format!("{SESSIONS}/{}", made["_id"].as_str().expect("an id"));
    let state = async |wanted: &str| {
        let body = json!({ "state": wanted }).to_string();
        let path = format!("{one}/state");
        server.call("PUT", &path, &body).await
    };
    let paused = state("PAUSED").await;
    assert_eq!(paused.status, 200, "{paused:?}");
    assert_eq!(paused.json()["state"], "PAUSED");
    assert!(paused.json()["pausedAt"].is_number(), "{paused:?}");
    let running = state("RUNNING").await.json();
    assert_eq!(running["state"], "RUNNING");
    assert_eq!(running.get("pausedAt"), None, "it does not sleep any more");
    let events = server.call("GET", &format!("{one}/events"), "").await;
    let kinds: Vec<Value> = events.json()["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|event| event["kind"].clone())
        .collect();
    assert!(kinds.len() >= 3, "created, paused, resumed: {kinds:?}");
    for path in [
        format!("{one}/activity"),
        format!("{SESSIONS}/by-sandbox/{sandbox}/activity"),
    ] {
        let active = server.call("POST", &path, "").await;
        assert_eq!(active.status, 200, "{active:?}");
        let moved = active.json()["lastActivity"].as_i64();
        assert!(moved >= made["lastActivity"].as_i64());
    }
    let killed = state("KILLED").await;
    assert_eq!(killed.json()["state"], "KILLED", "{killed:?}");
    let path = format!("/sandboxes/{sandbox}");
    assert_eq!(server.call("GET", &path, "").await.status, 404, "really");
    assert_eq!(state("KILLED").await.status, 200, "again");
    for wanted in ["RUNNING", "PAUSED"] {
        let refused = state(wanted).await;
        assert_eq!(refused.status, 409, "{wanted}: {refused:?}");
        assert_eq!(refused.json()["code"], "conflict");
    }
    assert_eq!(server.call("DELETE", &one, "").await.status, 204);
    assert_eq!(server.call("DELETE", &one, "").await.status, 404);
    let by_sandbox = format!("{SESSIONS}/by-sandbox/{sandbox}");
    assert_eq!(server.call("DELETE", &by_sandbox, "").await.status, 204);
}

#[tokio::test]
async fn bad_sessions_are_refused() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let body = |change: Value| {
        let mut body = json!({
            "sandboxId": sandbox, "projectId": "p1", "userId": "u1", "framework": "VUE",
        });
        let fields = body.as_object_mut().expect("an object");
        fields.extend(change.as_object().expect("an object").clone());
        body.to_string()
    };
    for (change, status) in [
        (json!({"framework": "RAILS"}), 400),
        (json!({"projectId": ""}), 400),
        (json!({"userId": "a\u{0}"}), 400),
        (json!({"projectId": "x".repeat(257)}), 400),
        (json!({"autoPauseTimeout": -1}), 400),
        (json!({"state": "RUNNING"}), 400),
        (json!({"sandboxId": "nosuch"}), 404),
        (json!({"sandboxId": "sb00000000000000000000000000"}), 404),
    ] {
        let refused = server.call("POST", SESSIONS, &body(change.clone())).await;
        assert_eq!(refused.status, status, "{change}: {refused:?}");
    }
    let none = server.call("GET", SESSIONS, "").await;
    assert_eq!(none.json()["items"], json!([]));
    let made = server
        .call("POST", SESSIONS, &body(json!({"autoPauseTimeout": 0})))
        .await;
    assert_eq!(made.json()["autoPauseTimeout"], 600_000, "0 is the default");
}

#[tokio::test]
async fn z10_other_workspaces_and_users_see_nothing() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let made = create(&server, &sandbox, "ann").await;
    let one = format!("{SESSIONS}/{}", made["_id"].as_str().expect("an id"));
    let by_sandbox = format!("{SESSIONS}/by-sandbox/{sandbox}");
    let routes = [
        ("GET", one.clone(), ""),
        ("DELETE", one.clone(), ""),
        ("PUT", format!("{one}/state"), r#"{"state":"KILLED"}"#),
        ("POST", format!("{one}/activity"), ""),
        ("GET", format!("{one}/events"), ""),
        ("GET", by_sandbox.clone(), ""),
        ("POST", format!("{by_sandbox}/activity"), ""),
    ];
    for (method, path, body) in &routes {
        let other = server.send(method, path, Some(&server.other), body).await;
        assert_eq!(other.status, 404, "{method} {path}: {other:?}");
        assert_eq!(other.json()["code"], "sandbox_session_not_found");
        let nobody = server.send(method, path, None, body).await;
        assert_eq!(nobody.status, 401, "{method} {path}");
    }
    let body = json!({
        "sandboxId": sandbox, "projectId": "p", "userId": "bob", "framework": "REACT",
    });
    let other = Some(&*server.other);
    let stolen = server
        .send("POST", SESSIONS, other, &body.to_string())
        .await;
    assert_eq!(stolen.status, 404, "{stolen:?}");
    let listed = server.send("GET", SESSIONS, other, "").await;
    assert_eq!(listed.json()["items"], json!([]));

    // The right key, but for another user.
    for path in [&one, &by_sandbox] {
        let bobs = as_user(&server, "GET", path, &server.admin, "bob").await;
        assert_eq!(bobs.status, 404, "{path}: {bobs:?}");
        let anns = as_user(&server, "GET", path, &server.admin, "ann").await;
        assert_eq!(anns.status, 200, "{path}: {anns:?}");
    }
    for (user, count) in [("ann", 1), ("bob", 0)] {
        for query in ["", "?userId=ann"] {
            let path = format!("{SESSIONS}{query}");
            let listed = as_user(&server, "GET", &path, &server.admin, user).await;
            let items = listed.json()["items"].as_array().expect("items").len();
            assert_eq!(items, count, "{user} {query}");
        }
        let path = "/api/trpc/sandbox.getUserSessions";
        let listed = data(&as_user(&server, "GET", path, &server.admin, user).await);
        let found = listed["sessions"].as_array().expect("sessions").len();
        assert_eq!(found, count, "{user}");
    }

    // The same over tRPC.
    for (name, input, empty) in [
        ("getSession", json!({"sandboxId": sandbox}), "session"),
        ("getProjectSessions", json!({"projectId": "p1"}), "sessions"),
    ] {
        let mine = data(&query(&server, Some(&server.admin), name, &input).await);
        assert_ne!(mine[empty], json!(null), "{name}");
        assert_ne!(mine[empty], json!([]), "{name}");
        let theirs = data(&query(&server, other, name, &input).await);
        assert_eq!(theirs["success"], true, "{name}");
        assert!(
            theirs[empty] == json!(null) || theirs[empty] == json!([]),
            "{name}: {theirs}"
        );
        let nobody = query(&server, None, name, &input).await;
        assert_eq!(nobody.status, 401, "{name}");
    }
}

/// tRPC keeps the contract's shape; REST says what is wrong.
#[tokio::test]
async fn z11_failures_look_like_failures() {
    let server = Server::start().await;
    let gone = "sb00000000000000000000000000";
    for (method, path) in [
        ("GET", format!("{SESSIONS}/by-sandbox/{gone}")),
        ("GET", format!("{SESSIONS}/nosuch")),
        ("POST", format!("{SESSIONS}/by-sandbox/{gone}/activity")),
    ] {
        let answer = server.call(method, &path, "").await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["code"], "sandbox_session_not_found");
    }
    let input = json!({ "sandboxId": gone });
    let none = data(&query(&server, Some(&server.admin), "getSession", &input).await);
    assert_eq!(none, json!({"success": true, "session": null}));
    let path = "/api/trpc/sandbox.updateActivity";
    let body = json!({ "json": input }).to_string();
    let failed = data(&server.call("POST", path, &body).await);
    let says = format!("Sandbox session not found: {gone}");
    assert_eq!(failed, json!({"success": false, "error": says}));
}

#[tokio::test]
async fn the_protocol_s_errors_are_those_of_the_protocol() {
    let server = Server::start().await;
    let shape = |answer: &Answer| answer.json()["error"]["json"].clone();
    let nobody = server
        .send("GET", "/api/trpc/sandbox.getUserSessions", None, "")
        .await;
    assert_eq!(nobody.status, 401);
    assert_eq!(
        shape(&nobody),
        json!({
            "message": "Not authenticated",
            "code": -32001,
            "data": {
                "code": "UNAUTHORIZED", "httpStatus": 401, "path": "sandbox.getUserSessions",
            },
        })
    );
    for (method, path, body, status, code) in [
        ("GET", "sandbox.nosuch", "", 404, "NOT_FOUND"),
        (
            "GET",
            "sandbox.updateActivity",
            "",
            405,
            "METHOD_NOT_SUPPORTED",
        ),
        (
            "POST",
            "sandbox.getSession",
            "{}",
            405,
            "METHOD_NOT_SUPPORTED",
        ),
        (
            "DELETE",
            "sandbox.getSession",
            "",
            405,
            "METHOD_NOT_SUPPORTED",
        ),
        ("GET", "sandbox.getSession", "", 400, "BAD_REQUEST"),
        (
            "GET",
            "sandbox.getSession?input=%7B",
            "",
            400,
            "PARSE_ERROR",
        ),
        ("POST", "sandbox.updateActivity", "{", 400, "PARSE_ERROR"),
        (
            "POST",
            "sandbox.updateActivity",
            r#"{"json":{"sandboxId":7}}"#,
            400,
            "BAD_REQUEST",
        ),
    ] {
        let answer = server
            .call(method, &format!("/api/trpc/{path}"), body)
            .await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(shape(&answer)["data"]["code"], code, "{method} {path}");
    }
    let huge = format!("\"{}\"", "x".repeat(2 << 20));
    let answer = server
        .call("POST", "/api/trpc/sandbox.updateActivity", &huge)
        .await;
    assert_eq!(answer.status, 413);
    let many = vec!["sandbox.getUserSessions"; 101].join(",");
    let path = format!("/api/trpc/{many}?batch=1");
    assert_eq!(server.call("GET", &path, "").await.status, 400);
}

#[tokio::test]
async fn batches_answer_each_call() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    create(&server, &sandbox, "u1").await;
    let input = format!(
        "%7B%220%22%3A%7B%22json%22%3A%7B%22sandboxId%22%3A%22{sandbox}%22%7D%7D%2C\
         %221%22%3A%7B%22json%22%3Anull%2C%22meta%22%3A%7B%22values%22%3A%5B%22undefined%22%5D\
         %7D%7D%7D"
    );
    let both = "sandbox.getSession,sandbox.getUserSessions";
    let path = format!("/api/trpc/{both}?batch=1&input={input}");
    let answer = server.call("GET", &path, "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answers = answer.json();
    let inner = |number: usize| answers[number]["result"]["data"]["json"].clone();
    assert_eq!(inner(0)["session"]["sandboxId"], sandbox);
    assert_eq!(inner(1)["sessions"][0]["sandboxId"], sandbox);
    // One of two fails: the status says that they differ.
    let path = format!("/api/trpc/sandbox.getUserSessions%2Csandbox.nosuch?batch=1&input={input}");
    let mixed = server.call("GET", &path, "").await;
    assert_eq!(mixed.status, 207, "{mixed:?}");
    assert_eq!(mixed.json()[1]["error"]["json"]["data"]["httpStatus"], 404);
    let body = format!(r#"{{"0":{{"json":{{"sandboxId":"{sandbox}"}}}}}}"#);
    let path = "/api/trpc/sandbox.updateActivity?batch=1";
    let one = server.call("POST", path, &body).await;
    assert_eq!(
        one.json()[0]["result"]["data"]["json"]["success"],
        true,
        "{one:?}"
    );
    let refused = server.send("POST", path, None, &body).await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()[0]["error"]["json"]["code"], -32001);
}
