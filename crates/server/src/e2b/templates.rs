//! Templates: lists, details, removal.

use axum::extract::State;
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use woodfrog_engine::TemplateView;
use woodfrog_types::key::Principal;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::page::PageRequest;
use woodfrog_types::{Code, Fault, SnapshotId};
use woodfrog_wire::e2b::template::{
    Template, TemplateAlias, TemplateUpdate, TemplateUpdated, TemplateWithBuilds,
};

use super::error::Result;
use super::extract::{OptionalBody, Params, Segment, next_token};
use super::routes::Routes;
use super::snapshots;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/templates", list_v1)
        .get("/v2/templates", list_v2)
        .get("/default-templates", list_default)
        .get("/templates/{id}", fetch)
        .patch("/templates/{id}", update_v1)
        .patch("/v2/templates/{id}", update_v2)
        .delete("/templates/{id}", delete)
        .get("/templates/aliases/{alias}", alias)
}

/// Items of a list that has no pages.
const UNPAGED_ITEMS_MAX: usize = 10_000;

async fn list_v1(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Vec<Template>>> {
    Ok(Json(everything(&app, &principal).await?))
}

async fn list_default(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Vec<Template>>> {
    let all = everything(&app, &principal).await?;
    Ok(Json(all.into_iter().filter(|entry| entry.public).collect()))
}

async fn everything(app: &App, principal: &Principal) -> std::result::Result<Vec<Template>, Fault> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let limit = PAGE_ITEMS_MAX;
        let page = app
            .engine
            .template_list(principal, PageRequest { limit, cursor })
            .await?;
        all.extend(page.items.iter().map(entry));
        cursor = page.next;
        if cursor.is_none() || all.len() >= UNPAGED_ITEMS_MAX {
            return Ok(all);
        }
    }
}

async fn list_v2(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    params: Params,
) -> Result<(HeaderMap, Json<Vec<Template>>)> {
    let page = app.engine.template_list(&principal, params.page()?).await?;
    let mut headers = HeaderMap::new();
    next_token(&mut headers, page.next.as_deref())?;
    Ok((headers, Json(page.items.iter().map(entry).collect())))
}

fn entry(view: &TemplateView) -> Template {
    Template::new(&view.template, view.current.as_ref())
}

async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segment(name): Segment,
    params: Params,
) -> Result<(HeaderMap, Json<TemplateWithBuilds>)> {
    let template = app
        .engine
        .template_resolve(&principal, &name)
        .await?
        .template;
    let builds = app
        .engine
        .build_list(&principal, &template.id, params.page()?)
        .await?;
    let mut headers = HeaderMap::new();
    next_token(&mut headers, builds.next.as_deref())?;
    Ok((
        headers,
        Json(TemplateWithBuilds::new(&template, &builds.items)),
    ))
}

async fn update_v1(
    app: State<App>,
    principal: Extension<Principal>,
    name: Segment,
    body: OptionalBody<TemplateUpdate>,
) -> Result<StatusCode> {
    update_v2(app, principal, name, body)
        .await
        .map(|_| StatusCode::OK)
}

/// Visibility is the only thing to update, and templates belong to one workspace or to the
/// server: a request that changes nothing succeeds.
async fn update_v2(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segment(name): Segment,
    OptionalBody(request): OptionalBody<TemplateUpdate>,
) -> Result<Json<TemplateUpdated>> {
    let template = app
        .engine
        .template_resolve(&principal, &name)
        .await?
        .template;
    let public = template.workspace.is_none();
    if request.public.is_some_and(|wanted| wanted != public) {
        let message = "changing a template's visibility is not supported by this server";
        return Err(Fault::new(Code::Unsupported, message).into());
    }
    let names = vec![template.name];
    Ok(Json(TemplateUpdated { names }))
}

async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segment(name): Segment,
) -> Result<StatusCode> {
    let is_snapshot = name.contains('/') || name.starts_with(SnapshotId::TAG);
    let deleted = match is_snapshot {
        true => snapshots::delete(&app, &principal, &name).await,
        false => app.engine.template_delete(&principal, &name).await,
    };
    match deleted {
        // E2B keeps snapshots among the templates; here both names are tried.
        Err(fault) if is_unknown(&fault) => match is_snapshot {
            true => app.engine.template_delete(&principal, &name).await,
            false => snapshots::delete(&app, &principal, &name).await,
        }
        .map_err(|second| if is_unknown(&second) { fault } else { second })?,
        done => done?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Whether nothing has the name.
fn is_unknown(fault: &Fault) -> bool {
    matches!(
        fault.code,
        Code::TemplateNotFound | Code::SnapshotNotFound | Code::InvalidArgument
    )
}

async fn alias(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segment(alias): Segment,
) -> Result<Json<TemplateAlias>> {
    let template = app
        .engine
        .template_resolve(&principal, &alias)
        .await?
        .template;
    Ok(Json(TemplateAlias {
        template_id: template.id.to_string(),
        public: template.workspace.is_none(),
    }))
}
