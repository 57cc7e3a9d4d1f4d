//! What a template's sandboxes may do beyond the default.

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_types::key::Principal;
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::template::{SetSecurity, TemplateSecurity};

use crate::native::extract::{Json as Body, Segments};
use crate::native::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(set))
}

/// Sets what new sandboxes of a template's finished build (that of `:tag`, else of its default
/// tag) may do beyond the default; what is not given is off. Running sandboxes keep theirs. Later
/// builds of the template, and builds from it, start with all off. The server's own templates need
/// a key with admin scope.
#[utoipa::path(
    put, path = "/templates/{name}/security", operation_id = "template_security",
    tag = "templates", params(("name" = String, Path)), request_body = SetSecurity,
    responses((status = 200, body = TemplateSecurity), (status = "default", body = Problem))
)]
async fn set(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(name): Segments<String>,
    Body(wanted): Body<SetSecurity>,
) -> Result<Json<TemplateSecurity>> {
    let engine = &app.engine;
    let set = engine.template_security(&principal, &name, wanted.into());
    let view = set.await?;
    Ok(Json(TemplateSecurity::new(view.template.name, view.build)))
}
