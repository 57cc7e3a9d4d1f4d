//! Routes of E2B that this version refuses: they answer 501 and say so, after the key was checked.

use axum::Extension;
use axum::extract::State;
use woodfrog_types::key::Principal;
use woodfrog_types::{Code, Fault};

use super::error::E2bError;
use super::extract::InPath;
use super::routes::Routes;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .post("/sandboxes/{id}/pause", on_sandbox)
        .post("/sandboxes/{id}/resume", on_sandbox)
        .post("/sandboxes/{id}/snapshots", on_sandbox)
        .post("/sandboxes/{id}/fork", on_sandbox)
        .get("/snapshots", snapshots)
        .get("/volumes", volumes)
        .post("/volumes", volumes)
        .get("/volumes/{id}", volumes)
        .delete("/volumes/{id}", volumes)
        .get("/secrets", secrets)
        .post("/secrets", secrets)
        .get("/secrets/{id}", secrets)
        .post("/secrets/{id}", secrets)
        .delete("/secrets/{id}", secrets)
}

/// A sandbox that does not exist is still 404: clients tell the two apart.
async fn on_sandbox(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
) -> E2bError {
    match app.engine.sandbox_fetch(&principal, &id).await {
        Ok(_) => not_yet("pausing, resuming, snapshotting and forking a sandbox"),
        Err(fault) => fault.into(),
    }
}

async fn snapshots() -> E2bError {
    not_yet("snapshots")
}

async fn volumes() -> E2bError {
    not_yet("volumes")
}

async fn secrets() -> E2bError {
    not_yet("secrets")
}

fn not_yet(what: &str) -> E2bError {
    Fault::new(Code::Unsupported, format!("not supported yet: {what}")).into()
}
