//! The agent API in front of real guests.

mod agents;
mod config;
mod fs;
mod mount;
mod process;
mod terminal;

use axum::body::Body;
use http::Request;
use serde_json::Value;
use woodfrog_server::agent::auth::TokenGate;
use woodfrog_server::agent::cors::CorsOptions;
use woodfrog_server::agent::{AgentHost, HostState};

use crate::fixture::{Answer, Server};

/// The API of one sandbox with a real guest.
pub(crate) struct Agent {
    pub(crate) server: Server,
    pub(crate) sandbox: String,
}

impl Agent {
    pub(crate) async fn start() -> Self {
        let server = Server::with_guest().await;
        let sandbox = server.sandbox().await;
        Self { server, sandbox }
    }

    /// A request with the admin's key.
    pub(crate) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("/agent/{}{path}", self.sandbox))
            .header("host", "api.frog.test")
            .header("authorization", format!("Bearer {}", self.server.admin))
    }

    pub(crate) async fn send(&self, request: http::request::Builder, body: Body) -> Answer {
        let request = request.body(body).expect("a request");
        self.server.send_request(request).await
    }

    pub(crate) async fn call(&self, method: &str, path: &str) -> Answer {
        self.send(self.request(method, path), Body::empty()).await
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(self.request("PUT", path), body.into()).await
    }

    pub(crate) async fn json(&self, method: &str, path: &str, body: Value) -> Answer {
        let request = self
            .request(method, path)
            .header("content-type", "application/json");
        self.send(request, Body::from(body.to_string())).await
    }

    /// Starts a process and returns its id.
    pub(crate) async fn start_process(&self, body: Value) -> String {
        let made = self.json("POST", "/v1/processes", body).await;
        assert_eq!(made.status, 200, "{}", made.json());
        made.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Waits until a process has ended.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        let path = format!("/v1/processes/{id}");
        let work = async {
            loop {
                let process = self.call("GET", &path).await.json();
                if process["status"] == "exited" {
                    return process;
                }
                tokio::task::yield_now().await;
            }
        };
        let patience = std::time::Duration::from_secs(30);
        let ended = tokio::time::timeout(patience, work).await;
        ended.expect("the process does not end")
    }
}

/// What the type of a problem ends with.
pub(crate) fn code(answer: &Answer) -> String {
    assert_eq!(
        answer.headers["content-type"], "application/problem+json",
        "{answer:?}"
    );
    let body = answer.json();
    assert_eq!(body["status"], answer.status.as_u16());
    let kind = body["type"].as_str().expect("a type");
    let code = kind.strip_prefix("urn:sandbox-agent:error:");
    code.expect("one of its errors").to_owned()
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).expect("text")
}

/// The API alone, as on a machine without sandboxes, over a sandbox of `server`.
async fn standalone(server: &Server, gate: TokenGate, cors: &CorsOptions) -> axum::Router {
    let sandbox: woodfrog_types::SandboxId = server.sandbox().await.parse().expect("an id");
    let sessions = woodfrog_server::agent::AgentSessions {
        sessions: server.app.sessions.clone(),
        scope: woodfrog_sessions::Scope {
            workspace: woodfrog_types::WorkspaceId::default_workspace(),
            sandbox: sandbox.clone(),
        },
    };
    let plane = std::sync::Arc::new(server.app.engine.clone());
    let state = std::sync::Arc::<HostState>::default();
    let host = AgentHost::new(plane, sandbox, None, Default::default(), state, sessions);
    woodfrog_server::agent::standalone(host, gate, cors).expect("a router")
}

async fn ask(router: &axum::Router, request: http::request::Builder) -> Answer {
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let request = request.body(Body::empty()).expect("a request");
    let response = router.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.expect("a body").to_bytes().to_vec(),
    }
}

#[tokio::test]
async fn a_token_is_asked_for_below_v1_only() {
    let server = Server::start().await;
    let router = standalone(&server, TokenGate::closed("T"), &CorsOptions::default()).await;
    let get = |path: &str| Request::builder().uri(path.to_owned());
    let name = ask(&router, get("/")).await;
    assert_eq!(name.json()["name"], "Sandbox Agent");
    assert_eq!(ask(&router, get("/ui/")).await.status, 404);
    for path in ["/v1/health", "/v1/nothing"] {
        let refused = ask(&router, get(path)).await;
        assert_eq!(
            (refused.status.as_u16(), code(&refused).as_str()),
            (401, "token_invalid")
        );
        let wrong = ask(&router, get(path).header("authorization", "Bearer U")).await;
        assert_eq!(wrong.status, 401);
    }
    let health = ask(
        &router,
        get("/v1/health").header("authorization", "Bearer T"),
    )
    .await;
    assert_eq!(text(&health), r#"{"status":"ok"}"#);
    let nowhere = ask(
        &router,
        get("/v1/nothing").header("authorization", "Bearer T"),
    )
    .await;
    assert_eq!(
        nowhere.json(),
        serde_json::json!({
            "type": "urn:sandbox-agent:error:invalid_request", "title": "Not Found",
            "status": 404, "detail": "endpoint not found",
        })
    );
}

#[tokio::test]
async fn other_origins_are_let_in_when_they_are_named() {
    let server = Server::start().await;
    let cors = CorsOptions {
        origins: vec!["http://page.test".to_owned()],
        ..CorsOptions::default()
    };
    let router = standalone(&server, TokenGate::closed("T"), &cors).await;
    let preflight = |origin: &str| {
        Request::builder()
            .method("OPTIONS")
            .uri("/v1/health")
            .header("origin", origin.to_owned())
            .header("access-control-request-method", "GET")
    };
    let allowed = ask(&router, preflight("http://page.test")).await;
    assert_eq!(allowed.status, 200);
    assert_eq!(
        allowed.headers["access-control-allow-origin"],
        "http://page.test"
    );
    assert_eq!(allowed.headers["access-control-allow-headers"], "*");
    let other = ask(&router, preflight("http://other.test")).await;
    assert!(!other.headers.contains_key("access-control-allow-origin"));
    // A page must be able to read that its token is wrong.
    let request = Request::builder()
        .uri("/v1/health")
        .header("origin", "http://page.test");
    let refused = ask(&router, request).await;
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.headers["access-control-allow-origin"],
        "http://page.test"
    );
    let every = CorsOptions {
        origins: vec!["*".to_owned()],
        credentials: true,
        ..CorsOptions::default()
    };
    assert!(every.layer().is_err());
}
