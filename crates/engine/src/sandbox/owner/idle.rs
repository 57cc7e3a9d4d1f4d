//! Idleness: when nothing uses a running sandbox, it goes to sleep.

use std::collections::BTreeMap;
use std::time::Duration;

use woodfrog_core::sleep;
use woodfrog_sandbox::Capability;
use woodfrog_store::NewEvent;
use woodfrog_types::event::Level;
use woodfrog_types::sandbox::SandboxState;
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Fault, Timestamp};

use super::{After, Owner};
use crate::sandbox::metrics;

/// Between two looks whether it is time, at least.
const LOOK_MIN: Duration = Duration::from_millis(10);

impl Owner {
    /// Resolves when it may be time to go to sleep. Armed by what was known when it began; who
    /// uses the sandbox meanwhile changes nothing here, [`Self::doze`] looks again.
    pub(super) async fn idle(&self) {
        let now = Timestamp::now();
        match self.idle_at(now) {
            Some(at) => tokio::time::sleep(at.since(now).max(LOOK_MIN)).await,
            None => std::future::pending().await,
        }
    }

    fn idle_at(&self, now: Timestamp) -> Option<Timestamp> {
        let can_pause = self.inner.driver.capabilities();
        if !self.live.gate.is_open() || can_pause.why_missing(Capability::Pause).is_some() {
            return None;
        }
        let record = self.live.record();
        match record.state {
            SandboxState::Running { .. } => {
                let last = self.live.gate.seen().last;
                sleep::idle_due(&record.sleep, last, self.live.held(now))
            }
            SandboxState::Creating
            | SandboxState::Paused { .. }
            | SandboxState::Hibernating { .. }
            | SandboxState::Hibernated { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Archived { .. }
            | SandboxState::Deleting { .. } => None,
        }
    }

    /// Puts the sandbox to sleep if it is time and nothing used it since that was found out.
    pub(super) async fn doze(&self) -> After {
        // What computes is in use; seen late otherwise, if samples are rare.
        metrics::sample(&self.inner, &self.live).await;
        let seen = self.live.gate.seen();
        let now = Timestamp::now();
        let due = self.idle_at(now).is_some_and(|at| at <= now);
        if !due || !self.live.gate.close_if_quiet(seen) {
            return After::Exists;
        }
        if let Err(fault) = self.pause(SleepCause::Idle).await {
            tracing::warn!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "an idle sandbox could not be paused");
            self.log_idle(&fault).await;
            self.live.gate.open();
        }
        After::Exists
    }

    /// Goes down one rung, if nothing used it for this long.
    pub(super) async fn sweep(&self, idle: Duration) {
        let now = Timestamp::now();
        let record = self.live.record();
        let seen = self.live.gate.seen();
        let held = self.live.held(now).is_some() || seen.leases > 0;
        let result = match sleep::swept(&record, seen.last, held, idle, now) {
            None => return,
            Some(sleep::Rung::Pause) => {
                if !self.live.gate.close_if_quiet(seen) {
                    return;
                }
                let paused = self.pause(SleepCause::Idle).await;
                if paused.is_err() {
                    self.live.gate.open();
                }
                paused
            }
            Some(sleep::Rung::Hibernate) => {
                let cause =
                    super::asleep(&record).map_or(SleepCause::Idle, |(slept, _)| slept.cause);
                self.hibernate(SnapshotContent::Memory, cause).await
            }
            Some(sleep::Rung::Archive) => {
                if self.inner.attic.is_there() {
                    self.archive_due().await;
                }
                return;
            }
            Some(sleep::Rung::Warn | sleep::Rung::Delete) => return,
        };
        if let Err(fault) = result {
            tracing::warn!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "a sweep could not put a sandbox to sleep");
        }
    }

    async fn log_idle(&self, fault: &Fault) {
        let event = NewEvent {
            at: Timestamp::now(),
            level: Level::Warn,
            kind: "sandbox.pause_failed".to_owned(),
            message: format!("idle, but it could not be paused: {}", fault.message),
            fields: BTreeMap::from([("code".to_owned(), fault.code.to_string())]),
        };
        let logged = self.inner.store.event_append(&self.live.id, vec![event]);
        if let Err(error) = logged.await {
            tracing::warn!(sandbox = %self.live.id, %error, "the log could not be written");
        }
    }

    /// Gives its place to another sandbox, if nothing uses this one. Says whether it did.
    pub(super) async fn evict(&self) -> bool {
        let record = self.live.record();
        let cause = match &record.state {
            SandboxState::Running { .. } => {
                let seen = self.live.gate.seen();
                let idle = Timestamp::now().since(seen.last) >= self.inner.options.evict_idle;
                if !idle || !self.live.gate.close_if_quiet(seen) {
                    return false;
                }
                SleepCause::Idle
            }
            SandboxState::Paused { sleep, .. } => sleep.cause,
            SandboxState::Creating
            | SandboxState::Hibernating { .. }
            | SandboxState::Hibernated { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Archived { .. }
            | SandboxState::Deleting { .. } => return false,
        };
        match self.hibernate(SnapshotContent::Memory, cause).await {
            Ok(()) => true,
            Err(fault) => {
                tracing::info!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "an idle sandbox could not give its place away");
                false
            }
        }
    }
}
