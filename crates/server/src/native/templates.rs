//! Templates and their builds.

mod import;
mod layers;
mod security;

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::TemplateView;
use woodfrog_types::key::Principal;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::page::PageRequest;
use woodfrog_types::template::DEFAULT_TAG;
use woodfrog_types::{BuildId, Code, Fault, TemplateId};
use woodfrog_wire::native::page::{Page, PageQuery};
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::sandbox::EventQuery;
use woodfrog_wire::native::template::{Build, BuildLog, Template};

use super::extract::{Params, Segments};
use super::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(fetch, delete))
        .routes(routes!(builds))
        .routes(routes!(build))
        .routes(routes!(log))
        .routes(routes!(prepare))
        .merge(security::routes())
        .merge(import::routes())
        .merge(layers::routes())
}

/// The workspace's templates and the server's, by name.
#[utoipa::path(
    get, path = "/templates", operation_id = "template_list", tag = "templates",
    params(PageQuery),
    responses((status = 200, body = Page<Template>), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<Template>>> {
    let page = app
        .engine
        .template_list(&principal, query.request()?)
        .await?;
    Ok(Json(page.map(reply).into()))
}

/// One template, by id or name.
#[utoipa::path(
    get, path = "/templates/{name}", operation_id = "template_fetch", tag = "templates",
    params(("name" = String, Path)),
    responses((status = 200, body = Template), (status = "default", body = Problem))
)]
async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(name): Segments<String>,
) -> Result<Json<Template>> {
    let view = app.engine.template_resolve(&principal, &name).await?;
    Ok(Json(reply(view)))
}

/// Removes a template and its builds; `name:tag` removes that tag only.
#[utoipa::path(
    delete, path = "/templates/{name}", operation_id = "template_delete", tag = "templates",
    params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(name): Segments<String>,
) -> Result<StatusCode> {
    app.engine.template_delete(&principal, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A template's builds, newest first.
#[utoipa::path(
    get, path = "/templates/{name}/builds", operation_id = "build_list", tag = "templates",
    params(("name" = String, Path), PageQuery),
    responses((status = 200, body = Page<Build>), (status = "default", body = Problem))
)]
async fn builds(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(name): Segments<String>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<Build>>> {
    let page = query.request()?;
    let template = template_id(&app, &principal, &name).await?;
    let builds = app.engine.build_list(&principal, &template, page).await?;
    Ok(Json(builds.into()))
}

/// One build.
#[utoipa::path(
    get, path = "/templates/{name}/builds/{build}", operation_id = "build_fetch",
    tag = "templates", params(("name" = String, Path), ("build" = String, Path)),
    responses((status = 200, body = Build), (status = "default", body = Problem))
)]
async fn build(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments((name, build)): Segments<(String, String)>,
) -> Result<Json<Build>> {
    let (template, build) = ids(&app, &principal, &name, &build).await?;
    let view = app
        .engine
        .build_fetch(&principal, &template, &build)
        .await?;
    Ok(Json(view.build.into()))
}

/// A build's log from an offset (`after`).
#[utoipa::path(
    get, path = "/templates/{name}/builds/{build}/log", operation_id = "build_log",
    tag = "templates", params(("name" = String, Path), ("build" = String, Path), EventQuery),
    responses((status = 200, body = BuildLog), (status = "default", body = Problem))
)]
async fn log(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments((name, build)): Segments<(String, String)>,
    Params(query): Params<EventQuery>,
) -> Result<Json<BuildLog>> {
    let (template, build) = ids(&app, &principal, &name, &build).await?;
    app.engine
        .build_fetch(&principal, &template, &build)
        .await?;
    let (after, limit) = (query.after.unwrap_or(0), query.limit()?);
    let lines = app
        .engine
        .build_log(&principal, &build, after, limit)
        .await?;
    Ok(Json(BuildLog {
        next: after + lines.len() as u64,
        items: lines.into_iter().map(Into::into).collect(),
    }))
}

/// The build that decides whether a template can be used: that of its default tag (or `:tag`),
/// else its newest. The server's own `base` is made if it is not there; poll the build.
#[utoipa::path(
    post, path = "/templates/{name}/prepare", operation_id = "template_prepare",
    tag = "templates", params(("name" = String, Path)),
    responses((status = 202, body = Build), (status = "default", body = Problem))
)]
async fn prepare(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(name): Segments<String>,
) -> Result<(StatusCode, Json<Build>)> {
    let resolved = app.engine.template_resolve(&principal, &name).await;
    let builtin = match &resolved {
        Ok(view) => view.template.workspace.is_none(),
        Err(fault) => fault.code == Code::TemplateNotFound && name == BASE,
    };
    if builtin {
        let view = app.engine.template_base().await?;
        return Ok((StatusCode::ACCEPTED, Json(view.build.into())));
    }
    let build = wanted_build(&app, &principal, &name, resolved?).await?;
    Ok((StatusCode::ACCEPTED, Json(build)))
}

/// The server's own template.
const BASE: &str = "base";

async fn wanted_build(
    app: &App,
    principal: &Principal,
    name: &str,
    view: TemplateView,
) -> std::result::Result<Build, Fault> {
    let template = view.template;
    let tag = name.split_once(':').map(|(_, tag)| tag);
    if let Some(id) = template.tags.get(tag.unwrap_or(DEFAULT_TAG)) {
        let found = app.engine.build_fetch(principal, &template.id, id).await?;
        return Ok(found.build.into());
    }
    let newest = PageRequest {
        limit: PAGE_ITEMS_MAX,
        cursor: None,
    };
    let builds = app
        .engine
        .build_list(principal, &template.id, newest)
        .await?
        .items;
    builds
        .into_iter()
        .find(|build| tag.is_none_or(|tag| build.tags.iter().any(|known| known == tag)))
        .map(Into::into)
        .ok_or_else(|| {
            let message = format!("template '{name}' has no build; build it first");
            Fault::new(Code::TemplateNotReady, message)
        })
}

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

async fn template_id(
    app: &App,
    principal: &Principal,
    name: &str,
) -> std::result::Result<TemplateId, Fault> {
    let view = app.engine.template_resolve(principal, name).await?;
    Ok(view.template.id)
}

fn reply(view: TemplateView) -> Template {
    Template::new(view.template, view.current)
}
