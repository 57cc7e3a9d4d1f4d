//! Places of sandboxes in memory: one that wakes needs one, and those that nobody uses give
//! theirs away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use woodfrog_core::admission::{self, Quota, Used};
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::{Code, Fault, Timestamp, WorkspaceId};

use crate::inner::{Inner, Place};
use crate::sandbox::live::{Command, Live};

/// Sandboxes that are asked for their place before a caller waits for one.
const ASKED_MAX: usize = 8;

/// Takes a place for a new sandbox: one that is free, or that of a sandbox nobody uses.
pub(crate) async fn take(
    inner: &Inner,
    workspace: &WorkspaceId,
    wanted: Used,
) -> Result<Place, Fault> {
    let caps = inner.options.caps;
    let quota = quota(inner, workspace).await?;
    admission::within(Used::default(), wanted, quota)?;
    let refused = match inner.registry.reserve(workspace, wanted, caps, quota) {
        Ok(place) => return Ok(place),
        Err(refused) => refused,
    };
    let own = refused.code == Code::RateLimited;
    for live in idlest(inner, workspace, own) {
        let gave = live.ask(|reply| Command::Evict { reply }).await;
        if !matches!(gave, Some(Ok(true))) {
            continue;
        }
        if let Ok(place) = inner.registry.reserve(workspace, wanted, caps, quota) {
            return Ok(place);
        }
    }
    Err(refused)
}

/// What the workspace's sandboxes may use. Nothing starts in one that is being removed.
async fn quota(inner: &Inner, workspace: &WorkspaceId) -> Result<Quota, Fault> {
    let tenancy = inner.tenancy(workspace).await?;
    if tenancy.removing {
        return Err(crate::keys::not_found());
    }
    Ok(Quota::from(&tenancy.limits))
}

/// As [`take`], and waits in line for one if there is none.
pub(crate) async fn wait(
    inner: &Inner,
    workspace: &WorkspaceId,
    wanted: Used,
) -> Result<Place, Fault> {
    let caps = inner.options.caps;
    let quota = quota(inner, workspace).await?;
    // What can never be is refused at once.
    admission::within(Used::default(), wanted, quota)?;
    if let Ok(place) = inner.registry.reserve(workspace, wanted, caps, quota) {
        return Ok(place);
    }
    let _turn = Turn::take(inner)?;
    let waited = tokio::time::timeout(inner.options.wake_timeout, async {
        loop {
            let freed = inner.registry.freed();
            if let Ok(place) = take(inner, workspace, wanted).await {
                return place;
            }
            // Somebody may become idle without a place becoming free.
            let _ = tokio::time::timeout(LOOK_AGAIN, freed).await;
        }
    });
    tokio::select! {
        () = inner.stopping.cancelled() => Err(crate::fault::stopping()),
        place = waited => place.map_err(|_| full()),
    }
}

/// Between two looks for a sandbox that may give its place away.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(250);

fn full() -> Fault {
    Fault::new(
        Code::CapacityUnavailable,
        "the server holds as many sandboxes as it may; try again later",
    )
}

/// One of those who wait in line.
struct Turn<'a>(&'a AtomicUsize);

impl<'a> Turn<'a> {
    fn take(inner: &'a Inner) -> Result<Self, Fault> {
        let turn = Self(&inner.waiting);
        if turn.0.fetch_add(1, Ordering::SeqCst) >= inner.options.wakes_waiting_max {
            return Err(full());
        }
        Ok(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Sandboxes that may give their place away, the one first that was not used for longest.
fn idlest(inner: &Inner, workspace: &WorkspaceId, own: bool) -> Vec<Arc<Live>> {
    let now = Timestamp::now();
    let mut found: Vec<(Timestamp, Arc<Live>)> = inner
        .registry
        .all()
        .into_iter()
        .filter_map(|live| {
            let record = live.record();
            let seen = live.gate.seen();
            let wanted = (!own || record.workspace == *workspace) && live.has_place();
            let idle = seen.leases == 0 && live.held(now).is_none();
            let since = now.since(seen.last) >= inner.options.evict_idle;
            (wanted && idle && may_be_evicted(&record, since)).then_some((seen.last, live))
        })
        .collect();
    found.sort_by_key(|(last, _)| *last);
    let all = found.into_iter().map(|(_, live)| live);
    all.take(ASKED_MAX).collect()
}

fn may_be_evicted(record: &Sandbox, idle: bool) -> bool {
    match record.state {
        SandboxState::Running { .. } => idle && record.sleep.pause_after.is_some(),
        SandboxState::Paused { .. } => true,
        SandboxState::Creating
        | SandboxState::Hibernating { .. }
        | SandboxState::Hibernated { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Archived { .. }
        | SandboxState::Deleting { .. } => false,
    }
}
