//! Every route that takes JSON, with bodies that are not it.

use woodfrog_server::e2b::table;
use woodfrog_types::limits::JSON_BODY_BYTES_MAX;

use crate::fixture::{Server, fill, native_routes};

/// Routes whose body is bytes, or nothing that is read.
fn takes_json(method: &str, path: &str) -> bool {
    // The first asks for its token before it reads; all but the three after it take nothing.
    let other = [
        "/volumecontent/",
        "/stdin",
        "/content",
        "/uploads/",
        "/prepare",
        "/activity",
        "/end",
        "/verify",
        "/gc",
    ];
    let nothing =
        path.starts_with("/api/") && (path.ends_with("/pause") || path.ends_with("/archive"));
    if nothing {
        return false;
    }
    matches!(method, "POST" | "PUT" | "PATCH") && !other.iter().any(|part| path.contains(part))
        || (method, path) == ("DELETE", "/templates/tags")
}

#[tokio::test]
async fn e2b_routes_refuse_bodies_that_are_not_json() {
    let server = Server::start().await;
    let id = server.sandbox().await;
    let huge = format!("\"{}\"", "x".repeat(JSON_BODY_BYTES_MAX));
    for route in table() {
        if !takes_json(route.method, route.path) {
            continue;
        }
        let path = fill(route.path, &id);
        for (body, wanted) in [
            ("[", 400),
            ("{\"a\":", 400),
            ("{} x", 400),
            ("7", 400),
            (&*huge, 413),
        ] {
            let answer = server.call(route.method, &path, body).await;
            let shown = format!("{} {path} {:?}: {answer:?}", route.method, body.get(..9));
            let status = answer.status.as_u16();
            // What is refused altogether, or names a template that is not there, need not read.
            assert!(status == wanted || matches!(status, 404 | 501), "{shown}");
            assert_eq!(answer.json()["code"], status, "{shown}");
            assert!(answer.json()["message"].is_string(), "{shown}");
        }
    }
}

#[tokio::test]
async fn native_routes_refuse_bodies_that_are_not_json() {
    let server = Server::start().await;
    let id = server.sandbox().await;
    let huge = format!("\"{}\"", "x".repeat(JSON_BODY_BYTES_MAX));
    for (method, path) in native_routes() {
        if !takes_json(&method, &path) {
            continue;
        }
        let path = fill(&path, &id);
        for (body, status, code) in [
            ("[", 400, "invalid_argument"),
            ("7", 400, "invalid_argument"),
            ("{\"no_such_field\":1}", 400, "invalid_argument"),
            (&*huge, 413, "too_large"),
        ] {
            // It takes more: its own test looks for its limit.
            if path.contains("/persist/") && path.ends_with("/events") && status == 413 {
                continue;
            }
            let answer = server.call(&method, &path, body).await;
            assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
            let problem = answer.json();
            assert_eq!(problem["code"], code, "{method} {path}");
            assert_eq!(problem["status"], status);
            assert_eq!(
                problem["request_id"],
                answer.headers["x-request-id"].to_str().expect("text")
            );
        }
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_have_the_face_s_shape() {
    let server = Server::start().await;
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/sandboxes/x/nothing", 404),
        ("DELETE", "/v2/sandboxes", 405),
        ("PUT", "/health", 405),
    ] {
        let answer = server.call(method, path, "").await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(answer.json()["code"], status);
    }
    for (method, path, status, code) in [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("PATCH", "/api/v1/sandboxes", 405, "method_not_allowed"),
    ] {
        let answer = server.call(method, path, "").await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(answer.json()["code"], code);
    }
}

#[tokio::test]
async fn bad_values_are_refused_and_leave_no_sandbox() {
    let server = Server::start().await;
    for (body, status, says) in [
        (r#"{}"#, 400, "templateID"),
        (
            r#"{"templateID":"base","timeout":0}"#,
            400,
            "Timeout must be greater than 0",
        ),
        (
            r#"{"templateID":"base","timeout":99999999}"#,
            400,
            "Timeout cannot be greater than",
        ),
        (
            r#"{"templateID":"base","autoPause":true,"autoPauseMemory":false,
                "autoResume":{"enabled":true}}"#,
            400,
            "without its memory",
        ),
        (
            r#"{"templateID":"base","autoPauseMemory":false}"#,
            400,
            "autoPause",
        ),
        (
            r#"{"templateID":"base","iam":{"tokens":{"a":{"audience":"b"}}}}"#,
            400,
            "iam",
        ),
        (
            r#"{"templateID":"base","volumeMounts":[{"name":"a","path":"/b"}]}"#,
            400,
            "volume 'a' not found",
        ),
        (
            r#"{"templateID":"base","volumeMounts":[{"name":"a","path":"b"}]}"#,
            400,
            "not absolute",
        ),
        (
            r#"{"templateID":"base","volumeMounts":[{"name":"a"}]}"#,
            400,
            "path",
        ),
        (
            r#"{"templateID":"base","network":{"denyOut":["x.y"]}}"#,
            400,
            "CIDR",
        ),
        (
            r#"{"templateID":"base","network":{"allowOut":["x.y"]}}"#,
            400,
            "0.0.0.0/0",
        ),
        (
            r#"{"templateID":"base","network":{"egressProxy":{"address":"a"}}}"#,
            400,
            "network.egressProxy.address",
        ),
        (
            r#"{"templateID":"base","network":{"rules":{"a.de":[{"transform":{"headers":{"x y":"y"}}}]}}}"#,
            400,
            "network.rules.a.de.x y",
        ),
        (
            r#"{"templateID":"base","network":{"httpsPorts":[49983]}}"#,
            400,
            "network.httpsPorts[0]",
        ),
        (r#"{"templateID":"nosuch"}"#, 404, "nosuch"),
    ] {
        for path in ["/sandboxes", "/v2/sandboxes"] {
            let answer = server.call("POST", path, body).await;
            assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
            let message = answer.json()["message"].as_str().expect("text").to_owned();
            assert!(message.contains(says), "{path} {body}: {message}");
        }
    }
    let private = r#"{"templateID":"base","network":{"allowPublicTraffic":false}}"#;
    assert_eq!(server.call("POST", "/sandboxes", private).await.status, 400);
    assert_eq!(
        server.call("GET", "/v2/sandboxes", "").await.json(),
        serde_json::json!([])
    );
}
