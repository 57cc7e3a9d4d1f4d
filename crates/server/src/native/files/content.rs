//! Content of files.

use std::fs::File;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_guest_client::proto::{ReadRequest, WriteMode, WriteRequest};
use woodfrog_guest_client::{FileRead, GuestError};
use woodfrog_types::Fault;
use woodfrog_types::key::Principal;
use woodfrog_wire::native::file::{Entry, PathQuery, WriteQuery};
use woodfrog_wire::native::problem::Problem;

use super::range::{self, Wanted};
use super::{at, entry, failed};
use crate::native::extract::{InPath, Params};
use crate::native::guest::{About, fault, lease, mode};
use crate::native::problem::Result;
use crate::state::App;
use crate::transfer;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read, write))
}

/// A file's content; one `Range` is honoured.
#[utoipa::path(
    get, path = "/sandboxes/{id}/files/content", operation_id = "file_read", tag = "files",
    params(("id" = String, Path), PathQuery, ("Range" = Option<String>, Header)),
    responses(
        (status = 200, body = String, content_type = "application/octet-stream"),
        (status = 206, body = String, content_type = "application/octet-stream"),
        (status = 416), (status = "default", body = Problem)
    )
)]
async fn read(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Params(query): Params<PathQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let guest = lease(&app, &principal, &id).await?;
    let request = ReadRequest {
        at: at(query.path, query.user),
        ..ReadRequest::default()
    };
    match guest.read_file(request).await.map_err(failed)? {
        FileRead::File { file, .. } => send_file(file, &headers),
        FileRead::Stream { stream, .. } => {
            Ok(reply(Body::from_stream(transfer::arriving(guest, stream))))
        }
    }
}

fn reply(body: Body) -> Response {
    let mut response = Response::new(body);
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, octets);
    response
}

fn send_file(file: File, headers: &HeaderMap) -> Result<Response> {
    let size = file.metadata().map_err(Fault::internal)?.len();
    let asked = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let (status, part) = match range::parse(asked, size) {
        Wanted::All => (StatusCode::OK, 0..size),
        Wanted::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Wanted::Unsatisfiable => {
            let mut response = reply(Body::empty());
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            set(
                &mut response,
                header::CONTENT_RANGE,
                format!("bytes */{size}"),
            );
            return Ok(response);
        }
    };
    let length = part.end - part.start;
    let content = Body::from_stream(transfer::chunks(Arc::new(file), part.start, length));
    let mut response = reply(content);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length.into());
    set(&mut response, header::ACCEPT_RANGES, "bytes".to_owned());
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        set(&mut response, header::CONTENT_RANGE, range);
    }
    Ok(response)
}

fn set(response: &mut Response, name: header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Writes the body to a file.
#[utoipa::path(
    put, path = "/sandboxes/{id}/files/content", operation_id = "file_write", tag = "files",
    request_body(content = String, content_type = "application/octet-stream"),
    params(("id" = String, Path), WriteQuery),
    responses((status = 200, body = Entry), (status = "default", body = Problem))
)]
async fn write(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Params(query): Params<WriteQuery>,
    body: Body,
) -> Result<Json<Entry>> {
    let target = at(query.path, query.user);
    let request = WriteRequest {
        at: target.clone(),
        replace: if query.atomic {
            WriteMode::Atomic
        } else {
            WriteMode::Truncate
        },
        mode: mode(query.mode.as_deref())?,
        metadata: None,
    };
    let guest = lease(&app, &principal, &id).await?;
    let work = async {
        match guest.create_file(request.clone()).await {
            Ok((file, _)) => {
                transfer::receive(file, body).await?;
                guest.stat(target).await.map_err(failed)
            }
            Err(GuestError::Descriptor(_)) => {
                let writer = guest.write_file(request).await.map_err(failed)?;
                let refused = |error| fault(error, About::File);
                transfer::receive_in_band(writer, body, refused).await?;
                guest.stat(target).await.map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    };
    tokio::select! {
        done = work => done.map(|info| Json(entry(info))),
        () = guest.ended() => Err(Fault::sandbox_not_found(id.as_str()).into()),
    }
}
