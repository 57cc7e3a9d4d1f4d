//! Changing a sandbox's network while it runs.

use axum::Extension;
use axum::extract::State;
use http::StatusCode;
use woodfrog_types::key::Principal;
use woodfrog_wire::e2b::network::Network;

use super::error::Result;
use super::extract::{InPath, OptionalBody};
use super::routes::Routes;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.put("/sandboxes/{id}/network", update)
}

async fn update(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    OptionalBody(request): OptionalBody<Network>,
) -> Result<StatusCode> {
    let view = super::sleep::running(&app, &principal, &id).await?;
    let spec = request.update(view.sandbox.network)?;
    app.engine.sandbox_network(&principal, &id, spec).await?;
    Ok(StatusCode::NO_CONTENT)
}
