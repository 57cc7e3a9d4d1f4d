//! `POST /files/compose`: joins files of the sandbox into one.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use woodfrog_engine::{GuestLease, SandboxAccess};
use woodfrog_guest_proto as guest;
use woodfrog_types::Code;
use woodfrog_wire::envd::{Compose, WriteInfo};

use super::not_opened;
use crate::envd::entry::at;
use crate::envd::rest::{self, RestError};
use crate::input::{json_bytes, parse_json};

/// Answers with the joined file; the sources are gone then.
pub(crate) async fn compose(access: SandboxAccess, lease: GuestLease, body: Body) -> Response {
    match join(&access, &lease, body).await {
        Ok(info) => rest::json(StatusCode::OK, &info),
        Err(error) => error.response(),
    }
}

async fn join(
    access: &SandboxAccess,
    lease: &GuestLease,
    body: Body,
) -> Result<WriteInfo, RestError> {
    let bytes = json_bytes(body).await.map_err(|fault| match fault.code {
        Code::TooLarge => RestError::new(StatusCode::PAYLOAD_TOO_LARGE, fault.message),
        _ => bad(fault.message),
    })?;
    let request: Compose = parse_json(&bytes).map_err(|fault| bad(fault.message))?;
    if request.source_paths.is_empty() {
        return Err(bad("source_paths must not be empty"));
    }
    if request.destination.is_empty() {
        return Err(bad("destination is required"));
    }
    let user = request.username.filter(|name| !name.is_empty());
    let user = user.unwrap_or_else(|| access.default_user.clone());
    let wanted = guest::ComposeRequest {
        to: at(request.destination, Some(user)),
        sources: request.source_paths,
    };
    let entry = lease.compose(wanted).await.map_err(not_opened)?;
    Ok(WriteInfo {
        name: entry.name,
        path: entry.path,
        kind: "file",
        metadata: entry.metadata,
    })
}

fn bad(message: impl Into<String>) -> RestError {
    RestError::new(StatusCode::BAD_REQUEST, message)
}
