//! Errors as E2B clients read them.

use std::any::Any;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use woodfrog_types::{Code, Fault};
use woodfrog_wire::e2b::ErrorBody;

/// Read by the Python client: whether it may send the same request again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("should-retry");
/// Seconds that a limited caller is asked to wait.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An error reply of this face.
#[derive(Debug)]
pub(crate) struct E2bError {
    status: StatusCode,
    message: String,
    code: Option<Code>,
}

/// A handler's result.
pub(super) type Result<T> = std::result::Result<T, E2bError>;

impl E2bError {
    /// A reply that no fault stands behind.
    pub(super) fn plain(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            code: None,
        }
    }

    /// The same error under another status, for what clients take a status to mean.
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl From<Fault> for E2bError {
    fn from(fault: Fault) -> Self {
        let fault = woodfrog_wire::e2b::network::named_as_here(fault);
        crate::input::log(&fault);
        Self {
            status: StatusCode::from_u16(fault.code.http_status())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            message: fault.message,
            code: Some(fault.code),
        }
    }
}

/// Whether sending the request again can do no harm: it was refused before anything was done.
fn refused_untouched(code: Option<Code>) -> bool {
    matches!(
        code,
        Some(
            Code::RateLimited | Code::CapacityUnavailable | Code::Unavailable | Code::Transitioning
        )
    )
}

impl IntoResponse for E2bError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            code: self.status.as_u16(),
            message: self.message,
            error_code: self.code.map(|code| code.as_str().to_owned()),
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if self.status.is_server_error() && !refused_untouched(self.code) {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

/// The reply when a handler panicked.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    crate::input::log_panic(&*panic);
    E2bError::from(Fault::new(Code::Internal, "internal error")).into_response()
}
