//! Watching directories: as a stream, and by polling for clients that cannot read streams.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use woodfrog_guest_proto as guest;
use woodfrog_wire::envd as wire;

use super::call::{Call, Sender, Stop};
use super::connect::{RpcCode, RpcError};
use super::entry::event;
use super::local::Local;
use woodfrog_engine::follow::{Gaps, Watched};

/// Polled watchers of one sandbox.
const WATCHERS_MAX: usize = 128;
/// Events that wait for a poll. When more come the next poll fails, and the watcher is of no use
/// any more: a client must not believe that it has seen everything.
const EVENTS_MAX: usize = 10_000;

fn watch_request(call: &Call, request: wire::WatchRequest) -> guest::WatchRequest {
    guest::WatchRequest {
        at: super::filesystem::place(call, request.path),
        depth: if request.recursive {
            guest::WatchDepth::Recursive
        } else {
            guest::WatchDepth::Direct
        },
        entries: if request.include_entry {
            guest::WatchEntries::Include
        } else {
            guest::WatchEntries::Omit
        },
        network_mounts: if request.allow_network_mounts {
            guest::NetworkMounts::Allow
        } else {
            guest::NetworkMounts::Refuse
        },
    }
}

fn lost() -> RpcError {
    RpcError::new(
        RpcCode::Internal,
        "watcher error: too many events, some were lost",
    )
}

/// `WatchDir`.
pub(crate) async fn stream(
    call: Call,
    request: wire::WatchRequest,
    sender: Sender,
) -> Result<(), Stop> {
    let watching = Watched::start(&call.lease, watch_request(&call, request)).await;
    let mut watching = watching.map_err(RpcError::from)?;
    // What is left of the call would keep the sandbox awake.
    drop(call);
    sender.message(&wire::WatchDirResponse::Start {}).await?;
    loop {
        let next = sender.wait(watching.next(Gaps::Silent)).await?;
        let Some(seen) = next.map_err(RpcError::from)? else {
            return Ok(());
        };
        let seen = event(seen).ok_or_else(lost)?;
        sender
            .message(&wire::WatchDirResponse::Filesystem(Box::new(seen)))
            .await?;
    }
}

/// One sandbox's polled watchers.
#[derive(Default)]
pub(crate) struct Watchers {
    map: Mutex<HashMap<String, Arc<Watcher>>>,
}

#[derive(Default)]
struct Watcher {
    state: Mutex<Events>,
    removed: CancellationToken,
}

#[derive(Default)]
struct Events {
    waiting: VecDeque<wire::FilesystemEvent>,
    /// Why there will be no more.
    failed: Option<RpcError>,
}

impl Watcher {
    fn state(&self) -> MutexGuard<'_, Events> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event in. An error means that the watcher is over.
    fn push(&self, seen: guest::WatchEvent) -> Result<(), RpcError> {
        let mut state = self.state();
        if state.waiting.len() >= EVENTS_MAX {
            state.waiting.clear();
            return Err(lost());
        }
        state.waiting.push_back(event(seen).ok_or_else(lost)?);
        Ok(())
    }
}

impl Watchers {
    fn map(&self) -> MutexGuard<'_, HashMap<String, Arc<Watcher>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Result<Arc<Watcher>, RpcError> {
        self.map().get(id).cloned().ok_or_else(|| unknown(id))
    }

    fn add(&self, watcher: Arc<Watcher>) -> Result<String, RpcError> {
        let mut map = self.map();
        if map.len() >= WATCHERS_MAX {
            let text = format!("this sandbox has {WATCHERS_MAX} watchers already; remove some");
            return Err(RpcError::new(RpcCode::ResourceExhausted, text));
        }
        // Watchers belong to a sandbox, whose token was shown: the name need not be a secret.
        let id = woodfrog_types::TemplateId::generate();
        let id = format!(
            "w{}",
            id.as_str()
                .trim_start_matches(woodfrog_types::TemplateId::TAG)
        );
        map.insert(id.clone(), watcher);
        Ok(id)
    }
}

fn unknown(id: &str) -> RpcError {
    let id: String = id.chars().take(64).collect();
    RpcError::new(RpcCode::NotFound, format!("watcher with id {id} not found"))
}

/// `CreateWatcher`: events are kept from before the answer on.
pub(crate) async fn create(
    call: &Call,
    local: Arc<Local>,
    request: wire::WatchRequest,
) -> Result<wire::CreateWatcherResponse, RpcError> {
    let watching = Watched::start(&call.lease, watch_request(call, request)).await?;
    let watcher = Arc::new(Watcher::default());
    let watcher_id = local.watchers.add(Arc::clone(&watcher))?;
    let (lease, id) = (call.lease.quiet(), watcher_id.clone());
    tokio::spawn(async move {
        tokio::select! {
            // What is kept of the sandbox goes with it.
            () = lease.ended() => { local.watchers.map().remove(&id); }
            () = watcher.removed.cancelled() => {}
            error = collect(watching, &watcher) => {
                watcher.state().failed = Some(error);
                // The failure waits for the client, and is forgotten with the sandbox.
                tokio::select! {
                    () = lease.ended() => { local.watchers.map().remove(&id); }
                    () = watcher.removed.cancelled() => {}
                }
            }
        }
    });
    Ok(wire::CreateWatcherResponse { watcher_id })
}

async fn collect(mut watching: Watched, watcher: &Watcher) -> RpcError {
    loop {
        match watching.next(Gaps::Silent).await {
            Ok(Some(seen)) => {
                if let Err(error) = watcher.push(seen) {
                    return error;
                }
            }
            Ok(None) => return RpcError::new(RpcCode::Internal, "the watched directory is gone"),
            Err(error) => return error.into(),
        }
    }
}

/// `GetWatcherEvents`: what came since the last time.
pub(crate) fn events(
    local: &Local,
    request: &wire::WatcherRequest,
) -> Result<wire::WatcherEventsResponse, RpcError> {
    let watcher = local.watchers.get(&request.watcher_id)?;
    let mut state = watcher.state();
    match &state.failed {
        Some(error) if state.waiting.is_empty() => Err(error.clone()),
        _ => Ok(wire::WatcherEventsResponse {
            events: state.waiting.drain(..).collect(),
        }),
    }
}

/// `RemoveWatcher`.
pub(crate) fn remove(
    local: &Local,
    request: &wire::WatcherRequest,
) -> Result<wire::Nothing, RpcError> {
    let watcher = local.watchers.map().remove(&request.watcher_id);
    watcher
        .ok_or_else(|| unknown(&request.watcher_id))?
        .removed
        .cancel();
    Ok(wire::Nothing {})
}
