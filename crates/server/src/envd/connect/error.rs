//! Connect's error codes.

use http::StatusCode;
use serde::Serialize;
use woodfrog_types::{Code, Fault};

/// A Connect error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RpcCode {
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Unimplemented,
    Internal,
    Unavailable,
    Unauthenticated,
}

impl RpcCode {
    /// The status of a unary answer that fails with it.
    pub(crate) const fn http_status(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unknown | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
        }
    }
}

/// What a failed RPC answers, unary or at the end of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RpcError {
    pub(crate) code: RpcCode,
    pub(crate) message: String,
}

impl RpcError {
    pub(crate) fn new(code: RpcCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<Fault> for RpcError {
    fn from(fault: Fault) -> Self {
        let code = match fault.code {
            Code::InvalidArgument | Code::TooLarge | Code::UnsupportedAgent => {
                RpcCode::InvalidArgument
            }
            Code::Unauthenticated => RpcCode::Unauthenticated,
            Code::PermissionDenied => RpcCode::PermissionDenied,
            Code::SandboxNotFound
            | Code::TemplateNotFound
            | Code::BuildNotFound
            | Code::KeyNotFound
            | Code::WorkspaceNotFound
            | Code::SandboxSessionNotFound
            | Code::SnapshotNotFound
            | Code::SessionNotFound
            | Code::RunNotFound
            | Code::ArtifactNotFound
            | Code::WebhookNotFound
            | Code::AgentNotInstalled
            | Code::FileNotFound
            | Code::ProcessNotFound
            | Code::NotFound => RpcCode::NotFound,
            Code::AlreadyExists => RpcCode::AlreadyExists,
            Code::TemplateNotReady
            | Code::Conflict
            | Code::SnapshotUnusable
            | Code::CheckpointFailed
            | Code::Asleep
            | Code::Trimmed
            | Code::IdempotencyMismatch
            | Code::IdempotencyInProgress => RpcCode::FailedPrecondition,
            Code::RateLimited | Code::NoSpace | Code::QuotaExceeded | Code::BudgetExceeded => {
                RpcCode::ResourceExhausted
            }
            Code::Unsupported => RpcCode::Unimplemented,
            Code::Transitioning
            | Code::WakeFailed
            | Code::CapacityUnavailable
            | Code::GuestUnresponsive
            | Code::PortNotOpen
            | Code::SessionTaken
            | Code::AgentExited
            | Code::Unavailable => RpcCode::Unavailable,
            Code::DeadlineExceeded => RpcCode::DeadlineExceeded,
            Code::CreateFailed | Code::InstallFailed | Code::Internal => RpcCode::Internal,
        };
        Self::new(code, fault.message)
    }
}
