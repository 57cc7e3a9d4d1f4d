//! Changes of a directory as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_guest_client::proto::{
    NetworkMounts, WatchDepth, WatchEntries, WatchKind, WatchRequest,
};
use woodfrog_types::key::Principal;
use woodfrog_wire::native::file::{Change, ChangeKind, WatchQuery};
use woodfrog_wire::native::problem::Problem;

use super::{at, failed};
use crate::native::extract::{InPath, Params};
use crate::native::guest::lease;
use crate::native::problem::Result;
use crate::state::App;
use woodfrog_engine::follow::{Gaps, Watched};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(watch))
}

/// Between two comments on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Reports every change from now on, until the directory or the sandbox is gone.
#[utoipa::path(
    get, path = "/sandboxes/{id}/files/watch", operation_id = "file_watch", tag = "files",
    params(("id" = String, Path), WatchQuery),
    responses(
        (status = 200, body = Change, content_type = "text/event-stream"),
        (status = "default", body = Problem)
    )
)]
async fn watch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Params(query): Params<WatchQuery>,
) -> Result<Sse<impl Stream<Item = std::result::Result<Event, Infallible>>>> {
    let guest = lease(&app, &principal, &id).await?;
    let request = WatchRequest {
        at: at(query.path, query.user),
        depth: if query.recursive {
            WatchDepth::Recursive
        } else {
            WatchDepth::Direct
        },
        entries: WatchEntries::Omit,
        network_mounts: NetworkMounts::Refuse,
    };
    let changes = Watched::start(&guest, request).await.map_err(failed)?;
    Ok(Sse::new(events(guest.quiet(), changes)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn events(
    guest: woodfrog_engine::GuestLease,
    changes: Watched,
) -> impl Stream<Item = std::result::Result<Event, Infallible>> {
    stream::unfold((guest, changes), |(guest, mut changes)| async move {
        let next = tokio::select! {
            next = changes.next(Gaps::Told) => next,
            () = guest.ended() => return None,
        };
        let event = match next {
            Ok(event) => event?,
            Err(error) => {
                tracing::debug!(%error, "a watch broke");
                return None;
            }
        };
        let change = Change {
            kind: kind(event.kind),
            name: event.name,
        };
        let json = serde_json::to_string(&change).unwrap_or_default();
        Some((Ok(Event::default().data(json)), (guest, changes)))
    })
}

fn kind(kind: WatchKind) -> ChangeKind {
    match kind {
        WatchKind::Create => ChangeKind::Create,
        WatchKind::Write => ChangeKind::Write,
        WatchKind::Remove => ChangeKind::Remove,
        WatchKind::Rename => ChangeKind::Rename,
        WatchKind::Chmod => ChangeKind::Chmod,
        WatchKind::Overflow => ChangeKind::Overflow,
    }
}
