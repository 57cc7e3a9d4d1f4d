//! Failures of this face.

use std::fmt::Display;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use woodfrog_guest_client::GuestError;
use woodfrog_guest_client::proto::ErrorCode;
use woodfrog_types::{Code, Fault};
use woodfrog_wire::agent::problem::{Kind, Problem};

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A failed request.
#[derive(Debug, Clone)]
pub struct Failure(Box<Problem>);

/// A handler's result.
pub(super) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// 400: the request cannot be right.
    pub(crate) fn invalid(message: impl Display) -> Self {
        Problem::new(Kind::InvalidRequest, message).into()
    }

    /// The sentence that says what failed.
    pub(crate) fn detail(&self) -> &str {
        &self.0.detail
    }

    /// 409: not in this state.
    pub(crate) fn conflict(message: impl Display) -> Self {
        Problem::new(Kind::Conflict, message).into()
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        crate::input::log(&fault);
        Problem::from(&fault).into()
    }
}

/// A fault about this agent: says which, and what it said last.
pub(super) fn about_agent(agent: &str, fault: &Fault) -> Failure {
    crate::input::log(fault);
    let problem = Problem::from(fault);
    match fault.code {
        Code::UnsupportedAgent | Code::AgentNotInstalled => problem.with("agent", agent),
        Code::InstallFailed | Code::AgentExited => {
            let said = serde_json::json!({ "stderr": fault.message });
            problem.with("agent", agent).with("details", said)
        }
        _ => problem,
    }
    .into()
}

/// The general rule; operations with rules of their own look at the code first.
impl From<GuestError> for Failure {
    fn from(error: GuestError) -> Self {
        fault(error).into()
    }
}

/// The fault for a guest's refusal or silence.
pub(super) fn fault(error: GuestError) -> Fault {
    let Some(refused) = error.code() else {
        let (code, message) = match &error {
            GuestError::Timeout => (Code::DeadlineExceeded, "the sandbox did not answer in time"),
            _ => (Code::GuestUnresponsive, "the sandbox does not answer"),
        };
        return Fault::new(code, message).because(error);
    };
    let code = match refused {
        ErrorCode::NotFound | ErrorCode::ProcessGone => Code::NotFound,
        ErrorCode::AlreadyExists | ErrorCode::Closed => Code::Conflict,
        ErrorCode::NotADirectory
        | ErrorCode::IsADirectory
        | ErrorCode::InvalidArgument
        | ErrorCode::UnknownUser => Code::InvalidArgument,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::NoSpace => Code::NoSpace,
        ErrorCode::TooLarge => Code::TooLarge,
        ErrorCode::Busy => Code::RateLimited,
        ErrorCode::Unsupported => Code::Unsupported,
        ErrorCode::ConnectionRefused => Code::PortNotOpen,
        ErrorCode::Internal => Code::Internal,
    };
    Fault::new(code, error.to_string())
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&*self.0).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        response
    }
}
