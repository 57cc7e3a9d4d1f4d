//! Tags of templates.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use woodfrog_types::Fault;
use woodfrog_types::key::Principal;
use woodfrog_wire::e2b::template::{
    self as wire, AssignTags, AssignedTags, RemoveTags, TemplateTag,
};

use super::error::Result;
use super::extract::{Body, Segment};
use super::routes::Routes;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .post("/templates/tags", assign)
        .delete("/templates/tags", remove)
        .get("/templates/{id}/tags", list)
}

/// Tags of one request.
const TAGS_MAX: usize = 100;

async fn assign(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(request): Body<AssignTags>,
) -> Result<(StatusCode, Json<AssignedTags>)> {
    check(&request.tags)?;
    let AssignTags { target, tags } = request;
    let view = app.engine.template_tag(&principal, &target, &tags).await?;
    let build_id = view.build.id.to_string();
    Ok((StatusCode::CREATED, Json(AssignedTags { build_id, tags })))
}

async fn remove(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(request): Body<RemoveTags>,
) -> Result<StatusCode> {
    check(&request.tags)?;
    app.engine
        .template_untag(&principal, &request.name, &request.tags)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segment(name): Segment,
) -> Result<Json<Vec<TemplateTag>>> {
    let view = app.engine.template_resolve(&principal, &name).await?;
    Ok(Json(wire::tags(&view.template)))
}

fn check(tags: &[String]) -> std::result::Result<(), Fault> {
    if tags.is_empty() || tags.len() > TAGS_MAX {
        return Err(Fault::invalid(
            "tags",
            format!("1 to {TAGS_MAX} tags are needed"),
        ));
    }
    Ok(())
}
