//! The API of every sandbox of a server: below a path, and on a port of each sandbox's host name.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Request, Uri};
use tower::{Layer, ServiceExt};
use woodfrog_sessions::Scope;
use woodfrog_types::key::Principal;
use woodfrog_types::{Fault, SandboxId};
use woodfrog_wire::agent::problem::Problem;

use super::{AgentHost, AgentSessions, Failure, HostState, auth};
use crate::door::{self, Grant};
use crate::gateway::DataPlane;
use crate::state::App;

/// Where the API of sandbox `S` is: `{PATH}/S/v1/…`.
pub const PATH: &str = "/agent";
/// The name of the sandbox that a workspace gets when it names none.
const DEFAULT: &str = "default";
/// Sandboxes of which something is remembered; what was not changed goes first.
const REMEMBERED_MAX: usize = 4096;

/// The agent API in front of a server's sandboxes. A cheap clone.
#[derive(Clone)]
pub struct AgentFace(Arc<Inner>);

struct Inner {
    app: App,
    plane: Arc<dyn DataPlane>,
    routes: Router,
}

/// What is remembered of a server's sandboxes.
#[derive(Default)]
pub struct HostStates(Mutex<HashMap<SandboxId, Arc<HostState>>>);

/// Which sandbox a request names.
enum Named {
    Sandbox(SandboxId),
    Default,
}

impl AgentFace {
    /// In front of the sandboxes of `app`'s engine.
    pub fn new(app: App) -> Self {
        let plane = Arc::new(app.engine.clone());
        Self(Arc::new(Inner {
            app,
            plane,
            routes: super::routes(),
        }))
    }

    /// What answers below [`PATH`].
    pub fn below_path(&self) -> Router {
        let face = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let face = face.clone();
            async move { Ok::<_, Infallible>(face.by_path(request).await) }
        });
        let router = Router::new().nest_service(PATH, service);
        match &self.0.app.options.agent_cors {
            Some(cors) => router.layer(cors.clone()),
            None => router,
        }
    }

    /// Answers a request whose path begins with a sandbox's name.
    async fn by_path(&self, mut request: Request<Body>) -> Response {
        let Some((name, uri)) = split(request.uri()) else {
            return Failure::from(Problem::no_endpoint()).into_response();
        };
        *request.uri_mut() = uri;
        let named = match name.as_str() {
            DEFAULT => Ok(Named::Default),
            name => name.parse().map(Named::Sandbox).map_err(|_| unknown(name)),
        };
        self.answer(named, request).await
    }

    /// Answers a request to the sandbox's own host name. `token` is the sandbox's, which its
    /// clients have.
    pub(crate) async fn by_host(
        &self,
        sandbox: SandboxId,
        token: &str,
        request: Request<Body>,
    ) -> Response {
        let Some(cors) = &self.0.app.options.agent_cors else {
            return self.for_host(sandbox, token, request).await;
        };
        let (face, token) = (self.clone(), token.to_owned());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (face, sandbox, token) = (face.clone(), sandbox.clone(), token.clone());
            async move { Ok::<_, Infallible>(face.for_host(sandbox, &token, request).await) }
        });
        match cors.layer(service).oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    async fn for_host(&self, sandbox: SandboxId, token: &str, request: Request<Body>) -> Response {
        let given = auth::presented(request.headers(), request.uri());
        if given.is_some_and(|given| crate::envd::auth::same(given.as_bytes(), token.as_bytes())) {
            return self.serve(sandbox, None, request).await;
        }
        self.answer(Ok(Named::Sandbox(sandbox)), request).await
    }

    async fn answer(&self, named: Result<Named, Fault>, request: Request<Body>) -> Response {
        // The open paths say nothing of any sandbox.
        if !auth::needs_token(request.uri().path()) {
            return self.route(request).await;
        }
        let credentials = credentials(&request);
        match self.resolve(named, credentials).await {
            Ok((sandbox, principal, grant)) => self.enter(sandbox, principal, grant, request).await,
            Err(fault) => Failure::from(fault).into_response(),
        }
    }

    /// The sandbox and who asks; another workspace's sandbox is an unknown one.
    async fn resolve(
        &self,
        named: Result<Named, Fault>,
        credentials: HeaderMap,
    ) -> Result<(SandboxId, Principal, Grant), Fault> {
        let app = &self.0.app;
        let (principal, grant) = door::principal(app, &credentials, None).await?;
        let sandbox = match named? {
            Named::Sandbox(id) => app.engine.sandbox_fetch(&principal, &id).await?.sandbox.id,
            Named::Default => app.engine.agent_sandbox(&principal).await?,
        };
        Ok((sandbox, principal, grant))
    }

    /// Lets a known principal in, as far as they may.
    async fn enter(
        &self,
        sandbox: SandboxId,
        principal: Principal,
        grant: Grant,
        mut request: Request<Body>,
    ) -> Response {
        let action = door::agent_action(request.method(), request.uri().path());
        let call = door::Call {
            face: "agent",
            action,
            target: sandbox.to_string(),
            request_id: door::request_id(&request),
        };
        request.extensions_mut().insert(grant.clone());
        let serve = |request| self.serve(sandbox, Some(principal.clone()), request);
        let app = &self.0.app;
        door::enter::<Failure, _>(app, call, principal.clone(), grant, request, serve).await
    }

    async fn serve(
        &self,
        sandbox: SandboxId,
        principal: Option<Principal>,
        mut request: Request<Body>,
    ) -> Response {
        let state = self.0.app.agent_hosts.of(&sandbox);
        let plane = Arc::clone(&self.0.plane);
        let agents = Arc::clone(&self.0.app.agents);
        let workspace = match plane.peek(&sandbox).await {
            Ok(access) => access.workspace,
            Err(fault) => return Failure::from(fault).into_response(),
        };
        let sessions = AgentSessions {
            sessions: self.0.app.sessions.clone(),
            scope: Scope {
                workspace,
                sandbox: sandbox.clone(),
            },
        };
        let host = AgentHost::new(plane, sandbox, principal, agents, state, sessions);
        request.extensions_mut().insert(host);
        self.route(request).await
    }

    async fn route(&self, request: Request<Body>) -> Response {
        match self.0.routes.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl HostStates {
    fn of(&self, sandbox: &SandboxId) -> Arc<HostState> {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = states.get(sandbox) {
            return Arc::clone(state);
        }
        if states.len() >= REMEMBERED_MAX {
            states.retain(|_, state| Arc::strong_count(state) > 1 || state.changed());
        }
        if states.len() >= REMEMBERED_MAX {
            states.retain(|_, state| Arc::strong_count(state) > 1);
        }
        Arc::clone(states.entry(sandbox.clone()).or_default())
    }
}

/// The fields that say who asks, with the token that a WebSocket's address may hold.
fn credentials(request: &Request<Body>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let workspace = request.headers().get(door::WORKSPACE).cloned();
    for name in ["x-api-key", "authorization"] {
        if let Some(value) = request.headers().get(name) {
            headers.insert(name, value.clone());
        }
    }
    if headers.is_empty()
        && let Some(token) = auth::presented(request.headers(), request.uri())
        && let Ok(value) = format!("Bearer {token}").parse()
    {
        headers.insert(http::header::AUTHORIZATION, value);
    }
    if let Some(workspace) = workspace {
        headers.insert(door::WORKSPACE, workspace);
    }
    headers
}

/// `/S/rest?query` as `S` and `/rest?query`.
fn split(uri: &Uri) -> Option<(String, Uri)> {
    let path = uri.path().strip_prefix('/')?;
    let (name, rest) = path.split_once('/').unwrap_or((path, ""));
    if name.is_empty() {
        return None;
    }
    let rest = match uri.query() {
        Some(query) => format!("/{rest}?{query}"),
        None => format!("/{rest}"),
    };
    Some((name.to_owned(), rest.parse().ok()?))
}

fn unknown(name: &str) -> Fault {
    let shown: String = name.chars().take(64).collect();
    Fault::sandbox_not_found(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_is_the_first_part_of_the_path() {
        let at = |uri: &'static str| {
            let (name, rest) = split(&Uri::from_static(uri))?;
            Some((name, rest.to_string()))
        };
        let is = |name: &str, rest: &str| Some((name.to_owned(), rest.to_owned()));
        assert_eq!(at("/sb1/v1/health"), is("sb1", "/v1/health"));
        assert_eq!(at("/sb1/v1/fs?path=/a/b"), is("sb1", "/v1/fs?path=/a/b"));
        assert_eq!(at("/sb1/"), is("sb1", "/"));
        assert_eq!(at("/sb1"), is("sb1", "/"));
        assert_eq!(at("/"), None);
        assert_eq!(at("//v1"), None);
    }
}
