//! The content of volumes, for who has the volume's token.

use std::time::SystemTime;

use axum::Json;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use tokio_util::io::ReaderStream;
use woodfrog_engine::VolumeContent;
use woodfrog_engine::volume::{Attributes, Entry, EntryKind, Parents, Replace, Upload};
use woodfrog_types::{Code, Fault, Timestamp};
use woodfrog_wire::e2b::volume::{VolumeAttributes, VolumeEntry};

use super::error::{E2bError, Result};
use super::extract::{OptionalBody, Params, Segment};
use super::routes::Routes;
use super::volumes::volume_id;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .token_get("/volumecontent/{id}/path", stat)
        .token_patch("/volumecontent/{id}/path", set)
        .token_delete("/volumecontent/{id}/path", remove)
        .token_get("/volumecontent/{id}/dir", list)
        .token_post("/volumecontent/{id}/dir", make_dir)
        .token_get("/volumecontent/{id}/file", read)
        .token_put("/volumecontent/{id}/file", write)
}

/// Bytes of one file.
const FILE_BYTES_MAX: usize = 64 << 30;
/// Bytes that move between a socket and a file at once: each move is a hop to another thread.
const CHUNK: usize = 512 << 10;

/// The content that the path and the bearer token open, and the path in it.
struct At {
    content: VolumeContent,
    path: String,
    params: Params,
}

impl FromRequestParts<App> for At {
    type Rejection = E2bError;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &App,
    ) -> std::result::Result<Self, E2bError> {
        let Segment(id) = Segment::from_request_parts(parts, app).await?;
        let params = Params::from_request_parts(parts, app).await?;
        let value = parts.headers.get(header::AUTHORIZATION);
        let token = value.and_then(|value| value.to_str().ok()).and_then(bearer);
        // An id that cannot be one has no token either.
        let refused = || Fault::new(Code::Unauthenticated, "the volume's token is missing");
        let id = volume_id(&id).map_err(|_| refused())?;
        let token = token.ok_or_else(refused)?;
        let content = app.engine.volume_content(&id, token).await?;
        let path = params.get("path").map(str::to_owned);
        let path = path.ok_or_else(|| Fault::invalid("path", "the path is missing"))?;
        Ok(Self {
            content,
            path,
            params,
        })
    }
}

impl At {
    fn attributes(&self) -> std::result::Result<Attributes, Fault> {
        Ok(Attributes {
            uid: self.params.parse("uid")?,
            gid: self.params.parse("gid")?,
            mode: self.params.parse("mode")?,
        })
    }

    fn force(&self) -> std::result::Result<Option<bool>, Fault> {
        self.params.parse("force")
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn stat(at: At) -> Result<Json<VolumeEntry>> {
    let path = at.path;
    let entry = at.content.run(move |_, tree| tree.stat(&path)).await?;
    Ok(Json(wire(entry)))
}

async fn set(
    at: At,
    OptionalBody(request): OptionalBody<VolumeAttributes>,
) -> Result<Json<VolumeEntry>> {
    let VolumeAttributes { uid, gid, mode } = request;
    let (path, set) = (at.path, Attributes { uid, gid, mode });
    let entry = at.content.run(move |_, tree| tree.set(&path, set)).await?;
    Ok(Json(wire(entry)))
}

async fn remove(at: At) -> Result<StatusCode> {
    let path = at.path;
    let removed = at.content.run(move |all, tree| all.remove(tree, &path));
    removed.await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list(at: At) -> Result<Json<Vec<VolumeEntry>>> {
    let depth = at.params.parse::<u32>("depth")?.unwrap_or(1);
    let path = at.path;
    let listed = at
        .content
        .run(move |_, tree| tree.list(&path, depth))
        .await?;
    Ok(Json(listed.into_iter().map(wire).collect()))
}

async fn make_dir(at: At) -> Result<(StatusCode, Json<VolumeEntry>)> {
    let set = at.attributes()?;
    let parents = parents(at.force()?);
    let path = at.path;
    let made = at
        .content
        .run(move |_, tree| tree.make_dir(&path, set, parents));
    Ok((StatusCode::CREATED, Json(wire(made.await?))))
}

async fn read(at: At) -> Result<Response> {
    let path = at.path;
    let (file, entry) = at.content.run(move |_, tree| tree.read(&path)).await?;
    let file = tokio::fs::File::from_std(file);
    // A file that grows meanwhile does not make the answer longer than it said.
    let file = tokio::io::AsyncReadExt::take(file, entry.size);
    let mut response = Response::new(Body::from_stream(ReaderStream::with_capacity(file, CHUNK)));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_LENGTH, entry.size.into());
    Ok(response)
}

/// A file that is there is replaced unless the client says no.
async fn write(at: At, body: Body) -> Result<(StatusCode, Json<VolumeEntry>)> {
    let set = at.attributes()?;
    let force = at.force()?;
    let replace = match force {
        Some(false) => Replace::No,
        Some(true) | None => Replace::Yes,
    };
    let (content, path) = (at.content, at.path);
    let begun = content.run(move |all, tree| all.upload(tree, &path, set, parents(force), replace));
    let mut upload = begun.await?;
    let mut body = Limited::new(body, FILE_BYTES_MAX).into_data_stream();
    let mut waiting = Vec::new();
    while let Some(bytes) = body.next().await {
        let bytes: Bytes = bytes.map_err(|error| broken(&*error))?;
        waiting.extend_from_slice(&bytes);
        if waiting.len() >= CHUNK {
            upload = append(&content, upload, std::mem::take(&mut waiting)).await?;
        }
    }
    upload = append(&content, upload, waiting).await?;
    let entry = content.run(move |_, tree| upload.commit(tree)).await?;
    Ok((StatusCode::CREATED, Json(wire(entry))))
}

async fn append(
    content: &VolumeContent,
    mut upload: Upload,
    bytes: Vec<u8>,
) -> std::result::Result<Upload, Fault> {
    let write = move |_: &_, _: &_| upload.write(&bytes).map(|()| upload);
    content.run(write).await
}

fn broken(error: &(dyn std::error::Error + 'static)) -> Fault {
    if error.is::<http_body_util::LengthLimitError>() {
        let text = format!("a file has at most {FILE_BYTES_MAX} bytes");
        return Fault::new(Code::TooLarge, text);
    }
    Fault::new(Code::InvalidArgument, "the request broke off")
}

fn parents(force: Option<bool>) -> Parents {
    match force {
        Some(true) => Parents::Made,
        Some(false) | None => Parents::Needed,
    }
}

fn wire(entry: Entry) -> VolumeEntry {
    VolumeEntry {
        name: entry.name,
        kind: match entry.kind {
            EntryKind::File => "file",
            EntryKind::Directory => "directory",
            EntryKind::Symlink => "symlink",
            EntryKind::Other => "unknown",
        },
        path: entry.path,
        size: entry.size,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        atime: time(entry.accessed),
        mtime: time(entry.modified),
        ctime: time(entry.changed),
        target: entry.target,
    }
}

fn time(at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(millis).to_rfc3339()
}
