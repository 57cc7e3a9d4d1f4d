//! A sandbox that has an owner: what others may read of it without asking the owner.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use woodfrog_types::metric::MetricSample;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::{Fault, SandboxId};

use crate::access::SandboxAccess;
use crate::inner::Place;
use crate::request::DeadlineChange;
use crate::sandbox::metrics::Baseline;

/// Requests that may wait for one owner; more wait at the sender's side.
const INBOX: usize = 64;

/// What is asked of an owner.
pub(crate) enum Command {
    Delete {
        reply: oneshot::Sender<Result<(), Fault>>,
    },
    Deadline {
        change: DeadlineChange,
        reply: oneshot::Sender<Result<Arc<Sandbox>, Fault>>,
    },
    Network {
        network: Box<NetworkSpec>,
        reply: oneshot::Sender<Result<(), Fault>>,
    },
    /// The clock says that its deadline may have passed.
    Due,
}

pub(crate) struct Live {
    pub(crate) id: SandboxId,
    inbox: mpsc::Sender<Command>,
    /// Held by the owner that runs now; the next one goes on with it if that one panics.
    pub(crate) receiver: tokio::sync::Mutex<mpsc::Receiver<Command>>,
    record: RwLock<Arc<Sandbox>>,
    access: RwLock<Option<Arc<SandboxAccess>>>,
    /// Cancelled when it is withdrawn: what streams from it stops.
    pub(crate) ended: CancellationToken,
    activity: AtomicU64,
    samples: Mutex<VecDeque<MetricSample>>,
    pub(crate) baseline: Mutex<Baseline>,
    _place: Option<Place>,
}

impl Live {
    pub(crate) fn new(record: Sandbox, place: Option<Place>) -> Arc<Self> {
        let (inbox, receiver) = mpsc::channel(INBOX);
        Arc::new(Self {
            id: record.id.clone(),
            inbox,
            receiver: tokio::sync::Mutex::new(receiver),
            baseline: Mutex::new(Baseline::since(record.started_at)),
            record: RwLock::new(Arc::new(record)),
            access: RwLock::new(None),
            ended: CancellationToken::new(),
            activity: AtomicU64::new(0),
            samples: Mutex::new(VecDeque::new()),
            _place: place,
        })
    }

    /// The record as it was last committed.
    pub(crate) fn record(&self) -> Arc<Sandbox> {
        let record = self.record.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&record)
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

    /// How to get in; `None` unless it is running.
    pub(crate) fn access(&self) -> Option<Arc<SandboxAccess>> {
        let access = self.access.read().unwrap_or_else(PoisonError::into_inner);
        access.clone()
    }

    pub(crate) fn publish(&self, access: SandboxAccess) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(access));
    }

    pub(crate) fn withdraw(&self) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.ended.cancel();
    }

    /// Asks the owner and waits for its answer. A sandbox whose owner is gone is gone.
    pub(crate) async fn ask<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, Fault>>) -> Command,
    ) -> Result<T, Fault> {
        let gone = || Fault::sandbox_not_found(self.id.as_str());
        let (reply, answer) = oneshot::channel();
        self.inbox.send(make(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Tells the owner, unless its inbox is full.
    pub(crate) fn tell(&self, command: Command) {
        if self.inbox.try_send(command).is_err() {
            tracing::debug!(sandbox = %self.id, "owner is busy or gone; told again later");
        }
    }

    /// Counts an operation from outside.
    pub(crate) fn touch(&self) {
        self.activity.fetch_add(1, Ordering::Relaxed);
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
