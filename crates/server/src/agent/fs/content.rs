//! Content of files, of any length.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Query;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::{HeaderValue, header};
use woodfrog_engine::GuestLease;
use woodfrog_guest_client::proto::{ErrorCode, PathRequest, ReadRequest, WriteRequest};
use woodfrog_guest_client::{FileRead, GuestError};
use woodfrog_types::Fault;
use woodfrog_wire::agent::fs::{PathQuery, Written};

use super::failed;
use super::place::at;
use crate::agent::AgentHost;
use crate::agent::problem::{Failure, Result, fault};
use crate::transfer;

pub(super) fn routes() -> Router {
    Router::new().route("/v1/fs/file", get(read).put(write))
}

async fn read(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<PathQuery>,
) -> Result<Response> {
    let request = ReadRequest {
        at: at(&query.path)?,
        ..ReadRequest::default()
    };
    let guest = host.guest().await?;
    let (body, length) = match guest.read_file(request).await.map_err(not_a_file)? {
        FileRead::File { file, .. } => {
            let size = file.metadata().map_err(Fault::internal)?.len();
            let content = transfer::chunks(Arc::new(file), 0, size);
            (Body::from_stream(content), Some(size))
        }
        FileRead::Stream { stream, .. } => {
            (Body::from_stream(transfer::arriving(guest, stream)), None)
        }
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, octets);
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Ok(response)
}

fn not_a_file(error: GuestError) -> Failure {
    match error.code() {
        Some(ErrorCode::IsADirectory) => {
            Failure::invalid(format_args!("path is not a file: {error}"))
        }
        _ => failed(error),
    }
}

/// Writes the body to a file, which is made with its parents.
async fn write(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<PathQuery>,
    body: Body,
) -> Result<Json<Written>> {
    let target = at(&query.path)?;
    let guest = host.guest().await?;
    tokio::select! {
        written = receive(&guest, target, body) => Ok(Json(written?)),
        () = guest.ended() => Err(Fault::sandbox_not_found(host.sandbox().as_str()).into()),
    }
}

async fn receive(guest: &GuestLease, target: PathRequest, body: Body) -> Result<Written> {
    let request = WriteRequest {
        at: target.clone(),
        ..WriteRequest::default()
    };
    let bytes_written = match guest.create_file(request.clone()).await {
        Ok((file, _)) => transfer::receive(file, body).await?,
        Err(GuestError::Descriptor(_)) => {
            let writer = guest.write_file(request).await.map_err(not_a_file)?;
            transfer::receive_in_band(writer, body, fault).await?
        }
        Err(error) => return Err(not_a_file(error)),
    };
    let path = guest.stat(target).await.map_err(failed)?.path;
    Ok(Written {
        path,
        bytes_written,
    })
}
