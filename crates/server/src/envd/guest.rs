//! The guest's failures in the words of Connect.

use woodfrog_guest_client::GuestError;
use woodfrog_guest_proto::{ErrorBody, ErrorCode};

use super::connect::{RpcCode, RpcError};

/// The general rule; handlers with rules of their own look at the code first.
impl From<ErrorBody> for RpcError {
    fn from(error: ErrorBody) -> Self {
        let code = match error.code {
            ErrorCode::NotFound | ErrorCode::ProcessGone => RpcCode::NotFound,
            ErrorCode::AlreadyExists => RpcCode::AlreadyExists,
            ErrorCode::NotADirectory
            | ErrorCode::IsADirectory
            | ErrorCode::InvalidArgument
            | ErrorCode::TooLarge => RpcCode::InvalidArgument,
            ErrorCode::PermissionDenied => RpcCode::PermissionDenied,
            ErrorCode::UnknownUser => RpcCode::Unauthenticated,
            ErrorCode::NoSpace | ErrorCode::Busy => RpcCode::ResourceExhausted,
            ErrorCode::Unsupported => RpcCode::Unimplemented,
            ErrorCode::ConnectionRefused => RpcCode::Unavailable,
            ErrorCode::Closed | ErrorCode::Internal => RpcCode::Internal,
        };
        Self::new(code, error.message)
    }
}

/// A guest that cannot be spoken to; the cause goes to the log.
pub(crate) fn unreachable(error: &GuestError) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(%error, cause, "a guest could not be spoken to");
    "the sandbox does not answer".to_owned()
}

impl From<GuestError> for RpcError {
    fn from(error: GuestError) -> Self {
        match error {
            GuestError::Refused(body) => body.into(),
            GuestError::Timeout => Self::new(RpcCode::DeadlineExceeded, unreachable(&error)),
            GuestError::Connect(_)
            | GuestError::Io(_)
            | GuestError::Protocol(_)
            | GuestError::Descriptor(_) => Self::new(RpcCode::Unavailable, unreachable(&error)),
        }
    }
}
