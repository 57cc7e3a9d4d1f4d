//! Snapshots: taken of sandboxes, listed, and removed as templates are.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use woodfrog_engine::CheckpointRequest;
use woodfrog_types::key::Principal;
use woodfrog_types::snapshot::{Snapshot as Record, SnapshotContent, SnapshotFilter};
use woodfrog_types::{Code, Fault, SandboxId};
use woodfrog_wire::e2b::snapshot::{NewSnapshot, Reference, Snapshot, not_found};

use super::error::Result;
use super::extract::{InPath, OptionalBody, Params, next_token, sandbox_id};
use super::routes::Routes;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .post("/sandboxes/{id}/snapshots", create)
        .get("/snapshots", list)
}

async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    OptionalBody(request): OptionalBody<NewSnapshot>,
) -> Result<(StatusCode, Json<Snapshot>)> {
    let content = request.content();
    let taken = match request.name(&principal.workspace)? {
        None => take(&app, &principal, &id, None, content).await?,
        Some(name) => replace(&app, &principal, &id, name, content).await?,
    };
    Ok((StatusCode::CREATED, Json((&taken).into())))
}

async fn take(
    app: &App,
    principal: &Principal,
    id: &SandboxId,
    name: Option<String>,
    content: SnapshotContent,
) -> std::result::Result<Record, Fault> {
    let wanted = CheckpointRequest {
        name,
        content,
        labels: BTreeMap::new(),
    };
    app.engine.sandbox_checkpoint(principal, id, wanted).await
}

/// A name that is taken moves to the new snapshot; the one that had it is gone then.
async fn replace(
    app: &App,
    principal: &Principal,
    id: &SandboxId,
    name: String,
    content: SnapshotContent,
) -> std::result::Result<Record, Fault> {
    let first = take(app, principal, id, Some(name.clone()), content).await;
    match first {
        Err(fault) if fault.code == Code::AlreadyExists => {}
        done => return done,
    }
    app.engine.snapshot_delete(principal, &name).await?;
    take(app, principal, id, Some(name), content).await
}

async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    params: Params,
) -> Result<(HeaderMap, Json<Vec<Snapshot>>)> {
    let page = params.page()?;
    let mut headers = HeaderMap::new();
    let mut filter = SnapshotFilter::default();
    if let Some(text) = params.get("sandboxID") {
        match sandbox_id(text) {
            Ok(id) => filter.source = Some(id),
            Err(_) => return Ok((headers, Json(Vec::new()))),
        }
    }
    match params
        .get("name")
        .map(|name| Reference::parse(name, &principal.workspace))
    {
        None => {}
        Some(Reference::Name(name)) => filter.name = Some(name),
        Some(Reference::Elsewhere) => return Ok((headers, Json(Vec::new()))),
        Some(Reference::Id(id)) => {
            let found = app.engine.snapshot_fetch(&principal, id.as_str()).await;
            let found = found.ok().filter(|found| shown(found, &filter));
            return Ok((headers, Json(found.iter().map(Into::into).collect())));
        }
    }
    let page = app.engine.snapshot_list(&principal, filter, page).await?;
    next_token(&mut headers, page.next.as_deref())?;
    Ok((headers, Json(page.items.iter().map(Into::into).collect())))
}

/// Whether a snapshot that was asked for by its id is one that the list has.
fn shown(snapshot: &Record, filter: &SnapshotFilter) -> bool {
    use woodfrog_types::snapshot::SnapshotPurpose;
    let source = filter.source.as_ref();
    matches!(snapshot.purpose, SnapshotPurpose::Checkpoint)
        && source.is_none_or(|source| *source == snapshot.source)
}

/// What a create request's template means: other forms of a snapshot's name become the one that
/// the engine takes.
pub(super) fn source(principal: &Principal, text: String) -> String {
    let reference = Reference::parse(&text, &principal.workspace);
    reference.into_text().unwrap_or(text)
}

/// Removes the snapshot that `text` names, in any form.
pub(super) async fn delete(
    app: &App,
    principal: &Principal,
    text: &str,
) -> std::result::Result<(), Fault> {
    let reference = Reference::parse(text, &principal.workspace).into_text();
    let reference = reference.ok_or_else(|| not_found(text))?;
    app.engine.snapshot_delete(principal, &reference).await
}
