//! Sandboxes that go from one server to another.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use woodfrog_core::lifecycle::{self, Event, Next};
use woodfrog_store::{Claim, NewEvent, Taking};
use woodfrog_types::event::Level;
use woodfrog_types::node::Lease;
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::snapshot::{Snapshot, SnapshotPlace, SnapshotState};
use woodfrog_types::{Code, Fault, SandboxId, SnapshotId, Timestamp};

use super::elsewhere;
use crate::engine::Engine;
use crate::inner::Inner;
use crate::sandbox::live::Command;
use crate::sandbox::owner;
use crate::{fault, tasks};

/// Between two looks whether a sandbox was let go.
const LOOK: Duration = Duration::from_millis(25);
/// Between two looks whether others want something.
const WISHES: Duration = Duration::from_millis(100);
/// How often a sandbox that is used while it is being let go is tried again.
const TRIES: u32 = 3;
/// How long an owner may take to let go of what is in the archive.
const LET_GO: Duration = Duration::from_secs(10);

/// Is told when a sandbox goes to another server.
#[async_trait]
pub trait Departures: Send + Sync {
    /// It stands still and is whole in the archive; the other server takes it once this returns.
    async fn leaving(&self, engine: &Engine, sandbox: &SandboxId);
}

/// Sandboxes that are on their way to another server.
#[derive(Default)]
pub(crate) struct Moves {
    moving: Mutex<HashSet<SandboxId>>,
    departures: OnceLock<Arc<dyn Departures>>,
}

impl Moves {
    fn moving(&self) -> MutexGuard<'_, HashSet<SandboxId>> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_moving(&self, id: &SandboxId) -> bool {
        self.moving().contains(id)
    }

    /// Refuses to wake one that is on its way.
    pub(crate) fn check(&self, id: &SandboxId) -> Result<(), Fault> {
        match self.is_moving(id) {
            false => Ok(()),
            true => Err(Fault::new(
                Code::Transitioning,
                "the sandbox is moving to another server; try again",
            )),
        }
    }

    /// Tells who wants to know that it goes.
    pub(crate) async fn leaving(&self, inner: &Arc<Inner>, id: &SandboxId) {
        if let Some(departures) = self.departures.get() {
            let engine = Engine {
                inner: Arc::clone(inner),
            };
            departures.leaving(&engine, id).await;
        }
    }
}

impl Engine {
    /// Tells `departures` of every sandbox that goes to another server; the first one stays.
    pub fn on_departure(&self, departures: Arc<dyn Departures>) {
        if self.inner.moves.departures.set(departures).is_err() {
            tracing::debug!("departures are told already");
        }
    }

    /// Whether another server has the sandbox: then using it brings it here.
    pub async fn is_elsewhere(&self, id: &SandboxId) -> Result<bool, Fault> {
        let Some(node) = self.inner.store.node() else {
            return Ok(false);
        };
        let lease = self.inner.store.lease_fetch(id).await;
        let lease = lease.map_err(fault::store)?;
        Ok(lease
            .and_then(|lease| lease.node)
            .is_some_and(|it| it != *node))
    }

    /// Whether sandboxes can go from this server to others.
    pub fn can_hand_over(&self) -> bool {
        self.inner.attic.is_shared()
    }
}

/// Sees to it that a sandbox is this server's: what nobody has is taken, what another server has is
/// asked for, and what a server has that does not say so any more is taken over.
pub(crate) async fn fetch(inner: &Inner, id: &SandboxId) -> Result<(), Fault> {
    if inner.store.node().is_none() {
        return Ok(());
    }
    let limit = inner.options.archive_timeout;
    tokio::select! {
        () = inner.stopping.cancelled() => Err(fault::stopping()),
        came = tokio::time::timeout(limit, come(inner, id)) => came.unwrap_or_else(|_| {
            Err(Fault::new(
                Code::DeadlineExceeded,
                format!("the sandbox was not let go by its server within {} s", limit.as_secs()),
            ))
        }),
    }
}

async fn come(inner: &Inner, id: &SandboxId) -> Result<(), Fault> {
    let mut asked = false;
    loop {
        let taken = inner.store.lease_take(id, Claim::Released).await;
        let held = match taken.map_err(fault::store)? {
            Taking::Mine(_) | Taking::Nothing => return Ok(()),
            Taking::Held(held) => held,
        };
        if !inner.attic.is_shared() {
            return Err(elsewhere(inner, &held).await);
        }
        if held.over {
            return take_over(inner, id, &held).await;
        }
        match (&held.refused, asked) {
            (Some(why), true) => {
                let refused = Fault::new(
                    Code::Unavailable,
                    format!("the sandbox is on another server, which does not let it go: {why}"),
                );
                return Err(refused);
            }
            (None, true) if held.wanted.is_some() => {}
            (Some(_) | None, _) => {
                let wanted = inner.store.lease_want(id).await;
                wanted.map_err(fault::store)?;
                asked = true;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What another server left, and how it goes on from there.
struct Left {
    snapshot: Snapshot,
    events: Vec<Event>,
}

/// The last of a sandbox that is in the archive; `None` if nothing of it is.
async fn left(inner: &Inner, record: &Sandbox) -> Result<Option<Left>, Fault> {
    let reason = || "its server is gone".to_owned();
    let (snapshot, mut events): (&SnapshotId, Vec<Event>) = match &record.state {
        SandboxState::Hibernated { snapshot, .. } => (snapshot, vec![Event::Archive]),
        SandboxState::Waking { snapshot, .. } => {
            let failed = Event::WakeFailed { reason: reason() };
            (snapshot, vec![failed, Event::Archive])
        }
        SandboxState::Archiving { snapshot, .. } | SandboxState::Archived { snapshot, .. } => {
            (snapshot, Vec::new())
        }
        SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernating { .. } => match &record.last_snapshot {
            Some(last) => (last, Vec::new()),
            None => return Ok(None),
        },
        SandboxState::Creating | SandboxState::Deleting { .. } => return Ok(None),
    };
    let known = inner.store.snapshot_fetch(snapshot).await;
    let Some(known) = known.map_err(fault::store)? else {
        return Ok(None);
    };
    if known.state != SnapshotState::Ready || known.place.archive().is_none() {
        return Ok(None);
    }
    if let SandboxState::Running { .. }
    | SandboxState::Paused { .. }
    | SandboxState::Hibernating { .. } = &record.state
    {
        events = vec![
            Event::FellBack {
                snapshot: known.id.clone(),
                content: known.content,
                taken_at: known.created_at,
            },
            Event::Archive,
        ];
    }
    if !matches!(record.state, SandboxState::Archived { .. }) {
        events.push(Event::Archived);
    }
    Ok(Some(Left {
        snapshot: known,
        events,
    }))
}

/// Takes over what a server has that has not renewed its leases: from what the archive has of it.
/// Where that is nothing the sandbox is left to its server, which may come back.
async fn take_over(inner: &Inner, id: &SandboxId, held: &Lease) -> Result<(), Fault> {
    let lost = async || {
        let fault = elsewhere(inner, held).await;
        let text = format!("{}; nothing of it is in the archive", fault.message);
        Fault::new(fault.code, text)
    };
    let record = async || {
        let record = inner.store.sandbox_fetch(id).await.map_err(fault::store)?;
        record.ok_or_else(|| Fault::sandbox_not_found(id.as_str()))
    };
    let known = record().await?;
    if !known.volumes.is_empty() {
        let fault = elsewhere(inner, held).await;
        let text = format!("{}; so are the files of its volumes", fault.message);
        return Err(Fault::new(fault.code, text));
    }
    if left(inner, &known).await?.is_none() {
        return Err(lost().await);
    }
    let taken = inner.store.lease_take(id, Claim::Expired).await;
    match taken.map_err(fault::store)? {
        Taking::Mine(_) => {}
        Taking::Nothing => return Ok(()),
        // It is back, or another one was faster.
        Taking::Held(_) => {
            return Err(Fault::new(
                Code::Transitioning,
                "the sandbox was taken over by another server; try again",
            ));
        }
    }
    // From here on nobody else writes: what counts is what is there now.
    let record = record().await?;
    if let SandboxState::Archived { .. } = record.state {
        // It had been let go but for saying so: nothing is lost.
        return Ok(());
    }
    let Some(left) = left(inner, &record).await? else {
        super::release(inner, id).await;
        return Err(lost().await);
    };
    settle(inner, &record, left, held).await
}

async fn settle(inner: &Inner, record: &Sandbox, left: Left, held: &Lease) -> Result<(), Fault> {
    let Some(archive) = left.snapshot.place.archive().cloned() else {
        return Ok(());
    };
    let now = Timestamp::now();
    let (mut next, mut log) = (record.clone(), Vec::new());
    for event in left.events {
        let step = lifecycle::step(&next, event, now)?;
        log.extend(step.log);
        if let Next::Store(stored) = step.next {
            next = *stored;
        }
    }
    next.generation = record.generation + 1;
    let from = held.node.as_ref().map(ToString::to_string);
    let mut log = owner::events(log, now);
    log.push(NewEvent {
        at: now,
        level: Level::Error,
        kind: "sandbox.taken_over".to_owned(),
        message: "its server did not renew its lease: it goes on elsewhere, from its last snapshot in the archive; what it did since is lost"
            .to_owned(),
        fields: BTreeMap::from([
            ("from".to_owned(), from.unwrap_or_default()),
            ("snapshot".to_owned(), left.snapshot.id.to_string()),
            ("taken_at".to_owned(), left.snapshot.created_at.as_millis().to_string()),
        ]),
    });
    tracing::error!(sandbox = %record.id, from = ?held.node, snapshot = %left.snapshot.id, "TAKEN OVER: its server does not answer");
    let moved = Snapshot {
        place: SnapshotPlace::Archive { archive },
        generation: left.snapshot.generation + 1,
        ..left.snapshot
    };
    let stored = inner
        .store
        .sandbox_update_with_snapshot(&next, log, &moved)
        .await;
    stored.map_err(fault::store)
}

/// Lets go of what others want, until the server stops.
pub(crate) async fn watch(inner: Arc<Inner>) {
    if inner.store.node().is_none() {
        return;
    }
    loop {
        match inner.store.lease_wanted().await {
            Ok(wanted) => {
                for id in wanted {
                    if inner.moves.moving().insert(id.clone()) {
                        let shared = Arc::clone(&inner);
                        tasks::spawn(&inner.tasks, "hand-over", hand_over(shared, id));
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "wishes cannot be read"),
        }
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = tokio::time::sleep(WISHES) => {}
        }
    }
}

/// Brings one sandbox to the archive and lets it go; or says why not.
async fn hand_over(inner: Arc<Inner>, id: SandboxId) {
    let begun = Instant::now();
    let mut tries = 1;
    let gone = loop {
        match archive(&inner, &id).await {
            Err(fault) if fault.code == Code::Conflict && tries < TRIES => tries += 1,
            done => break done,
        }
    };
    match gone {
        Ok(()) => {
            let took = begun.elapsed();
            tracing::info!(sandbox = %id, ?took, "let go: another server wants it");
        }
        Err(fault) => {
            tracing::warn!(sandbox = %id, error = &fault as &dyn std::error::Error, "another server wants it, but it stays");
            if let Err(error) = inner.store.lease_refuse(&id, &fault.message).await {
                tracing::warn!(sandbox = %id, %error, "which could not be said");
            }
        }
    }
    inner.moves.moving().remove(&id);
}

async fn archive(inner: &Arc<Inner>, id: &SandboxId) -> Result<(), Fault> {
    let engine = Engine {
        inner: Arc::clone(inner),
    };
    if !inner.attic.is_shared() {
        return Err(Fault::new(
            Code::Unsupported,
            "its archive is not that of the other servers (`archive.url`)",
        ));
    }
    let record = inner.store.sandbox_fetch(id).await.map_err(fault::store)?;
    if record.is_some_and(|it| !it.volumes.is_empty()) {
        // They are on this machine's disk: the other server could not bring it back.
        let text = "it has volumes, and their files are on the disk of the server that it is on";
        return Err(Fault::new(Code::Unsupported, text));
    }
    let live = engine.live(id).await?;
    if let Some(archived) = live.ask(|reply| Command::Archive { reply }).await {
        archived?;
    }
    // Its owner lets it go as it leaves.
    let left = async {
        while inner.registry.get(id).is_some() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let left = tokio::time::timeout(LET_GO, left).await;
    left.map_err(|_| Fault::new(Code::Conflict, "its owner did not let it go in time"))
}
