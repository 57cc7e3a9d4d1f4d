//! One listener for all faces.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::{Request, StatusCode, Uri};
use woodfrog_engine::{Reach, SandboxAccess};

pub(crate) mod classify;
mod listen;
pub mod tls;

pub use listen::{Listener, serve};
pub use tls::{Tls, TlsError, TlsSource};

use crate::ServerOptions;
use crate::agent::AgentFace;
use crate::envd::Envd;
use crate::gateway::answer::{Form, Refusal};
use crate::gateway::{DataPlane, Peer};
use classify::Target;

/// What answers behind one way in. A cheap clone.
#[derive(Clone)]
pub struct Faces(Kind);

#[derive(Clone)]
enum Kind {
    All(Box<All>),
    Only(Router),
}

/// Every face.
#[derive(Clone)]
struct All {
    plane: Arc<dyn DataPlane>,
    control: Router,
    envd: Envd,
    agent: Option<AgentFace>,
    options: Arc<ServerOptions>,
}

impl Faces {
    /// `control` answers everything that is not for a sandbox.
    pub fn new(plane: Arc<dyn DataPlane>, control: Router, options: Arc<ServerOptions>) -> Self {
        let envd = Envd::new(Arc::clone(&plane));
        Self(Kind::All(Box::new(All {
            plane,
            control,
            envd,
            agent: None,
            options,
        })))
    }

    /// The same with the agent API on its port of every sandbox; that port is the sandbox's own
    /// otherwise.
    #[must_use]
    pub fn with_agent(mut self, face: AgentFace) -> Self {
        if let Kind::All(all) = &mut self.0 {
            all.agent = Some(face);
        }
        self
    }

    /// One router for every request, whatever its host.
    pub fn only(router: Router) -> Self {
        Self(Kind::Only(router))
    }

    /// Answers one request. Never fails: what goes wrong is an answer too.
    pub(crate) async fn dispatch(&self, request: Request<Body>, peer: Peer) -> Response {
        match &self.0 {
            Kind::All(all) => all.dispatch(request, peer).await,
            Kind::Only(router) => ask(router.clone(), request, peer).await,
        }
    }
}

impl All {
    async fn dispatch(&self, mut request: Request<Body>, peer: Peer) -> Response {
        let host = host_of(&request);
        let target = classify::classify(
            host.as_deref(),
            request.headers(),
            self.options.domain.as_deref(),
        );
        match target {
            Target::Sandbox { id, port } => self.sandbox(&id, port, request, peer).await,
            Target::Refused(text) => {
                Refusal::plain(StatusCode::BAD_REQUEST, text, Form::of(request.headers()))
                    .response("")
            }
            Target::Control => {
                if let Some(response) = self.envd.without_sandbox(&mut request).await {
                    return response;
                }
                ask(self.control.clone(), request, peer).await
            }
        }
    }

    async fn sandbox(&self, id: &str, port: u16, request: Request<Body>, peer: Peer) -> Response {
        let form = Form::of(request.headers());
        let Ok(sandbox) = id.parse() else {
            return Refusal::not_found(form).response(id);
        };
        // Looked at only: who asks is found out before the sandbox is woken for it.
        let access = match self.plane.peek(&sandbox).await {
            Ok(access) if access.reach == Reach::Held => {
                return Refusal::not_found(form).response(id);
            }
            Ok(access) => access,
            Err(fault) => return Refusal::of_fault(&fault, port, form).response(id),
        };
        if port == crate::envd::PORT {
            self.envd.handle(access, request).await
        } else if let Some(agent) = self.agent.as_ref().filter(|_| port == crate::agent::PORT) {
            let SandboxAccess {
                id, access_token, ..
            } = access;
            agent.by_host(id, &access_token, request).await
        } else {
            crate::gateway::proxy(&*self.plane, access, port, request, peer).await
        }
    }
}

async fn ask(router: Router, mut request: Request<Body>, peer: Peer) -> Response {
    request.extensions_mut().insert(ConnectInfo(peer.address));
    match tower::ServiceExt::oneshot(router, request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// HTTP/2 has the host in its target, HTTP/1 in a field.
fn host_of(request: &Request<Body>) -> Option<String> {
    let field = || {
        let value = request.headers().get(http::header::HOST)?;
        Some(value.to_str().ok()?.to_owned())
    };
    let uri: &Uri = request.uri();
    uri.authority()
        .map(|authority| authority.as_str().to_owned())
        .or_else(field)
}
