//! The agent API: what sandbox-agent 0.4 serves over HTTP, for one sandbox.
//!
//! The same routes are mounted below a path and on a port of every sandbox ([`AgentFace`]), and
//! stand alone for a machine without sandboxes ([`router`] behind [`auth::TokenGate`]).

use std::any::Any;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::StatusCode;
use tower_http::catch_panic::CatchPanicLayer;
use woodfrog_agents::Agents;
use woodfrog_engine::{GuestLease, Reach};
use woodfrog_types::key::Principal;
use woodfrog_types::{Code, Fault, SandboxId};
use woodfrog_wire::agent::problem::Problem;

mod acp;
mod agents;
pub mod auth;
mod config;
pub mod cors;
mod extract;
mod fs;
mod mount;
mod problem;
mod process;
mod sessions;

pub use acp::AgentSessions;
pub use mount::{AgentFace, HostStates, PATH};
pub use problem::Failure;

use crate::gateway::DataPlane;

/// The port that sandbox-agent listens on: on a sandbox's host name it is ours.
pub const PORT: u16 = 2468;

/// The sandbox that a request is about. A cheap clone; handlers take it as an `Extension`.
#[derive(Clone)]
pub struct AgentHost {
    plane: Arc<dyn DataPlane>,
    sandbox: SandboxId,
    principal: Option<Principal>,
    agents: Arc<Agents>,
    state: Arc<HostState>,
    sessions: AgentSessions,
}

/// What is remembered of a sandbox between requests: nothing that could not be set again.
#[derive(Default)]
pub struct HostState {
    processes: process::Settings,
    /// One change of configuration files at a time.
    config: tokio::sync::Mutex<()>,
}

impl HostState {
    /// Whether there is anything to remember.
    fn changed(&self) -> bool {
        self.processes.changed()
    }
}

impl AgentHost {
    /// A sandbox as one caller sees it. `principal` is `None` where there are no workspaces.
    pub fn new(
        plane: Arc<dyn DataPlane>,
        sandbox: SandboxId,
        principal: Option<Principal>,
        agents: Arc<Agents>,
        state: Arc<HostState>,
        sessions: AgentSessions,
    ) -> Self {
        Self {
            sessions,
            plane,
            sandbox,
            principal,
            agents,
            state,
        }
    }

    pub fn sandbox(&self) -> &SandboxId {
        &self.sandbox
    }

    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    pub fn plane(&self) -> &Arc<dyn DataPlane> {
        &self.plane
    }

    /// What finds, installs and starts agents.
    pub fn agents(&self) -> &Arc<Agents> {
        &self.agents
    }

    /// The guest, for one operation; wakes the sandbox.
    pub async fn guest(&self) -> Result<GuestLease, Failure> {
        Ok(self.plane.guest(&self.sandbox).await?)
    }
}

/// The API for one sandbox. Who asks was found out before.
pub fn router(host: AgentHost) -> Router {
    routes().layer(Extension(host))
}

/// The API for the one machine there is, behind a token.
pub fn standalone(
    host: AgentHost,
    gate: auth::TokenGate,
    cors: &cors::CorsOptions,
) -> Result<Router, cors::CorsError> {
    let router = router(host).layer(axum::middleware::from_fn_with_state(gate, auth::check));
    // Outside of the gate: a browser's preflight has no token, and must be able to read a refusal.
    Ok(match cors.layer()? {
        Some(layer) => router.layer(layer),
        None => router,
    })
}

/// Every route; requests carry their [`AgentHost`] as an extension.
pub fn routes() -> Router {
    Router::new()
        .route("/", get(name))
        .route("/ui", get(no_inspector))
        .route("/ui/", get(no_inspector))
        .route("/ui/{*path}", get(no_inspector))
        .route("/v1/health", get(health))
        .merge(fs::routes())
        .merge(process::routes())
        .merge(config::routes())
        .merge(acp::routes())
        .merge(sessions::routes())
        .merge(agents::routes())
        .fallback(no_endpoint)
        .layer(CatchPanicLayer::custom(panicked))
}

async fn name() -> Response {
    Json(serde_json::json!({
        "name": "Sandbox Agent",
        "docs": "https://sandboxagent.dev",
    }))
    .into_response()
}

async fn no_inspector() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "this server does not serve the inspector\n",
    )
}

async fn no_endpoint(_: Request) -> Failure {
    Problem::no_endpoint().into()
}

/// Whether the sandbox can be used. Asked again and again, so it wakes none and keeps none awake.
async fn health(Extension(host): Extension<AgentHost>) -> Result<Response, Failure> {
    let access = host.plane.peek(&host.sandbox).await?;
    if access.reach == Reach::Held {
        let message = "the sandbox is paused; resume it first";
        return Err(Fault::new(Code::Asleep, message).into());
    }
    Ok(Json(serde_json::json!({ "status": "ok" })).into_response())
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    crate::input::log_panic(&*panic);
    Failure::from(Fault::new(Code::Internal, "internal error")).into_response()
}
