//! The daemon that E2B clients expect in a sandbox, served by us on its port.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Query;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use woodfrog_engine::{GuestLease, Reach, SandboxAccess};

pub(crate) mod auth;
mod call;
mod connect;
mod entry;
mod files;
mod filesystem;
mod guest;
mod local;
mod multipart;
mod process;
mod range;
mod rest;
mod rpc;
mod watch;

use crate::gateway::DataPlane;
use crate::gateway::answer::{Form, Refusal};
use crate::gateway::body::Guarded;
use auth::{FilesQuery, Operation};
use rest::RestError;

/// The port that clients find the daemon on.
pub const PORT: u16 = 49983;
const FILES: &str = "/files";
const ROUTED_BY: &str = "e2b-sandbox-id";

/// The daemon's face. A cheap clone.
#[derive(Clone)]
pub(crate) struct Envd {
    plane: Arc<dyn DataPlane>,
    locals: local::Locals,
}

impl Envd {
    pub(crate) fn new(plane: Arc<dyn DataPlane>) -> Self {
        Self {
            plane,
            locals: local::Locals::default(),
        }
    }

    /// Answers a request to a sandbox's daemon; wakes the sandbox if need be, once it is known that
    /// the request is allowed. When the sandbox ends, requests without an answer yet are told that
    /// it was not found, and answers under way break off.
    pub(crate) async fn handle(&self, access: SandboxAccess, request: Request<Body>) -> Response {
        if rest::is_preflight(request.method(), request.headers()) {
            return rest::preflight(request.headers());
        }
        let id = access.id.clone();
        let form = Form::of(request.headers());
        let (parts, body) = request.into_parts();
        let wanted = match Wanted::of(&parts, &access) {
            Ok(wanted) => wanted,
            Err(_) if access.reach == Reach::Resumable => {
                let text = "Sandbox is paused: a valid access token is needed to resume it";
                return Refusal::plain(StatusCode::FORBIDDEN, text, form).response(id.as_str());
            }
            Err(error) => {
                let mut response = error.response();
                rest::allow_origins(&mut response);
                return response;
            }
        };
        if matches!(wanted, Wanted::Health) {
            return health(&access, form);
        }
        let lease = match self.plane.guest(&id).await {
            Ok(lease) => lease,
            Err(fault) => return Refusal::of_fault(&fault, PORT, form).response(id.as_str()),
        };
        let request = Request::from_parts(parts, body);
        let mut response = tokio::select! {
            biased;
            () = lease.ended() => return Refusal::not_found(form).response(id.as_str()),
            response = self.route(wanted, access, lease.clone(), request) => response,
        };
        rest::allow_origins(&mut response);
        // The handler of a stream holds a lease of its own for as long as it needs one.
        let lease = match connect::is_stream(&response) {
            true => lease.quiet(),
            false => lease,
        };
        response.map(|body| Body::new(Guarded::new(body, lease)))
    }

    async fn route(
        &self,
        wanted: Wanted,
        access: SandboxAccess,
        lease: GuestLease,
        request: Request<Body>,
    ) -> Response {
        let (parts, body) = request.into_parts();
        let local = self.locals.of(&access.id);
        match wanted {
            Wanted::Health => rest::no_content(),
            Wanted::Files(query) => {
                let headers = parts.headers;
                let request = files::Request {
                    access,
                    lease,
                    local,
                    query,
                    headers,
                };
                if parts.method == Method::GET {
                    request.get().await
                } else {
                    request.post(body).await
                }
            }
            Wanted::Rest => match (&parts.method, parts.uri.path()) {
                (&Method::GET, "/metrics") => metrics(&lease).await,
                (&Method::GET, "/envs") => envs(&lease).await,
                (&Method::POST, "/files/compose") => files::compose(access, lease, body).await,
                (&Method::POST, path) => {
                    let path = path.to_owned();
                    let call = call::Call::new(access, lease, parts.headers);
                    rpc::answer(&path, call, local, body).await
                }
                _ => not_found(),
            },
        }
    }

    /// Requests that name no sandbox and are for a daemon nevertheless: signed file URLs in the
    /// one-port mode, and the preflights of browsers.
    pub(crate) async fn without_sandbox(&self, request: &mut Request<Body>) -> Option<Response> {
        let files = request.uri().path() == FILES;
        if rest::is_preflight(request.method(), request.headers()) {
            let ours = files || announces(request.headers(), ROUTED_BY);
            return ours.then(|| rest::preflight(request.headers()));
        }
        if !files || !matches!(*request.method(), Method::GET | Method::POST) {
            return None;
        }
        let Ok(Query(query)) = Query::<FilesQuery>::try_from_uri(request.uri()) else {
            return None;
        };
        query.signature.as_ref()?;
        let operation = Operation::of(request.method());
        let check = |access: &SandboxAccess| {
            access.secure && query.signed_by(&access.access_token, operation)
        };
        let Some(access) = self.plane.access_by_signature(&check).await else {
            let mut response = RestError::from(auth::AuthError::SignatureInvalid).response();
            rest::allow_origins(&mut response);
            return Some(response);
        };
        Some(self.handle(access, std::mem::take(request)).await)
    }
}

/// What a request is for, found out without the sandbox.
enum Wanted {
    Health,
    Files(FilesQuery),
    /// Small routes and procedures.
    Rest,
}

impl Wanted {
    /// Fails if the request is malformed or its caller has no right to it.
    fn of(parts: &Parts, access: &SandboxAccess) -> Result<Self, RestError> {
        match (&parts.method, parts.uri.path()) {
            (&Method::GET, "/health") => Ok(Self::Health),
            (&Method::GET | &Method::POST, FILES) => {
                let query = Query::<FilesQuery>::try_from_uri(&parts.uri).map_err(|error| {
                    let text = format!("malformed query: {error}");
                    RestError::new(StatusCode::BAD_REQUEST, text)
                })?;
                let operation = Operation::of(&parts.method);
                auth::check_files(access, &parts.headers, &query.0, operation)?;
                Ok(Self::Files(query.0))
            }
            _ => {
                auth::check_token(access, &parts.headers)?;
                Ok(Self::Rest)
            }
        }
    }
}

/// Clients ask for this to learn whether the sandbox runs: it never wakes one.
fn health(access: &SandboxAccess, form: Form) -> Response {
    if !access.reach.runs() {
        return Refusal::not_found(form).response(access.id.as_str());
    }
    let mut response = rest::no_content();
    rest::allow_origins(&mut response);
    response
}

/// Whether a preflight says that the request will have a field of this name.
fn announces(headers: &HeaderMap, name: &str) -> bool {
    headers
        .get_all(http::header::ACCESS_CONTROL_REQUEST_HEADERS)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|announced| announced.trim().eq_ignore_ascii_case(name))
}

fn not_found() -> Response {
    RestError::new(StatusCode::NOT_FOUND, "no such route").response()
}

async fn metrics(lease: &GuestLease) -> Response {
    match lease.metrics().await {
        Ok(metrics) => rest::json(StatusCode::OK, &rest::metrics(&metrics)),
        Err(error) => RestError::from(connect::RpcError::from(error)).response(),
    }
}

/// The environment that every process gets.
async fn envs(lease: &GuestLease) -> Response {
    match lease
        .configure(woodfrog_guest_proto::Configure::default())
        .await
    {
        Ok(configured) => rest::json(StatusCode::OK, &configured.env),
        Err(error) => RestError::from(connect::RpcError::from(error)).response(),
    }
}
