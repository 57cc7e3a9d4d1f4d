//! Templates from outside: a root file system, an OCI layout, an image in a registry.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::{Extension, Json};
use futures_util::StreamExt;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::{BuildView, ImportSource};
use woodfrog_types::key::Principal;
use woodfrog_types::template::BuildState;
use woodfrog_types::{Code, Fault};
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::template::{Build, RegistryImport};

use crate::input::{json_bytes, parse_json};
use crate::native::extract::{Params, Segments};
use crate::native::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(import))
}

/// Bytes of one upload.
const UPLOAD_BYTES_MAX: usize = 64 << 30;
/// Between two looks at a build that reads an upload.
const LOOK: Duration = Duration::from_millis(500);

/// What the body is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// JSON that names an image in a registry.
    #[default]
    Registry,
    /// A tar archive of a root file system.
    Rootfs,
    /// A tar archive of an OCI image layout.
    Oci,
}

#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ImportQuery {
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// Makes a template (or a new build of one) from an image. It goes on in the background: poll
/// the build.
#[utoipa::path(
    post, path = "/templates/{name}/import", operation_id = "template_import", tag = "templates",
    request_body(content(
        (RegistryImport = "application/json"),
        (String = "application/x-tar"),
    )),
    params(("name" = String, Path), ImportQuery),
    responses((status = 202, body = Build), (status = "default", body = Problem))
)]
async fn import(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(name): Segments<String>,
    Params(query): Params<ImportQuery>,
    request: Request,
) -> Result<(StatusCode, Json<Build>)> {
    let body = request.into_body();
    let view = match query.format {
        Format::Registry => {
            let wanted: RegistryImport = parse_json(&json_bytes(body).await?)?;
            let source = ImportSource::Registry {
                reference: wanted.image,
                username: wanted.username,
                password: wanted.password,
            };
            app.engine
                .template_import(&principal, &name, source)
                .await?
        }
        Format::Rootfs => upload(&app, &principal, &name, body, ImportSource::RootfsTar).await?,
        Format::Oci => upload(&app, &principal, &name, body, ImportSource::OciLayout).await?,
    };
    Ok((StatusCode::ACCEPTED, Json(view.build.into())))
}

/// A file that is removed with its last user.
struct Spooled(PathBuf);

impl Drop for Spooled {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, "an upload could not be removed");
        }
    }
}

async fn upload(
    app: &App,
    principal: &Principal,
    name: &str,
    body: Body,
    source: impl FnOnce(PathBuf) -> ImportSource,
) -> std::result::Result<BuildView, Fault> {
    let spooled = spool(&app.spool, body).await?;
    let source = source(spooled.0.clone());
    let view = app.engine.template_import(principal, name, source).await?;
    tokio::spawn(keep(app.clone(), principal.clone(), view.clone(), spooled));
    Ok(view)
}

/// Keeps the upload until the build that reads it is over.
async fn keep(app: App, principal: Principal, view: BuildView, spooled: Spooled) {
    loop {
        tokio::time::sleep(LOOK).await;
        let found = app
            .engine
            .build_fetch(&principal, &view.template.id, &view.build.id)
            .await;
        match found.map(|view| view.build.state) {
            Ok(BuildState::Waiting | BuildState::Building) => {}
            Ok(BuildState::Ready(_) | BuildState::Failed { .. }) => break,
            Err(fault) if fault.code.retryable() => {}
            Err(_) => break,
        }
    }
    drop(spooled);
}

async fn spool(dir: &Path, body: Body) -> std::result::Result<Spooled, Fault> {
    let path = dir.join(format!("import-{}", uuid::Uuid::new_v4().simple()));
    let mut file = tokio::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .await
        .map_err(Fault::internal)?;
    let spooled = Spooled(path);
    let mut chunks = Limited::new(body, UPLOAD_BYTES_MAX).into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            let message = "the upload could not be read to its end, or is too large";
            Fault::new(Code::InvalidArgument, message).because(error)
        })?;
        file.write_all(&chunk).await.map_err(full)?;
    }
    file.flush().await.map_err(full)?;
    Ok(spooled)
}

fn full(error: std::io::Error) -> Fault {
    if error.kind() == std::io::ErrorKind::StorageFull {
        let message = "the server's disk has no room for the upload";
        return Fault::new(Code::NoSpace, message).because(error);
    }
    Fault::internal(error)
}
