//! Saving a running sandbox now and then, so that it comes back from that if it is lost.
//!
//! What is kept is one snapshot to sleep in that the sandbox does not sleep in: its record names
//! it as its last one, as after a wake.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use woodfrog_core::lifecycle::{self, Event, Next};
use woodfrog_sandbox::{CheckpointSpec, Then};
use woodfrog_types::event::Level;
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::snapshot::{SnapshotContent, SnapshotPurpose};
use woodfrog_types::{Fault, Timestamp};

use super::{Owner, annotate, events, sleep as down};
use crate::sandbox::shelf;
use crate::transition::Transition;
use crate::{fault, tasks};

/// Until a sandbox that is in use is looked at again: nothing under way is cut for this.
const BUSY: Duration = Duration::from_secs(1);

/// When a running sandbox is saved next.
pub(super) struct Pace {
    next: Option<Instant>,
    /// It was in use all the time, and that was said.
    late: bool,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self {
            next: None,
            late: false,
        }
    }
}

impl Owner {
    /// Resolves when the sandbox is to be saved.
    pub(super) async fn save_due(&self, pace: &mut Pace) {
        let record = self.live.record();
        let every = record.sleep.checkpoint_every;
        match (&record.state, every) {
            (SandboxState::Running { .. }, Some(every)) => {
                let next = *pace.next.get_or_insert_with(|| Instant::now() + every);
                tokio::time::sleep_until(next.into()).await;
            }
            _ => {
                pace.next = None;
                std::future::pending().await
            }
        }
    }

    /// Saves it, unless it is in use just now: then soon.
    pub(super) async fn save_now(&self, pace: &mut Pace) {
        let record = self.live.record();
        let Some(every) = record.sleep.checkpoint_every else {
            return;
        };
        let seen = self.live.gate.seen();
        if !self.live.gate.close_if_quiet(seen) {
            let due = pace.next.replace(Instant::now() + BUSY);
            if !pace.late && due.is_some() {
                pace.late = true;
                let fields = BTreeMap::from([("reason".to_owned(), "it is in use".to_owned())]);
                self.log_checkpoint(Level::Warn, "sandbox.checkpoint_late", fields)
                    .await;
            }
            return;
        }
        let begun = Instant::now();
        let saved = self.save_running(&record, begun).await;
        self.live.gate.open();
        self.inner
            .observed
            .tell(Transition::Checkpoint, begun, &saved);
        (pace.next, pace.late) = (Some(Instant::now() + every), false);
        if let Err(fault) = saved {
            tracing::warn!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "a running sandbox could not be saved");
            let fields = BTreeMap::from([
                ("reason".to_owned(), fault.message.clone()),
                ("purpose".to_owned(), "periodic".to_owned()),
            ]);
            self.log_checkpoint(Level::Warn, "sandbox.checkpoint_failed", fields)
                .await;
        }
    }

    async fn save_running(&self, record: &Sandbox, begun: Instant) -> Result<(), Fault> {
        let inner = &self.inner;
        self.can_save(record, SnapshotContent::Memory).await?;
        shelf::check_quota(inner, &record.workspace).await?;
        self.quiet().await;
        let purpose = SnapshotPurpose::Sleep {
            sandbox: record.id.clone(),
        };
        let mut draft = shelf::draft(inner, record, SnapshotContent::Memory, purpose);
        let parent = shelf::parent(inner, record).await;
        draft.parent = parent.as_ref().map(|(id, _)| id.clone());
        let intent = inner.store.snapshot_insert(&draft).await;
        intent.map_err(fault::store)?;
        let spec = CheckpointSpec {
            snapshot: draft.id.clone(),
            parent: draft.parent.clone(),
            content: draft.content,
            then: Then::Continue,
            timeout: inner.options.checkpoint_timeout,
        };
        let done = match inner.driver.checkpoint(&record.id, spec).await {
            Ok(done) => done,
            Err(error) => {
                shelf::discard(inner, &draft.id).await;
                return Err(fault::driver(error));
            }
        };
        let now = Timestamp::now();
        let saved = Event::Saved {
            snapshot: draft.id.clone(),
        };
        let mut step = lifecycle::step(&self.live.record(), saved, now)?;
        let mut fields = down::fields(begun, &done.timings);
        let written = done.size.written_bytes.to_string();
        fields.insert("written_bytes".to_owned(), written);
        annotate(&mut step.log, &fields);
        let Next::Store(next) = step.next else {
            return Err(Fault::internal("a checkpoint was not stored"));
        };
        let log = events(step.log, now);
        let ready = shelf::ready(&draft, done.size);
        let stored = inner.store.sandbox_update_with_snapshot(&next, log, &ready);
        stored.await.map_err(fault::store)?;
        self.live.set_record(*next);
        if let Some(last) = record.last_snapshot.clone() {
            let (inner, id) = (Arc::clone(inner), record.id.clone());
            tasks::spawn(&self.inner.tasks, "old snapshot", async move {
                shelf::discard_slept(&inner, &id, &last).await;
            });
        }
        Ok(())
    }
}
