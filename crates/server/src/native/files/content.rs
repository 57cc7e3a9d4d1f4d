//! Content of files. Where the guest hands out a descriptor, bytes go between it and the socket
//! without passing through the guest; a chunk or two is held at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::GuestLease;
use woodfrog_guest_client::proto::{ReadRequest, WriteMode, WriteRequest};
use woodfrog_guest_client::{ByteStream, FileRead, GuestError};
use woodfrog_types::key::Principal;
use woodfrog_types::{Code, Fault};
use woodfrog_wire::native::file::{Entry, PathQuery, WriteQuery};
use woodfrog_wire::native::problem::Problem;

use super::range::{self, Wanted};
use super::{at, entry, failed};
use crate::native::extract::{InPath, Params};
use crate::native::guest::{lease, mode};
use crate::native::problem::{Failure, Result};
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read, write))
}

/// Bytes that are read or written at a time.
const CHUNK: usize = 1 << 20;

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
        FileRead::Stream { stream, .. } => Ok(reply(Body::from_stream(arriving(guest, stream)))),
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
    let content = Body::from_stream(chunks(Arc::new(file), part.start, length));
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

/// Reads ahead by one chunk, on the threads for blocking work. A file that shrinks meanwhile cuts
/// the response off, so that nobody takes a part for the whole.
fn chunks(
    file: Arc<File>,
    start: u64,
    length: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let pieces = (0..length.div_ceil(CHUNK as u64)).map(move |piece| {
        let done = piece * CHUNK as u64;
        let want = usize::try_from((length - done).min(CHUNK as u64)).unwrap_or(CHUNK);
        let file = Arc::clone(&file);
        async move {
            let read = tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; want];
                file.read_exact_at(&mut buffer, start + done)?;
                Ok(Bytes::from(buffer))
            });
            read.await.map_err(io::Error::other)?
        }
    });
    stream::iter(pieces).buffered(2)
}

fn arriving(guest: GuestLease, stream: ByteStream) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some((guest, stream)), |state| async move {
        let (guest, mut stream) = state?;
        let next = tokio::select! {
            next = stream.next() => next.map_err(io::Error::other),
            () = guest.ended() => Err(io::Error::other("the sandbox ended")),
        };
        match next {
            Ok(None) => None,
            Ok(Some(bytes)) => Some((Ok(bytes), Some((guest, stream)))),
            Err(error) => Some((Err(error), None)),
        }
    })
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
                receive(file, body).await?;
                guest.stat(target).await.map_err(failed)
            }
            Err(GuestError::Descriptor(_)) => receive_in_band(&guest, request, body).await,
            Err(error) => Err(failed(error)),
        }
    };
    tokio::select! {
        done = work => done.map(|info| Json(entry(info))),
        () = guest.ended() => Err(Fault::sandbox_not_found(id.as_str()).into()),
    }
}

fn cut_off(error: axum::Error) -> Failure {
    let message = "the body could not be read to its end";
    Fault::new(Code::InvalidArgument, message)
        .because(error)
        .into()
}

/// Gathers chunks, and writes one while the next arrives.
async fn receive(file: File, body: Body) -> Result<()> {
    let file = Arc::new(file);
    let mut body = body.into_data_stream();
    let mut gathered = BytesMut::with_capacity(CHUNK);
    let mut offset = 0;
    let mut pending: Option<tokio::task::JoinHandle<io::Result<()>>> = None;
    loop {
        let chunk = body.next().await.transpose().map_err(cut_off)?;
        let ended = chunk.is_none();
        gathered.extend_from_slice(&chunk.unwrap_or_default());
        if !ended && gathered.len() < CHUNK {
            continue;
        }
        settle(pending.take()).await?;
        let bytes = std::mem::replace(&mut gathered, BytesMut::with_capacity(CHUNK)).freeze();
        let (at, file) = (offset, Arc::clone(&file));
        offset += bytes.len() as u64;
        pending = Some(tokio::task::spawn_blocking(move || {
            file.write_all_at(&bytes, at)
        }));
        if ended {
            return settle(pending.take()).await;
        }
    }
}

async fn settle(pending: Option<tokio::task::JoinHandle<io::Result<()>>>) -> Result<()> {
    let Some(write) = pending else { return Ok(()) };
    match write.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if is_full(&error) => {
            let message = "the sandbox's disk is full or over its limit";
            Err(Fault::new(Code::NoSpace, message).into())
        }
        Ok(Err(error)) => Err(Fault::internal(error).into()),
        Err(error) => Err(Fault::internal(error).into()),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

async fn receive_in_band(
    guest: &GuestLease,
    request: WriteRequest,
    body: Body,
) -> Result<woodfrog_guest_client::proto::EntryInfo> {
    let mut writer = guest.write_file(request).await.map_err(failed)?;
    let mut body = body.into_data_stream();
    while let Some(chunk) = body.next().await {
        writer
            .write(&chunk.map_err(cut_off)?)
            .await
            .map_err(failed)?;
    }
    writer.finish().await.map_err(failed)
}
