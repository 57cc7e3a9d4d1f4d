//! Files that runs left.

use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use futures_util::TryStreamExt;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_core::artifact::{BYTES_DEFAULT, EXCLUDED, FILES_DEFAULT};
use woodfrog_types::artifact::{Artifact as Stored, ArtifactFilter};
use woodfrog_types::key::Principal;
use woodfrog_types::run::ArtifactPolicy;
use woodfrog_types::{ArtifactId, Fault};
use woodfrog_wire::native::artifact::{Artifact, ArtifactQuery, NewArtifactPolicy, NewReview};
use woodfrog_wire::native::page::{Page, PageQuery};
use woodfrog_wire::native::problem::Problem;

use super::extract::{Json as Body, Params, Segments};
use super::files::range::{self, Wanted};
use super::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(of_run))
        .routes(routes!(fetch, remove))
        .routes(routes!(content))
        .routes(routes!(review))
}

/// Artifacts of the workspace, newest first.
#[utoipa::path(
    get, path = "/artifacts", operation_id = "artifact_list", tag = "artifacts",
    params(ArtifactQuery),
    responses((status = 200, body = Page<Artifact>), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<ArtifactQuery>,
) -> Result<Json<Page<Artifact>>> {
    let filter = ArtifactFilter {
        run: query.run.as_deref().map(super::runs::run_id).transpose()?,
        thread: query.thread,
        state: query.review.map(Into::into),
    };
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    };
    page_of(&app, &principal, &filter, page).await
}

/// Files that a run created or changed, newest first. There are none before the run ends.
#[utoipa::path(
    get, path = "/runs/{id}/artifacts", operation_id = "run_artifacts", tag = "artifacts",
    params(("id" = String, Path), PageQuery),
    responses((status = 200, body = Page<Artifact>), (status = "default", body = Problem))
)]
async fn of_run(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<Artifact>>> {
    let run = app
        .runs
        .show(&principal, &super::runs::run_id(&id)?)
        .await?;
    let filter = ArtifactFilter {
        run: Some(run.run.id),
        ..ArtifactFilter::default()
    };
    page_of(&app, &principal, &filter, page).await
}

async fn page_of(
    app: &App,
    principal: &Principal,
    filter: &ArtifactFilter,
    page: PageQuery,
) -> Result<Json<Page<Artifact>>> {
    let listed = app
        .runs
        .artifacts(principal, filter, &page.request()?)
        .await?;
    Ok(Json(listed.into()))
}

/// One artifact.
#[utoipa::path(
    get, path = "/artifacts/{id}", operation_id = "artifact_fetch", tag = "artifacts",
    params(("id" = String, Path)),
    responses((status = 200, body = Artifact), (status = "default", body = Problem))
)]
async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
) -> Result<Json<Artifact>> {
    Ok(Json(stored(&app, &principal, &id).await?.into()))
}

/// Removes an artifact with its bytes.
#[utoipa::path(
    delete, path = "/artifacts/{id}", operation_id = "artifact_delete", tag = "artifacts",
    params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn remove(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
) -> Result<StatusCode> {
    app.runs.artifact_delete(&principal, &parse(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Says what is thought of an artifact. Admins may, as often as they change their mind.
#[utoipa::path(
    post, path = "/artifacts/{id}/review", operation_id = "artifact_review", tag = "artifacts",
    params(("id" = String, Path)), request_body = NewReview,
    responses((status = 200, body = Artifact), (status = "default", body = Problem))
)]
async fn review(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Body(request): Body<NewReview>,
) -> Result<Json<Artifact>> {
    let (id, state) = (parse(&id)?, request.review.into());
    let reviewed = app.runs.artifact_review(&principal, &id, state).await?;
    Ok(Json(reviewed.into()))
}

/// An artifact's bytes; one `Range` is honoured. `ETag` is its SHA-256: `If-None-Match` saves
/// another transfer, `If-Range` goes on with one.
#[utoipa::path(
    get, path = "/artifacts/{id}/content", operation_id = "artifact_content", tag = "artifacts",
    params(
        ("id" = String, Path), ("Range" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header), ("If-Range" = Option<String>, Header)
    ),
    responses(
        (status = 200, body = String, content_type = "application/octet-stream"),
        (status = 206, body = String, content_type = "application/octet-stream"),
        (status = 304), (status = 416), (status = "default", body = Problem)
    )
)]
async fn content(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let artifact = stored(&app, &principal, &id).await?;
    let tag = format!("\"{}\"", artifact.digest);
    let given = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if given(header::IF_NONE_MATCH).is_some_and(|tags| matches_tag(tags, &tag)) {
        return Ok(reply(
            &artifact,
            &tag,
            StatusCode::NOT_MODIFIED,
            HttpBody::empty(),
        ));
    }
    let size = artifact.size;
    // A part of something else is of no use.
    let same = given(header::IF_RANGE).is_none_or(|of| of == tag);
    let (status, part) = match range::parse(given(header::RANGE).filter(|_| same), size) {
        Wanted::All => (StatusCode::OK, 0..size),
        Wanted::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Wanted::Unsatisfiable => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let mut response = reply(&artifact, &tag, status, HttpBody::empty());
            set(
                &mut response,
                header::CONTENT_RANGE,
                &format!("bytes */{size}"),
            );
            return Ok(response);
        }
    };
    let bytes = app.runs.artifact_content(&artifact, part.clone()).await?;
    let body = HttpBody::from_stream(bytes.map_err(std::io::Error::other));
    let mut response = reply(&artifact, &tag, status, body);
    let length = part.end - part.start;
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length.into());
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        set(&mut response, header::CONTENT_RANGE, &range);
    }
    Ok(response)
}

/// The head of an answer. What a run wrote is never shown as a page of this server's.
fn reply(artifact: &Stored, tag: &str, status: StatusCode, body: HttpBody) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let name = utf8_percent_encode(&artifact.title, NON_ALPHANUMERIC);
    let attachment = format!("attachment; filename*=UTF-8''{name}");
    for (name, value) in [
        (header::CONTENT_TYPE, artifact.content_type.as_str()),
        (header::CONTENT_DISPOSITION, &attachment),
        (header::ETAG, tag),
        (header::ACCEPT_RANGES, "bytes"),
        (header::CACHE_CONTROL, "private, no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        set(&mut response, name, value);
    }
    response
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

fn matches_tag(tags: &str, tag: &str) -> bool {
    let weak = |one: &str| one.trim().trim_start_matches("W/").to_owned();
    tags.trim() == "*" || tags.split(',').any(|one| weak(one) == tag)
}

fn parse(id: &str) -> std::result::Result<ArtifactId, Fault> {
    id.parse()
        .map_err(|_| woodfrog_runs::artifact_not_found(id))
}

async fn stored(app: &App, principal: &Principal, id: &str) -> std::result::Result<Stored, Fault> {
    app.runs.artifact(principal, &parse(id)?).await
}

/// The policy that is meant.
pub(super) fn policy(wanted: NewArtifactPolicy) -> ArtifactPolicy {
    let usual = match wanted.exclude_usual.unwrap_or(true) {
        true => EXCLUDED,
        false => &[],
    };
    let usual = usual.iter().map(|pattern| (*pattern).to_owned());
    ArtifactPolicy {
        paths: wanted.paths,
        exclude: usual.chain(wanted.exclude).collect(),
        max_bytes: wanted.max_bytes.unwrap_or(BYTES_DEFAULT),
        max_files: wanted.max_files.unwrap_or(FILES_DEFAULT),
    }
}
