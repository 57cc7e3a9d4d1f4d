//! The daemon that E2B clients expect in a sandbox, served by us on its port.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Query;
use axum::response::Response;
use http::{HeaderMap, Method, Request, StatusCode};
use woodfrog_engine::{GuestLease, SandboxAccess};

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

    /// Answers a request to a running sandbox's daemon. When the sandbox ends, requests without
    /// an answer yet are told that it was not found, and answers under way break off.
    pub(crate) async fn handle(&self, access: SandboxAccess, request: Request<Body>) -> Response {
        if rest::is_preflight(request.method(), request.headers()) {
            return rest::preflight(request.headers());
        }
        let id = access.id.clone();
        let form = Form::of(request.headers());
        let lease = match self.plane.guest(&id).await {
            Ok(lease) => lease,
            Err(fault) => return Refusal::of_fault(&fault, PORT, form).response(id.as_str()),
        };
        let mut response = tokio::select! {
            biased;
            () = lease.ended() => return Refusal::not_found(form).response(id.as_str()),
            response = self.route(access, lease.clone(), request) => response,
        };
        rest::allow_origins(&mut response);
        response.map(|body| Body::new(Guarded::new(body, lease)))
    }

    async fn route(
        &self,
        access: SandboxAccess,
        lease: GuestLease,
        request: Request<Body>,
    ) -> Response {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        match (&parts.method, path) {
            (&Method::GET, "/health") => rest::no_content(),
            (&Method::GET | &Method::POST, FILES) => {
                let query = match Query::<FilesQuery>::try_from_uri(&parts.uri) {
                    Ok(Query(query)) => query,
                    Err(error) => {
                        let text = format!("malformed query: {error}");
                        return RestError::new(StatusCode::BAD_REQUEST, text).response();
                    }
                };
                let local = self.locals.of(&access.id);
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
            (method, path) => {
                if let Err(error) = auth::check_token(&access, &parts.headers) {
                    return RestError::from(error).response();
                }
                match (method, path) {
                    (&Method::GET, "/metrics") => metrics(&lease).await,
                    (&Method::GET, "/envs") => envs(&lease).await,
                    (&Method::POST, path) => {
                        let path = path.to_owned();
                        let local = self.locals.of(&access.id);
                        let call = call::Call::new(access, lease, parts.headers);
                        rpc::answer(&path, call, local, body).await
                    }
                    _ => not_found(),
                }
            }
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
