//! The OpenAPI document.

use axum::Json;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use woodfrog_wire::native::problem::Problem;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Woodfrog",
        description = "Sandboxes for AI agents. Errors are `application/problem+json`; times are \
                       milliseconds since the epoch; sizes are bytes.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/api/v1")),
    components(schemas(Problem)),
    security(("key" = []), ("bearer" = []))
)]
struct Document;

/// The document of every route of this face.
pub fn document() -> OpenApi {
    let (_, paths) = super::routes().split_for_parts();
    let mut document = Document::openapi();
    document.merge(super::exec::Schemas::openapi());
    document.merge(paths);
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(
        "key",
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))),
    );
    components.add_security_scheme(
        "bearer",
        SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
    );
    document
}

pub(super) async fn serve() -> Json<OpenApi> {
    Json(document())
}
