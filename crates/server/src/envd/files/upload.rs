//! `POST /files`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{StatusCode, header};
use woodfrog_guest_client::GuestError;
use woodfrog_guest_proto as guest;
use woodfrog_wire::envd::WriteInfo;

use super::encoding::Undo;
use super::sink::Sink;
use super::{Request, metadata, not_opened};
use crate::envd::entry::at;
use crate::envd::multipart::{Event, MultipartError, Splitter};
use crate::envd::rest::{self, RestError};

/// A refused body is read on for this long and this much, so that the client, which may look at
/// the answer only when it has sent everything, gets to see it.
const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

pub(super) async fn post(request: Request, body: Body) -> Response {
    let mut body = body.into_data_stream();
    match write(&request, &mut body).await {
        Ok(written) => rest::json(StatusCode::OK, &written),
        Err(error) => {
            let _ = tokio::time::timeout(DRAIN_TIME, drain(&mut body)).await;
            error.response()
        }
    }
}

type Stream = axum::body::BodyDataStream;

async fn drain(body: &mut Stream) {
    let mut left = DRAIN_BYTES;
    while let Some(Ok(bytes)) = body.next().await {
        left = left.saturating_sub(bytes.len());
        if left == 0 {
            return;
        }
    }
}

async fn write(request: &Request, body: &mut Stream) -> Result<Vec<WriteInfo>, RestError> {
    let value = request.headers.get(header::CONTENT_TYPE);
    let content_type = value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let metadata = metadata::of(&request.headers)?;
    let upload = Upload { request, metadata };
    let _slot = request.slot().await;
    if media == "application/octet-stream" {
        upload.raw(body).await
    } else if media.starts_with("multipart/") {
        let splitter = Splitter::new(content_type).map_err(form_error)?;
        upload.multipart(body, splitter).await
    } else {
        Err(RestError::new(
            StatusCode::BAD_REQUEST,
            format!(
                "unsupported content type: {content_type}, expected multipart/form-data or \
                 application/octet-stream"
            ),
        ))
    }
}

struct Upload<'a> {
    request: &'a Request,
    metadata: BTreeMap<String, String>,
}

impl Upload<'_> {
    /// Opens a file and empties it.
    async fn open(&self, path: String) -> Result<(Sink, WriteInfo), RestError> {
        let lease = &self.request.lease;
        let wanted = guest::WriteRequest {
            at: at(path, Some(self.request.user())),
            metadata: Some(self.metadata.clone()),
            ..guest::WriteRequest::default()
        };
        let announced = self.request.headers.get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()?.parse().ok());
        let (sink, entry) = match lease.create_file(wanted.clone()).await {
            Ok((file, entry)) => (Sink::disk(file, announced), entry),
            Err(GuestError::Descriptor(_)) => {
                let found = lease.stat(wanted.at.clone()).await.map_err(not_opened)?;
                let writer = lease.write_file(wanted).await.map_err(not_opened)?;
                (Sink::band(writer, announced), found)
            }
            Err(error) => return Err(not_opened(error)),
        };
        let metadata = self.metadata.clone();
        let info = WriteInfo {
            name: entry.name,
            path: entry.path,
            kind: "file",
            metadata,
        };
        Ok((sink, info))
    }

    async fn raw(&self, body: &mut Stream) -> Result<Vec<WriteInfo>, RestError> {
        let path = self
            .request
            .query
            .path
            .clone()
            .filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| {
            let text = "path query parameter is required for raw body upload";
            RestError::new(StatusCode::BAD_REQUEST, text)
        })?;
        let mut undo = Undo::of(&self.request.headers)?;
        let (mut sink, info) = self.open(path).await?;
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|_| broken())?;
            for step in undo.steps(&bytes) {
                let plain = undo.step(step)?.map_or_else(|| bytes.clone(), Bytes::from);
                sink.write(plain).await?;
            }
        }
        sink.write(undo.finish()?.into()).await?;
        sink.finish().await?;
        Ok(vec![info])
    }

    async fn multipart(
        &self,
        body: &mut Stream,
        splitter: Splitter,
    ) -> Result<Vec<WriteInfo>, RestError> {
        let mut undo = Undo::of(&self.request.headers)?;
        let mut form = Form {
            upload: self,
            splitter,
            open: None,
            written: Vec::new(),
        };
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|_| broken())?;
            for step in undo.steps(&bytes) {
                match undo.step(step)? {
                    Some(plain) => form.take(&plain).await?,
                    None => form.take(step).await?,
                }
            }
        }
        form.take(&undo.finish()?).await?;
        form.splitter.finish().map_err(form_error)?;
        Ok(form.written)
    }
}

/// A form that is being taken apart.
struct Form<'a> {
    upload: &'a Upload<'a>,
    splitter: Splitter,
    /// The part under way, if it is a file.
    open: Option<(Sink, WriteInfo)>,
    written: Vec<WriteInfo>,
}

impl Form<'_> {
    async fn take(&mut self, bytes: &[u8]) -> Result<(), RestError> {
        self.splitter.feed(bytes);
        loop {
            match self.splitter.next().map_err(form_error)? {
                Event::Part(head) if head.name.as_deref() == Some("file") => {
                    let path = self.upload.request.query.path.clone();
                    let path = path.or(head.filename).filter(|path| !path.is_empty());
                    let path = path.ok_or_else(|| {
                        let text = "a file part without a file name needs the path parameter";
                        RestError::new(StatusCode::BAD_REQUEST, text)
                    })?;
                    self.open = Some(self.begin(path).await?);
                }
                // Other fields of the form are nobody's business.
                Event::Part(_) => {}
                Event::Data(bytes) => {
                    if let Some((sink, _)) = &mut self.open {
                        sink.write(bytes).await?;
                    }
                }
                Event::PartEnd => {
                    if let Some((sink, info)) = self.open.take() {
                        sink.finish().await?;
                        self.written.push(info);
                    }
                }
                Event::More | Event::Done => return Ok(()),
            }
        }
    }

    async fn begin(&self, path: String) -> Result<(Sink, WriteInfo), RestError> {
        // Looked at by name before it is opened: opening empties the file.
        let same = self.written.iter().find(|info| info.path == path);
        if self.upload.request.query.path.is_some() && !self.written.is_empty() {
            return Err(twice(&self.written[0].path));
        }
        if let Some(info) = same {
            return Err(twice(&info.path));
        }
        self.upload.open(path).await
    }
}

fn twice(path: &str) -> RestError {
    let text = format!(
        "you cannot upload multiple files to the same path '{path}' in one upload request, only \
         the first specified file was uploaded"
    );
    RestError::new(StatusCode::BAD_REQUEST, text)
}

fn form_error(error: MultipartError) -> RestError {
    RestError::new(
        StatusCode::BAD_REQUEST,
        format!("error parsing multipart form: {error}"),
    )
}

fn broken() -> RestError {
    RestError::new(StatusCode::BAD_REQUEST, "the request broke off")
}
