//! Files of a sandbox.

mod content;
pub(super) mod range;
mod watch;

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_guest_client::GuestError;
use woodfrog_guest_client::proto::{
    self, EntryInfo, ListRequest, MkdirRequest, MoveRequest, PathRequest,
};
use woodfrog_types::key::Principal;
use woodfrog_wire::native::file::{
    Entry, EntryKind, ListQuery, Listing, Move, NewDirectory, PathQuery,
};
use woodfrog_wire::native::problem::Problem;

use super::extract::{InPath, Json as Body, Params};
use super::guest::{About, fault, lease, mode};
use super::problem::{Failure, Result};
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, remove))
        .routes(routes!(stat))
        .routes(routes!(make_directory))
        .routes(routes!(rename))
        .merge(content::routes())
        .merge(watch::routes())
}

fn failed(error: GuestError) -> Failure {
    fault(error, About::File).into()
}

fn at(path: String, user: Option<String>) -> PathRequest {
    PathRequest {
        path,
        user,
        xattr_prefix: None,
    }
}

/// A directory's entries.
#[utoipa::path(
    get, path = "/sandboxes/{id}/files", operation_id = "file_list", tag = "files",
    params(("id" = String, Path), ListQuery),
    responses((status = 200, body = Listing), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Params(query): Params<ListQuery>,
) -> Result<Json<Listing>> {
    let guest = lease(&app, &principal, &id).await?;
    let request = ListRequest {
        at: at(query.path, query.user),
        depth: query.depth.unwrap_or(1),
        max_entries: query.limit,
    };
    let listing = guest.list(request).await.map_err(failed)?;
    Ok(Json(Listing {
        items: listing.entries.into_iter().map(entry).collect(),
        truncated: listing.truncated,
    }))
}

/// One entry.
#[utoipa::path(
    get, path = "/sandboxes/{id}/files/stat", operation_id = "file_stat", tag = "files",
    params(("id" = String, Path), PathQuery),
    responses((status = 200, body = Entry), (status = "default", body = Problem))
)]
async fn stat(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Params(query): Params<PathQuery>,
) -> Result<Json<Entry>> {
    let guest = lease(&app, &principal, &id).await?;
    let found = guest
        .stat(at(query.path, query.user))
        .await
        .map_err(failed)?;
    Ok(Json(entry(found)))
}

/// Makes a directory and its parents.
#[utoipa::path(
    post, path = "/sandboxes/{id}/files/directories", operation_id = "file_make_directory",
    tag = "files", request_body = NewDirectory, params(("id" = String, Path)),
    responses((status = 201, body = Entry), (status = "default", body = Problem))
)]
async fn make_directory(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Body(request): Body<NewDirectory>,
) -> Result<(StatusCode, Json<Entry>)> {
    let wanted = MkdirRequest {
        mode: mode(request.mode.as_deref())?,
        at: at(request.path, request.user),
    };
    let guest = lease(&app, &principal, &id).await?;
    let made = guest.mkdir(wanted).await.map_err(failed)?;
    Ok((StatusCode::CREATED, Json(entry(made))))
}

/// Moves a file or directory.
#[utoipa::path(
    post, path = "/sandboxes/{id}/files/move", operation_id = "file_move", tag = "files",
    request_body = Move, params(("id" = String, Path)),
    responses((status = 200, body = Entry), (status = "default", body = Problem))
)]
async fn rename(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Body(request): Body<Move>,
) -> Result<Json<Entry>> {
    let guest = lease(&app, &principal, &id).await?;
    let wanted = MoveRequest {
        from: at(request.from, request.user),
        to: request.to,
    };
    let moved = guest.rename(wanted).await.map_err(failed)?;
    Ok(Json(entry(moved)))
}

/// Removes a file or a whole tree; nothing there is fine.
#[utoipa::path(
    delete, path = "/sandboxes/{id}/files", operation_id = "file_remove", tag = "files",
    params(("id" = String, Path), PathQuery),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn remove(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Params(query): Params<PathQuery>,
) -> Result<StatusCode> {
    let guest = lease(&app, &principal, &id).await?;
    guest
        .remove(at(query.path, query.user))
        .await
        .map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}

fn entry(info: EntryInfo) -> Entry {
    Entry {
        name: info.name,
        path: info.path,
        kind: match info.kind {
            proto::EntryKind::File => EntryKind::File,
            proto::EntryKind::Directory => EntryKind::Directory,
            proto::EntryKind::Symlink => EntryKind::Symlink,
            proto::EntryKind::Other => EntryKind::Other,
        },
        size: info.size,
        mode: format!("{:o}", info.mode & 0o7777),
        uid: info.uid,
        gid: info.gid,
        owner: info.owner,
        group: info.group,
        modified_at: info.mtime_ns / 1_000_000,
        target: info.link.map(|link| link.text),
    }
}
