//! Files of the sandbox, as its default user has them.

use axum::extract::Query;
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use jiff::tz::Offset;
use woodfrog_engine::GuestLease;
use woodfrog_guest_client::GuestError;
use woodfrog_guest_client::proto::{
    EntryInfo, EntryKind, ErrorCode, ListRequest, MkdirRequest, MoveRequest, PathRequest,
};
use woodfrog_types::{Code, Fault};
use woodfrog_wire::agent::fs::{
    DeleteQuery, DirectoryQuery, Done, Entry, EntryType, Move, Moved, PathQuery, Stat,
};
use woodfrog_wire::agent::problem::{Kind, Problem};

use super::AgentHost;
use super::extract::Json as JsonBody;
use super::problem::{Failure, Result};

mod batch;
mod content;
mod place;

pub(super) use place::at;

/// Entries of one directory; a larger one is refused.
const ENTRIES_MAX: u32 = 100_000;

pub(super) fn routes() -> Router {
    Router::new()
        .route("/v1/fs/entries", get(entries))
        .route("/v1/fs/stat", get(stat))
        .route("/v1/fs/mkdir", post(mkdir))
        .route("/v1/fs/move", post(rename))
        .route("/v1/fs/entry", delete(remove))
        .merge(content::routes())
        .merge(batch::routes())
}

/// The failure for a path that the guest refused.
fn failed(error: GuestError) -> Failure {
    match error.code() {
        Some(ErrorCode::NotFound) => {
            let said = error.to_string();
            let path = said.strip_prefix("path '");
            let path = path.and_then(|rest| rest.strip_suffix("' does not exist"));
            let path = path.unwrap_or(&said);
            Problem::new(Kind::NotFound, format_args!("path not found: {path}")).into()
        }
        _ => error.into(),
    }
}

fn kind(info: &EntryInfo) -> EntryKind {
    // A link is what it leads to.
    let target = info.link.as_ref().and_then(|link| link.target.as_ref());
    target.map_or(info.kind, |target| target.kind)
}

fn entry_type(info: &EntryInfo) -> EntryType {
    match kind(info) {
        EntryKind::Directory => EntryType::Directory,
        EntryKind::File | EntryKind::Symlink | EntryKind::Other => EntryType::File,
    }
}

fn size(info: &EntryInfo) -> u64 {
    let target = info.link.as_ref().and_then(|link| link.target.as_ref());
    target.map_or(info.size, |target| target.size)
}

fn modified(info: &EntryInfo) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(info.mtime_ns.into()).ok()?;
    Some(time.display_with_offset(Offset::UTC).to_string())
}

/// What is at a path, links followed.
async fn found(guest: &GuestLease, at: PathRequest) -> Result<EntryInfo> {
    let info = guest.stat(at).await.map_err(failed)?;
    let broken = |info: &EntryInfo| info.link.as_ref().is_some_and(|l| l.target.is_none());
    if broken(&info) {
        let message = format!("path not found: {} (a broken link)", info.path);
        return Err(Problem::new(Kind::NotFound, message).into());
    }
    Ok(info)
}

async fn entries(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<DirectoryQuery>,
) -> Result<Json<Vec<Entry>>> {
    let request = ListRequest {
        at: at(query.path.as_deref().unwrap_or("."))?,
        depth: 1,
        max_entries: Some(ENTRIES_MAX),
    };
    let guest = host.guest().await?;
    let listing = guest.list(request).await.map_err(failed)?;
    if listing.truncated {
        let message = format!("the directory has more than {ENTRIES_MAX} entries");
        return Err(Fault::new(Code::TooLarge, message).into());
    }
    let entry = |info: EntryInfo| Entry {
        entry_type: entry_type(&info),
        size: size(&info),
        modified: modified(&info),
        name: info.name,
        path: info.path,
    };
    Ok(Json(listing.entries.into_iter().map(entry).collect()))
}

async fn stat(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<PathQuery>,
) -> Result<Json<Stat>> {
    let at = at(&query.path)?;
    let info = found(&host.guest().await?, at).await?;
    Ok(Json(Stat {
        entry_type: entry_type(&info),
        size: size(&info),
        modified: modified(&info),
        path: info.path,
    }))
}

/// Makes a directory with its parents; one that is there is fine.
async fn mkdir(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<PathQuery>,
) -> Result<Json<Done>> {
    let at = at(&query.path)?;
    let guest = host.guest().await?;
    let path = make_directory(&guest, at).await?;
    Ok(Json(Done { path }))
}

async fn make_directory(guest: &GuestLease, at: PathRequest) -> Result<String> {
    let request = MkdirRequest {
        at: at.clone(),
        mode: None,
    };
    match guest.mkdir(request).await {
        Ok(made) => Ok(made.path),
        Err(error) if error.code() == Some(ErrorCode::AlreadyExists) => {
            let there = found(guest, at).await?;
            match kind(&there) {
                EntryKind::Directory => Ok(there.path),
                _ => Err(Failure::conflict(format_args!(
                    "{} exists and is not a directory",
                    there.path
                ))),
            }
        }
        Err(error) => Err(failed(error)),
    }
}

async fn rename(
    Extension(host): Extension<AgentHost>,
    JsonBody(request): JsonBody<Move>,
) -> Result<Json<Moved>> {
    let (from, to) = (at(&request.from)?, at(&request.to)?);
    let guest = host.guest().await?;
    let source = guest.stat(from.clone()).await.map_err(failed)?;
    match guest.stat(to.clone()).await {
        Ok(there) if there.path == source.path => {}
        Ok(there) if request.overwrite != Some(true) => {
            let message = format!("destination already exists: {}", there.path);
            return Err(Failure::invalid(message));
        }
        Ok(there) if within(&source.path, &there.path) || within(&there.path, &source.path) => {
            let message = format!("{} and {} are in each other", source.path, there.path);
            return Err(Failure::invalid(message));
        }
        // `rename` replaces files by files and empty directories by directories only.
        Ok(there) if there.kind == EntryKind::Directory || source.kind == EntryKind::Directory => {
            guest.remove(to.clone()).await.map_err(failed)?;
        }
        Ok(_) => {}
        Err(error) if error.code() == Some(ErrorCode::NotFound) => {}
        Err(error) => return Err(failed(error)),
    }
    let request = MoveRequest { from, to: to.path };
    let moved = guest.rename(request).await.map_err(failed)?;
    Ok(Json(Moved {
        from: source.path,
        to: moved.path,
    }))
}

fn within(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory.trim_end_matches('/'))
        .is_some_and(|rest| rest.starts_with('/'))
}

async fn remove(
    Extension(host): Extension<AgentHost>,
    Query(query): Query<DeleteQuery>,
) -> Result<Json<Done>> {
    let at = at(&query.path)?;
    let guest = host.guest().await?;
    let info = guest.stat(at.clone()).await.map_err(failed)?;
    if info.kind == EntryKind::Directory && query.recursive != Some(true) {
        let request = ListRequest {
            at: at.clone(),
            depth: 1,
            max_entries: Some(1),
        };
        let listing = guest.list(request).await.map_err(failed)?;
        if !listing.entries.is_empty() {
            let message = format!("directory not empty: {}", info.path);
            return Err(Failure::conflict(message));
        }
    }
    guest.remove(at).await.map_err(failed)?;
    Ok(Json(Done { path: info.path }))
}
