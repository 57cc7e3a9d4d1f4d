//! Deadlines: one task that sleeps until the earliest one, from the store's index.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use woodfrog_types::Timestamp;

use crate::inner::Inner;
use crate::sandbox::live::Command;

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

/// Ends sandboxes whose deadline has passed, until the server stops.
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

/// Tells the owners of expired sandboxes; returns how many, and the earliest deadline.
async fn end_due(inner: &Inner) -> woodfrog_store::Result<(usize, Option<Timestamp>)> {
    let now = Timestamp::now();
    let next = inner.store.sandbox_next_deadline().await?;
    if next.is_none_or(|next| next > now) {
        return Ok((0, next));
    }
    let due = inner.store.sandbox_due(now, BATCH).await?;
    for id in &due {
        match inner.registry.get(id) {
            Some(live) => live.tell(Command::Due),
            // Said loudly when the server started.
            None => tracing::debug!(sandbox = %id, "expired, but it has no owner"),
        }
    }
    Ok((due.len(), next))
}
