//! Every route against every kind of credential.

use woodfrog_server::e2b::{Access, table};

use crate::fixture::{Server, fill, native_routes};

/// What the contract names, written out: a route that gets lost is noticed.
const E2B_ROUTES: &str = "
GET /health
POST /sandboxes
POST /v2/sandboxes
GET /sandboxes/{id}
DELETE /sandboxes/{id}
POST /sandboxes/{id}/timeout
POST /sandboxes/{id}/refreshes
POST /sandboxes/{id}/pause
POST /sandboxes/{id}/connect
POST /v2/sandboxes/{id}/connect
POST /sandboxes/{id}/resume
POST /sandboxes/{id}/fork
POST /sandboxes/{id}/snapshots
GET /snapshots
GET /sandboxes
GET /v2/sandboxes
GET /sandboxes/{id}/metrics
GET /sandboxes/metrics
GET /sandboxes/{id}/logs
GET /v2/sandboxes/{id}/logs
PUT /sandboxes/{id}/network
GET /volumes
POST /volumes
GET /volumes/{id}
DELETE /volumes/{id}
GET /volumecontent/{id}/path
PATCH /volumecontent/{id}/path
DELETE /volumecontent/{id}/path
GET /volumecontent/{id}/dir
POST /volumecontent/{id}/dir
GET /volumecontent/{id}/file
PUT /volumecontent/{id}/file
GET /secrets
POST /secrets
GET /secrets/{id}
POST /secrets/{id}
DELETE /secrets/{id}
GET /templates
GET /v2/templates
GET /default-templates
GET /templates/{id}
PATCH /templates/{id}
PATCH /v2/templates/{id}
DELETE /templates/{id}
GET /templates/aliases/{alias}
POST /templates/tags
DELETE /templates/tags
GET /templates/{id}/tags
GET /templates/{id}/tags/count
GET /templates/{id}/tags/exists
GET /templates/{id}/tags/groups
GET /templates/{id}/tags/{tag}/assignments
POST /v3/templates
POST /v2/templates/{id}/builds/{build}
GET /templates/{id}/builds/{build}/status
GET /templates/{id}/builds/{build}/logs
GET /templates/{id}/files/{hash}
PUT /templates/uploads/{token}
";

#[test]
fn the_e2b_routes_are_those_of_the_contract() {
    let served: Vec<String> = table()
        .iter()
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    let wanted: Vec<&str> = E2B_ROUTES.trim().lines().collect();
    assert_eq!(served, wanted);
}

const BAD_KEYS: &[Option<&str>] = &[
    None,
    Some(""),
    Some("e2b_"),
    Some("rubbish"),
    Some("e2b_0000000000000000000000000000000000000000000000000000000000000000"),
];

#[tokio::test]
async fn no_e2b_route_answers_without_a_valid_key() {
    let server = Server::start().await;
    let id = server.sandbox().await;
    for route in table() {
        let path = fill(route.path, &id);
        for key in BAD_KEYS {
            let answer = server.send(route.method, &path, *key, "{}").await;
            let shown = format!("{} {path} {key:?}: {answer:?}", route.method);
            match route.access {
                Access::Public => assert_ne!(answer.status, 401, "{shown}"),
                Access::Key | Access::Token => {
                    assert_eq!(answer.status, 401, "{shown}");
                    assert_eq!(answer.json()["code"], 401, "{shown}");
                    assert!(answer.json()["message"].is_string(), "{shown}");
                }
            }
        }
    }
    assert_eq!(
        server
            .call("GET", &format!("/sandboxes/{id}"), "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn no_native_route_answers_without_a_valid_key() {
    let server = Server::start().await;
    let id = server.sandbox().await;
    for (method, path) in native_routes() {
        let path = fill(&path, &id);
        for key in BAD_KEYS {
            let answer = server.send(&method, &path, *key, "{}").await;
            assert_eq!(answer.status, 401, "{method} {path} {key:?}: {answer:?}");
            assert_eq!(answer.json()["code"], "unauthenticated", "{method} {path}");
            assert_eq!(answer.headers["content-type"], "application/problem+json");
        }
    }
}

#[tokio::test]
async fn keys_need_the_admin_scope() {
    let server = Server::start().await;
    for (method, path, body) in [
        ("GET", "/api/v1/keys", ""),
        ("POST", "/api/v1/keys", r#"{"name":"x","scope":"admin"}"#),
        ("DELETE", "/api/v1/keys/ky00000000000000000000000000", ""),
    ] {
        let answer = server.send(method, path, Some(&server.other), body).await;
        assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
        assert_eq!(answer.json()["code"], "permission_denied");
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_in_both_forms() {
    let server = Server::start().await;
    let made = server.call("POST", "/api/v1/keys", r#"{"name":"x"}"#).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let key = |name: &str| made[name].as_str().expect(name).to_owned();
    for secret in [key("secret"), key("e2b_secret")] {
        let answer = server.send("GET", "/v2/sandboxes", Some(&secret), "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let listed = server.call("GET", "/api/v1/keys", "").await;
    assert!(!String::from_utf8_lossy(&listed.body).contains(&key("secret")[3..]));
    let revoked = server
        .call("DELETE", &format!("/api/v1/keys/{}", key("id")), "")
        .await;
    assert_eq!(revoked.status, 204);
    for secret in [key("secret"), key("e2b_secret")] {
        let answer = server.send("GET", "/v2/sandboxes", Some(&secret), "").await;
        assert_eq!(answer.status, 401, "{answer:?}");
    }
}
