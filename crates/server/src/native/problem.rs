//! Failures of this face.

use std::any::Any;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use woodfrog_types::{Code, Fault};
use woodfrog_wire::native::problem::Problem;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A failed request. [`super::request_id::attach`] adds the request id to its body.
#[derive(Debug, Clone)]
pub(crate) struct Failure(Box<Problem>);

/// A handler's result.
pub(super) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure that no fault stands behind.
    pub(super) fn plain(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(status.as_u16(), code, detail)))
    }

    /// The same failure, naming the request that failed.
    pub(super) fn with_request_id(mut self, id: &str) -> Self {
        self.0.request_id = Some(id.to_owned());
        self
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        crate::input::log(&fault);
        Self(Box::new(Problem::from(&fault)))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&*self.0).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if self.0.code == Code::RateLimited.as_str() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The reply when a handler panicked.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    crate::input::log_panic(&*panic);
    Failure::from(Fault::new(Code::Internal, "internal error")).into_response()
}
