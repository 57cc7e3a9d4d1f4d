//! Somebody else's sandbox is not there.

use woodfrog_server::e2b::table;

use crate::fixture::{Server, fill, native_routes};

/// A body that every route of the two faces takes for valid, or that none reads.
fn body(path: &str) -> &'static str {
    match path.rsplit('/').next().unwrap_or_default() {
        "timeout" if path.contains("/api/") => r#"{"timeout_seconds":60}"#,
        "timeout" | "connect" => r#"{"timeout":60}"#,
        "exec" => r#"{"shell":"true"}"#,
        "signal" => r#"{"signal":"TERM"}"#,
        "size" => r#"{"cols":80,"rows":24}"#,
        "directories" => r#"{"path":"/x"}"#,
        "move" => r#"{"from":"/x","to":"/y"}"#,
        _ => "{}",
    }
}

fn all() -> Vec<(String, String)> {
    let e2b = table()
        .into_iter()
        .map(|route| (route.method.to_owned(), route.path.to_owned()));
    let mut routes: Vec<_> = e2b.chain(native_routes()).collect();
    // A WebSocket: refused before it looks, since these requests do not ask for an upgrade.
    routes.retain(|(_, path)| path.contains("/sandboxes/{id}") && !path.ends_with("/pty"));
    routes
}

#[tokio::test]
async fn another_workspace_s_sandbox_is_404_everywhere() {
    let server = Server::start().await;
    let id = server.sandbox().await;
    let routes = all();
    assert!(routes.len() > 25, "{}", routes.len());
    for (method, path) in &routes {
        let filled = fill(path, &id);
        let answer = server
            .send(method, &filled, Some(&server.other), body(path))
            .await;
        assert_eq!(answer.status, 404, "{method} {filled}: {answer:?}");
        let known = ["sandbox_not_found", "Sandbox \""];
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            known.iter().any(|part| text.contains(part)),
            "{method} {filled}: {text}"
        );
    }
    let listed = server
        .send("GET", "/v2/sandboxes", Some(&server.other), "")
        .await;
    assert_eq!(listed.json(), serde_json::json!([]));
    assert_eq!(
        server
            .call("GET", &format!("/sandboxes/{id}"), "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn what_cannot_be_an_id_is_404_everywhere() {
    let server = Server::start().await;
    for (method, path) in all() {
        for id in ["nosuch", "%2e%2e", "sb00000000000000000000000000"] {
            let filled = fill(&path, id);
            let answer = server.call(&method, &filled, body(&path)).await;
            assert_eq!(answer.status, 404, "{method} {filled}: {answer:?}");
        }
    }
}
