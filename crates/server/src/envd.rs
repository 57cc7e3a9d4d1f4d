//! The daemon that E2B clients expect in a sandbox, served by us on its port.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use woodfrog_engine::SandboxAccess;

pub(crate) mod auth;
pub(crate) mod connect;
pub(crate) mod multipart;
pub(crate) mod range;

use crate::gateway::DataPlane;

/// The port that clients find the daemon on.
pub const PORT: u16 = 49983;

/// The daemon's face. A cheap clone.
#[derive(Clone)]
pub(crate) struct Envd {
    plane: Arc<dyn DataPlane>,
}

impl Envd {
    pub(crate) fn new(plane: Arc<dyn DataPlane>) -> Self {
        Self { plane }
    }

    /// Answers a request to a running sandbox's daemon.
    pub(crate) async fn handle(&self, access: SandboxAccess, request: Request<Body>) -> Response {
        let _ = (access, request);
        Response::new(Body::empty())
    }

    /// Requests that name no sandbox and are for a daemon nevertheless: signed file URLs in the
    /// one-port mode and the preflights of browsers.
    pub(crate) async fn without_sandbox(&self, request: &mut Request<Body>) -> Option<Response> {
        None
    }
}
