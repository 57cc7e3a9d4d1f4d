//! `/files`: content in and out. Descriptors come from the guest, bytes never pass through it.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use woodfrog_engine::{GuestLease, SandboxAccess};
use woodfrog_guest_client::GuestError;
use woodfrog_guest_proto::{ErrorBody, ErrorCode};

mod compose;
mod content_type;
mod download;
mod encoding;
mod metadata;
mod sink;
mod source;
mod upload;

use super::auth::FilesQuery;
use super::local::{Local, Transfer};
use super::rest::RestError;

/// Bytes that move between a socket and a file at once: each move is one hop to a thread that
/// may block.
const CHUNK: usize = 512 << 10;

/// One request for files, which its caller was found to be allowed.
pub(crate) struct Request {
    pub(crate) access: SandboxAccess,
    pub(crate) lease: GuestLease,
    pub(crate) local: Arc<Local>,
    pub(crate) query: FilesQuery,
    pub(crate) headers: HeaderMap,
}

impl Request {
    fn user(&self) -> String {
        let named = self.query.username.clone().filter(|name| !name.is_empty());
        named.unwrap_or_else(|| self.access.default_user.clone())
    }

    async fn slot(&self) -> Transfer {
        Arc::clone(&self.local).transfer().await
    }

    pub(crate) async fn get(self) -> Response {
        let answer = download::get(self).await;
        answer.unwrap_or_else(|error| error.response())
    }

    pub(crate) async fn post(self, body: Body) -> Response {
        upload::post(self, body).await
    }
}

pub(crate) use compose::compose;

/// The guest's refusal to open a file.
fn not_opened(error: GuestError) -> RestError {
    let ErrorBody { code, message } = match error {
        GuestError::Refused(body) => body,
        other => {
            let text = crate::envd::guest::unreachable(&other);
            return RestError::new(StatusCode::SERVICE_UNAVAILABLE, text);
        }
    };
    let status = match code {
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::UnknownUser => StatusCode::UNAUTHORIZED,
        ErrorCode::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorCode::Busy => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::NotADirectory
        | ErrorCode::IsADirectory
        | ErrorCode::InvalidArgument
        | ErrorCode::TooLarge
        | ErrorCode::AlreadyExists => StatusCode::BAD_REQUEST,
        ErrorCode::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorCode::ProcessGone
        | ErrorCode::Closed
        | ErrorCode::ConnectionRefused
        | ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    };
    RestError::new(status, message)
}
