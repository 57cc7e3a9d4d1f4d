//! Uploads of the file archives that builds copy from.

use std::io;

use axum::body::Body;
use axum::extract::{OriginalUri, State};
use axum::{Extension, Json};
use futures_util::TryStreamExt;
use http::{HeaderMap, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use woodfrog_engine::FileSlot;
use woodfrog_types::key::Principal;
use woodfrog_types::{Code, Fault};
use woodfrog_wire::e2b::template::FileUpload;

use super::builds::template_id;
use super::error::Result;
use super::extract::{Segment, Segments};
use super::routes::Routes;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/templates/{id}/files/{hash}", slot)
        .public_put("/templates/uploads/{token}", upload)
}

/// Bytes of one archive.
const ARCHIVE_BYTES_MAX: usize = 16 << 30;

async fn slot(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(template, hash): Segments,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<FileUpload>)> {
    let template = template_id(&app, &principal, &template).await?;
    let slot = app
        .engine
        .template_file(&principal, &template, &hash)
        .await?;
    let url = match slot {
        FileSlot::Present => None,
        FileSlot::Upload { token } => {
            let base = base_url(&app, &uri, &headers)?;
            Some(format!("{base}/templates/uploads/{token}"))
        }
    };
    let present = url.is_none();
    Ok((StatusCode::CREATED, Json(FileUpload { present, url })))
}

/// The one-time token in the path is the credential: clients send no key here.
async fn upload(State(app): State<App>, Segment(token): Segment, body: Body) -> Result<StatusCode> {
    let chunks = Limited::new(body, ARCHIVE_BYTES_MAX)
        .into_data_stream()
        .map_err(io::Error::other);
    app.engine.template_file_upload(&token, chunks).await?;
    Ok(StatusCode::OK)
}

/// Where the client reached this server, to be sent back to it.
fn base_url(app: &App, uri: &Uri, headers: &HeaderMap) -> std::result::Result<String, Fault> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = uri
        .authority()
        .map(|authority| authority.as_str())
        .or_else(|| header("host"))
        .ok_or_else(|| Fault::new(Code::InvalidArgument, "the Host header is missing"))?;
    let in_domain = app.options.domain.as_ref().is_some_and(|domain| {
        host.strip_suffix(domain.as_str())
            .is_some_and(|rest| rest.ends_with('.'))
    });
    let scheme = match (header("x-forwarded-proto"), uri.scheme_str()) {
        (Some("https"), _) => "https",
        (Some(_), _) => "http",
        (None, Some(scheme)) => scheme,
        (None, None) if in_domain => "https",
        (None, None) => "http",
    };
    Ok(format!("{scheme}://{host}"))
}
