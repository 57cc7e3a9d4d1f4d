//! Errors: `application/problem+json` with a type that names the error.

use std::fmt::Display;

use serde::Serialize;
use serde_json::{Map, Value, json};
use woodfrog_types::{Code, Fault};

const TYPE_PREFIX: &str = "urn:sandbox-agent:error:";

/// The errors that clients of this API know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    InvalidRequest,
    UnsupportedAgent,
    ModeNotSupported,
    AgentNotInstalled,
    InstallFailed,
    AgentProcessExited,
    TokenInvalid,
    PermissionDenied,
    NotAcceptable,
    UnsupportedMediaType,
    NotFound,
    SessionNotFound,
    SessionAlreadyExists,
    Conflict,
    StreamError,
    Timeout,
}

impl Kind {
    /// Its code, title, status, and what its details begin with.
    const fn row(self) -> (&'static str, &'static str, u16, &'static str) {
        match self {
            Self::InvalidRequest => ("invalid_request", "Invalid Request", 400, "invalid request"),
            Self::UnsupportedAgent => (
                "unsupported_agent",
                "Unsupported Agent",
                400,
                "unsupported agent",
            ),
            Self::ModeNotSupported => (
                "mode_not_supported",
                "Mode Not Supported",
                400,
                "mode not supported",
            ),
            Self::AgentNotInstalled => (
                "agent_not_installed",
                "Agent Not Installed",
                404,
                "agent not installed",
            ),
            Self::InstallFailed => ("install_failed", "Install Failed", 500, "install failed"),
            Self::AgentProcessExited => (
                "agent_process_exited",
                "Agent Process Exited",
                500,
                "agent process exited",
            ),
            Self::TokenInvalid => ("token_invalid", "Token Invalid", 401, "token invalid"),
            Self::PermissionDenied => (
                "permission_denied",
                "Permission Denied",
                403,
                "permission denied",
            ),
            Self::NotAcceptable => ("not_acceptable", "Not Acceptable", 406, "not acceptable"),
            Self::UnsupportedMediaType => (
                "unsupported_media_type",
                "Unsupported Media Type",
                415,
                "unsupported media type",
            ),
            Self::NotFound => ("not_found", "Not Found", 404, "not found"),
            Self::SessionNotFound => (
                "session_not_found",
                "Session Not Found",
                404,
                "session not found",
            ),
            Self::SessionAlreadyExists => (
                "session_already_exists",
                "Session Already Exists",
                409,
                "session already exists",
            ),
            Self::Conflict => ("conflict", "Conflict", 409, "conflict"),
            Self::StreamError => ("stream_error", "Stream Error", 502, "stream error"),
            Self::Timeout => ("timeout", "Timeout", 504, "timeout"),
        }
    }
}

/// The body of an error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// What there is to say beyond RFC 9457: `agent`, `sessionId`, `details`.
    #[serde(flatten)]
    pub extensions: Map<String, Value>,
}

impl Problem {
    /// An error with its usual status; `details.message` is the sentence alone where clients
    /// expect it there.
    pub fn new(kind: Kind, message: impl Display) -> Self {
        let (code, title, status, prefix) = kind.row();
        let message = message.to_string();
        // Some causes say what they are themselves.
        let detail = match message.starts_with(prefix) {
            true => message.clone(),
            false => format!("{prefix}: {message}"),
        };
        let mut problem = Self {
            kind: format!("{TYPE_PREFIX}{code}"),
            title: title.to_owned(),
            status,
            detail,
            extensions: Map::new(),
        };
        if matches!(kind, Kind::Conflict | Kind::StreamError | Kind::Timeout) {
            problem = problem.with("details", json!({ "message": message }));
        }
        problem
    }

    /// A path that is not served.
    pub fn no_endpoint() -> Self {
        Self {
            title: "Not Found".to_owned(),
            status: 404,
            detail: "endpoint not found".to_owned(),
            ..Self::new(Kind::InvalidRequest, "")
        }
    }

    /// Nobody, or nobody known, is asking.
    pub fn token_invalid() -> Self {
        let message = json!({ "message": "missing or invalid bearer token" });
        Self {
            detail: "token invalid".to_owned(),
            ..Self::new(Kind::TokenInvalid, "")
        }
        .with("details", message)
    }

    /// A named thing of a kind is not there.
    pub fn not_found(resource: &str, id: &str) -> Self {
        let details = json!({ "resource": resource, "id": id });
        Self::new(Kind::NotFound, format_args!("{resource} {id}")).with("details", details)
    }

    /// The same error, saying more.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(key.to_owned(), value.into());
        self
    }

    /// The same error with another status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}

impl From<&Fault> for Problem {
    fn from(fault: &Fault) -> Self {
        let status = fault.code.http_status();
        let kind = match fault.code {
            Code::Unauthenticated => return Self::token_invalid(),
            Code::PermissionDenied => Kind::PermissionDenied,
            Code::DeadlineExceeded => Kind::Timeout,
            Code::SessionNotFound => Kind::SessionNotFound,
            Code::UnsupportedAgent => Kind::UnsupportedAgent,
            Code::AgentNotInstalled => Kind::AgentNotInstalled,
            Code::InstallFailed => Kind::InstallFailed,
            Code::AgentExited => Kind::AgentProcessExited,
            Code::AlreadyExists => Kind::SessionAlreadyExists,
            _ => match status {
                404 => Kind::NotFound,
                409 => Kind::Conflict,
                400..500 => Kind::InvalidRequest,
                _ => Kind::StreamError,
            },
        };
        Self::new(kind, &fault.message).with_status(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_what_clients_expect() {
        let json = |problem: &Problem| serde_json::to_value(problem).expect("json");
        assert_eq!(
            json(&Problem::no_endpoint()),
            json!({
                "type": "urn:sandbox-agent:error:invalid_request", "title": "Not Found",
                "status": 404, "detail": "endpoint not found",
            })
        );
        assert_eq!(
            json(&Problem::new(Kind::Conflict, "process is not running")),
            json!({
                "type": "urn:sandbox-agent:error:conflict", "title": "Conflict", "status": 409,
                "detail": "conflict: process is not running",
                "details": {"message": "process is not running"},
            })
        );
        assert_eq!(
            json(&Problem::not_found("process", "proc_9")),
            json!({
                "type": "urn:sandbox-agent:error:not_found", "title": "Not Found", "status": 404,
                "detail": "not found: process proc_9",
                "details": {"id": "proc_9", "resource": "process"},
            })
        );
        let full = Fault::new(Code::NoSpace, "the disk is full");
        let problem = Problem::from(&full);
        assert_eq!(
            (problem.status, problem.title.as_str()),
            (507, "Stream Error")
        );
    }
}
