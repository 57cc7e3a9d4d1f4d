//! Deadlines and the next rungs of sleep: one task that sleeps until the earliest one, from the
//! store's index.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use woodfrog_types::sandbox::SandboxState;
use woodfrog_types::{SandboxId, Timestamp};

use crate::inner::Inner;
use crate::lease;
use crate::sandbox::live::{Command, Live};
use crate::sandbox::owner;

/// The longest sleep: bounds what a jump of the wall clock can delay.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Expired sandboxes that are ended in one go.
const BATCH: usize = 256;
/// Until expired sandboxes that were told are looked at again.
const AGAIN: Duration = Duration::from_millis(100);

/// Wakes the deadline task when a deadline earlier than the one it sleeps for is set.
pub(crate) struct Alarm {
    earliest: AtomicI64,
    notify: Notify,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self {
            earliest: AtomicI64::new(i64::MAX),
            notify: Notify::new(),
        }
    }

    /// A committed deadline.
    pub(crate) fn set(&self, deadline: Option<Timestamp>) {
        if deadline.is_some_and(|at| at.as_millis() < self.earliest.load(Ordering::SeqCst)) {
            self.notify.notify_one();
        }
    }

    /// Sleeps until the earliest deadline, an earlier one that is set meanwhile, or for `most`.
    async fn sleep(&self, next: Option<Timestamp>, most: Duration) {
        let now = Timestamp::now();
        let next = next.map_or(i64::MAX, Timestamp::as_millis);
        self.earliest.fetch_min(next, Ordering::SeqCst);
        let wait = Timestamp::from_millis(next).since(now).min(most);
        tokio::select! {
            () = self.notify.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Sees to sandboxes that are due, until the server stops.
pub(crate) async fn watch(inner: Arc<Inner>) {
    let work = async {
        loop {
            // Forgotten before the store is asked: a deadline that is committed in between wakes
            // us at once.
            inner.alarm.earliest.store(i64::MAX, Ordering::SeqCst);
            match end_due(&inner).await {
                Ok((0, next)) => inner.alarm.sleep(next, SLEEP_MAX).await,
                Ok(_) => tokio::time::sleep(AGAIN).await,
                Err(error) => {
                    tracing::error!(%error, "deadlines cannot be read");
                    tokio::time::sleep(SLEEP_MAX).await;
                }
            }
        }
    };
    tokio::select! {
        () = inner.stopping.cancelled() => {}
        () = work => {}
    }
}

/// Tells the owners of sandboxes that are due; returns how many, and when the next one is.
async fn end_due(inner: &Arc<Inner>) -> woodfrog_store::Result<(usize, Option<Timestamp>)> {
    let now = Timestamp::now();
    let next = inner.store.sandbox_next_deadline().await?;
    if next.is_none_or(|next| next > now) {
        return Ok((0, next));
    }
    let due = inner.store.sandbox_due(now, BATCH).await?;
    for id in &due {
        match inner.registry.get(id) {
            Some(live) => live.tell(Command::Due),
            None => sleeping(inner, id).await?,
        }
    }
    Ok((due.len(), next))
}

/// One that sleeps on disk gets an owner for this.
async fn sleeping(inner: &Arc<Inner>, id: &SandboxId) -> woodfrog_store::Result<()> {
    let Some(record) = inner.store.sandbox_fetch(id).await? else {
        return Ok(());
    };
    match record.state {
        SandboxState::Hibernated { .. } | SandboxState::Archived { .. } => {
            if lease::hold(inner, id).await.is_err() {
                // Another server was first.
                return Ok(());
            }
            let live = owner::spawn(inner, Live::new(&inner.registry.gates, record, None), None);
            live.tell(Command::Due);
        }
        // Those have owners; without one, that was said loudly when the server started.
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Hibernating { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Archiving { .. }
        | SandboxState::Deleting { .. } => {
            tracing::debug!(sandbox = %id, "due, but it has no owner");
        }
    }
    Ok(())
}
