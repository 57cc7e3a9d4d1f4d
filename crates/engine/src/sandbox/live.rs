//! A sandbox that has an owner: what others may read of it without asking the owner.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use woodfrog_core::sleep::{Rearm, Waker};
use woodfrog_types::metric::MetricSample;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::{OnTimeout, Sandbox, SandboxState};
use woodfrog_types::sleep::{Hold, SleepPolicy};
use woodfrog_types::snapshot::{Snapshot, SnapshotContent};
use woodfrog_types::{Code, Fault, SandboxId, Timestamp};

use crate::access::SandboxAccess;
use crate::inner::Place;
use crate::request::{DeadlineChange, HibernateRequest};
use crate::sandbox::gate::{Gate, Gates};
use crate::sandbox::metrics::Baseline;

/// Requests that may wait for one owner; more wait at the sender's side.
const INBOX: usize = 64;

/// How a sandbox is to be woken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WakeOrder {
    pub(crate) waker: Waker,
    /// When it was asked for: who asked before an attempt failed is told of that failure.
    pub(crate) asked: Instant,
    pub(crate) content: SnapshotContent,
    pub(crate) rearm: Rearm,
    pub(crate) on_timeout: Option<OnTimeout>,
}

impl WakeOrder {
    /// By somebody who uses the sandbox.
    pub(crate) fn access() -> Self {
        Self {
            waker: Waker::Access,
            asked: Instant::now(),
            content: SnapshotContent::Memory,
            rearm: Rearm::Own,
            on_timeout: None,
        }
    }
}

type Reply<T> = oneshot::Sender<Result<T, Fault>>;

/// What is asked of an owner.
pub(crate) enum Command {
    Delete {
        reply: Reply<()>,
    },
    Deadline {
        change: DeadlineChange,
        reply: Reply<Arc<Sandbox>>,
    },
    Network {
        network: Box<NetworkSpec>,
        reply: Reply<()>,
    },
    /// A secret that its header rules name was changed.
    Refill {
        reply: Reply<()>,
    },
    SleepPolicy {
        policy: SleepPolicy,
        reply: Reply<Arc<Sandbox>>,
    },
    Pause {
        reply: Reply<Arc<Sandbox>>,
    },
    /// The answer says whether it was asleep on disk before.
    Hibernate {
        request: HibernateRequest,
        reply: Reply<(Arc<Sandbox>, bool)>,
    },
    /// Down to the archive.
    Archive {
        reply: Reply<Arc<Sandbox>>,
    },
    /// The answer says whether it was asleep before.
    Wake {
        order: WakeOrder,
        reply: Reply<bool>,
    },
    /// The snapshot as it is to be recorded; its parent is filled in.
    Checkpoint {
        snapshot: Box<Snapshot>,
        reply: Reply<Snapshot>,
    },
    /// Down one rung, if nothing used it for this long.
    Sweep {
        idle: Duration,
        reply: Reply<()>,
    },
    /// It gives its place to another one, if nothing uses it. The answer says whether it did.
    Evict {
        reply: Reply<bool>,
    },
    /// The clock says that its deadline or its next rung may have come.
    Due,
    /// What its idleness depends on has changed.
    Rethink,
    /// Another server has it now: what this one has of it ends, and nothing is written.
    Lost,
}

pub(crate) struct Live {
    pub(crate) id: SandboxId,
    inbox: mpsc::Sender<Command>,
    /// Held by the owner that runs now; the next one goes on with it if that one panics.
    pub(crate) receiver: tokio::sync::Mutex<mpsc::Receiver<Command>>,
    record: RwLock<Arc<Sandbox>>,
    access: RwLock<Option<Arc<SandboxAccess>>>,
    pub(crate) gate: Arc<Gate>,
    /// What keeps it awake, as it was read from the store last.
    holds: Mutex<Vec<Hold>>,
    /// Held by whoever reads them anew.
    hold_turn: tokio::sync::Mutex<()>,
    samples: Mutex<VecDeque<MetricSample>>,
    pub(crate) baseline: Mutex<Baseline>,
    /// Held while it is in memory.
    place: Mutex<Option<Place>>,
    /// The last wake that failed.
    failure: Mutex<Option<(Instant, Code, String)>>,
}

impl Live {
    pub(crate) fn new(gates: &Gates, record: Sandbox, place: Option<Place>) -> Arc<Self> {
        let (inbox, receiver) = mpsc::channel(INBOX);
        Arc::new(Self {
            id: record.id.clone(),
            inbox,
            receiver: tokio::sync::Mutex::new(receiver),
            baseline: Mutex::new(Baseline::since(record.started_at)),
            gate: gates.of(&record.id),
            record: RwLock::new(Arc::new(record)),
            access: RwLock::new(None),
            holds: Mutex::default(),
            hold_turn: tokio::sync::Mutex::default(),
            samples: Mutex::new(VecDeque::new()),
            place: Mutex::new(place),
            failure: Mutex::default(),
        })
    }

    /// The record as it was last committed.
    pub(crate) fn record(&self) -> Arc<Sandbox> {
        let record = self.record.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&record)
    }

    /// Remembers what was committed. Who may get in is judged by it from now on: `traffic_token` is
    /// what ports inside ask for under its network rules.
    pub(crate) fn set_network(&self, record: Sandbox, traffic_token: Option<String>) {
        {
            let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(open) = access.as_ref() {
                let mut changed = SandboxAccess::clone(open);
                changed.traffic_token = traffic_token;
                *access = Some(Arc::new(changed));
            }
        }
        self.set_record(record);
    }

    pub(crate) fn set_record(&self, record: Sandbox) {
        let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = access.as_ref()
            && open.network != record.network
        {
            let mut changed = SandboxAccess::clone(open);
            changed.network = record.network.clone();
            *access = Some(Arc::new(changed));
        }
        drop(access);
        *self.record.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(record);
    }

    /// Whether it is being removed.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.record().state, SandboxState::Deleting { .. })
    }

    /// How to get in; `None` unless it is in memory and was up once.
    pub(crate) fn access(&self) -> Option<Arc<SandboxAccess>> {
        let access = self.access.read().unwrap_or_else(PoisonError::into_inner);
        access.clone()
    }

    /// Says how to get in; the gate decides who may.
    pub(crate) fn set_access(&self, access: SandboxAccess) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(access));
    }

    /// Lets nobody in until it is back; streams may be parked.
    pub(crate) fn shut(&self) {
        self.gate.close();
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Lets nobody in any more; what streams from it stops.
    pub(crate) fn withdraw(&self) {
        self.shut();
        self.gate.end();
    }

    /// Asks the owner and waits for its answer; `None` if there is no owner any more: the sandbox
    /// is gone, or sleeps.
    pub(crate) async fn ask<T>(
        &self,
        make: impl FnOnce(Reply<T>) -> Command,
    ) -> Option<Result<T, Fault>> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(make(reply)).await.ok()?;
        match answer.await {
            Ok(answer) => Some(answer),
            Err(_) if self.inbox.is_closed() => None,
            Err(_) => Some(Err(Fault::internal("the owner of a sandbox failed"))),
        }
    }

    /// Tells the owner, unless its inbox is full.
    pub(crate) fn tell(&self, command: Command) {
        if self.inbox.try_send(command).is_err() {
            tracing::debug!(sandbox = %self.id, "owner is busy or gone; told again later");
        }
    }

    pub(crate) fn set_place(&self, place: Option<Place>) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    pub(crate) fn has_place(&self) -> bool {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.is_some()
    }

    /// Remembers that a wake failed just now.
    pub(crate) fn set_failure(&self, fault: &Fault) {
        let failure = (Instant::now(), fault.code, fault.message.clone());
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    /// Why a wake failed that began after `asked`.
    pub(crate) fn failure_since(&self, asked: Instant) -> Option<Fault> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, code, message) = failure.as_ref()?;
        (*at > asked).then(|| Fault::new(*code, message.clone()))
    }

    /// Whose turn it is to read holds from the store.
    pub(crate) async fn hold_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.hold_turn.lock().await
    }

    /// What the store has; by whoever has the turn.
    pub(crate) fn set_holds(&self, holds: Vec<Hold>) {
        *self.holds.lock().unwrap_or_else(PoisonError::into_inner) = holds;
    }

    /// The holds that count at `now`, by name.
    pub(crate) fn holds(&self, now: Timestamp) -> Vec<Hold> {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let counting = holds.iter().filter(|hold| !hold.is_over(now));
        counting.cloned().collect()
    }

    /// The end of the hold that ends last; `None` without one, `Some(None)` where one has no end.
    pub(crate) fn held(&self, now: Timestamp) -> Option<Option<Timestamp>> {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let counting = holds.iter().filter(|hold| !hold.is_over(now));
        let ends = counting.map(|hold| hold.expires_at);
        ends.reduce(|one, other| Some(one?.max(other?)))
    }

    pub(crate) fn push_sample(&self, sample: MetricSample, keep: usize) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        while samples.len() >= keep.max(1) {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    pub(crate) fn with_samples<T>(&self, read: impl FnOnce(&VecDeque<MetricSample>) -> T) -> T {
        read(&self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
