//! `filesystem.Filesystem`, but for watching.

use woodfrog_guest_proto as guest;
use woodfrog_wire::envd as wire;

use super::call::Call;
use super::connect::{RpcCode, RpcError};
use super::entry::{at, entry};

/// Entries of one listing. Beyond it the listing is refused rather than cut.
const LIST_MAX: u32 = 200_000;

pub(crate) async fn stat(
    call: &Call,
    request: wire::PathRequest,
) -> Result<wire::EntryResponse, RpcError> {
    let found = call.lease.stat(place(call, request.path)).await?;
    Ok(wire::EntryResponse {
        entry: entry(found),
    })
}

pub(crate) async fn list_dir(
    call: &Call,
    request: wire::ListDirRequest,
) -> Result<wire::EntriesResponse, RpcError> {
    let request = guest::ListRequest {
        at: place(call, request.path),
        depth: request.depth.max(1),
        max_entries: Some(LIST_MAX),
    };
    let listing = call.lease.list(request).await?;
    if listing.truncated {
        let text = format!("the directory has more than {LIST_MAX} entries at this depth");
        return Err(RpcError::new(RpcCode::ResourceExhausted, text));
    }
    Ok(wire::EntriesResponse {
        entries: listing.entries.into_iter().map(entry).collect(),
    })
}

pub(crate) async fn make_dir(
    call: &Call,
    request: wire::PathRequest,
) -> Result<wire::EntryResponse, RpcError> {
    let at = place(call, request.path);
    let made = guest::MkdirRequest {
        at: at.clone(),
        mode: None,
    };
    match call.lease.mkdir(made).await.map_err(RpcError::from) {
        Ok(made) => Ok(wire::EntryResponse { entry: entry(made) }),
        Err(error) if error.code == RpcCode::AlreadyExists => {
            // Clients read "exists" as "nothing to do", which is wrong for a file.
            let there = entry(call.lease.stat(at).await?);
            Err(match there.kind {
                wire::FileType::Directory => RpcError::new(
                    RpcCode::AlreadyExists,
                    format!("directory already exists: {}", there.path),
                ),
                _ => RpcError::new(
                    RpcCode::InvalidArgument,
                    format!(
                        "path already exists but it is not a directory: {}",
                        there.path
                    ),
                ),
            })
        }
        Err(error) => Err(error),
    }
}

pub(crate) async fn rename(
    call: &Call,
    request: wire::MoveRequest,
) -> Result<wire::EntryResponse, RpcError> {
    let request = guest::MoveRequest {
        from: place(call, request.source),
        to: request.destination,
    };
    let moved = call.lease.rename(request).await?;
    Ok(wire::EntryResponse {
        entry: entry(moved),
    })
}

pub(crate) async fn remove(
    call: &Call,
    request: wire::PathRequest,
) -> Result<wire::Nothing, RpcError> {
    call.lease.remove(place(call, request.path)).await?;
    Ok(wire::Nothing {})
}

pub(crate) fn place(call: &Call, path: String) -> guest::PathRequest {
    at(path, Some(call.user_or_default()))
}
