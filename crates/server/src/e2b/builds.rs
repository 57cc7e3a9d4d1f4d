//! Building templates.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use woodfrog_engine::NewTemplate;
use woodfrog_types::key::Principal;
use woodfrog_types::{BuildId, Code, Fault, TemplateId};
use woodfrog_wire::e2b::template::{
    BuildInfo, BuildLogs, BuildStart, NewTemplate as NewTemplateBody, TemplateRequested,
};

use super::error::Result;
use super::extract::{Body, Params, Segments};
use super::routes::Routes;
use super::steps;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .post("/v3/templates", request)
        .post("/v2/templates/{id}/builds/{build}", start)
        .get("/templates/{id}/builds/{build}/status", status)
        .get("/templates/{id}/builds/{build}/logs", logs)
}

/// Log entries of one reply.
const LOG_ENTRIES_MAX: usize = 100;

async fn request(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(mut request): Body<NewTemplateBody>,
) -> Result<(StatusCode, Json<TemplateRequested>)> {
    let wanted = NewTemplate {
        name: request.take_name()?,
        resources: request.resources(),
        tags: request.tags.unwrap_or_default(),
    };
    let view = app.engine.template_request(&principal, wanted).await?;
    let reply = TemplateRequested::new(&view.template, &view.build);
    Ok((StatusCode::ACCEPTED, Json(reply)))
}

async fn start(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(template, build): Segments,
    Body(request): Body<BuildStart>,
) -> Result<StatusCode> {
    let (template, build) = ids(&app, &principal, &template, &build).await?;
    let instructions = steps::start_build(request)?;
    app.engine
        .template_build(&principal, &template, &build, instructions)
        .await?;
    Ok(StatusCode::ACCEPTED)
}

async fn status(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(template, build): Segments,
    params: Params,
) -> Result<Json<BuildInfo>> {
    let (template, build) = ids(&app, &principal, &template, &build).await?;
    // The state is read before the log: a final state then comes with nothing left out.
    let view = app
        .engine
        .build_fetch(&principal, &template, &build)
        .await?;
    let offset = params.parse("logsOffset")?.unwrap_or(0);
    let log = app
        .engine
        .build_log(&principal, &build, offset, log_limit(&params)?)
        .await?;
    Ok(Json(BuildInfo::new(view.build, log)))
}

async fn logs(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(template, build): Segments,
    params: Params,
) -> Result<Json<BuildLogs>> {
    let (template, build) = ids(&app, &principal, &template, &build).await?;
    app.engine
        .build_fetch(&principal, &template, &build)
        .await?;
    let offset = params.parse("cursor")?.unwrap_or(0);
    let log = app
        .engine
        .build_log(&principal, &build, offset, log_limit(&params)?)
        .await?;
    let logs = log.into_iter().map(Into::into).collect();
    Ok(Json(BuildLogs { logs }))
}

fn log_limit(params: &Params) -> std::result::Result<usize, Fault> {
    let limit = params.parse("limit")?.unwrap_or(LOG_ENTRIES_MAX);
    Ok(limit.min(LOG_ENTRIES_MAX))
}

/// The template may be named; the build is always an id.
async fn ids(
    app: &App,
    principal: &Principal,
    template: &str,
    build: &str,
) -> std::result::Result<(TemplateId, BuildId), Fault> {
    let build = build
        .parse()
        .map_err(|_| Fault::new(Code::BuildNotFound, "no such build of this template"))?;
    Ok((template_id(app, principal, template).await?, build))
}

/// The id of the template that a path names by id or name.
pub(super) async fn template_id(
    app: &App,
    principal: &Principal,
    text: &str,
) -> std::result::Result<TemplateId, Fault> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let view = app.engine.template_resolve(principal, text).await?;
    Ok(view.template.id)
}
