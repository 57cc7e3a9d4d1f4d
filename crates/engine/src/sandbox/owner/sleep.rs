//! Going down the ladder: standing still, and being saved to disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use woodfrog_core::lifecycle::{self, Event, Next};
use woodfrog_core::sleep::Rearm;
use woodfrog_sandbox::{Capability, CheckpointSpec, Checkpointed, DriverError, Then};
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::sleep::{Fallback, Sleep, SleepCause};
use woodfrog_types::snapshot::{Snapshot, SnapshotContent, SnapshotPurpose};
use woodfrog_types::{Code, Fault, Timestamp};

use super::{After, Owner, annotate, events};
use crate::request::HibernateRequest;
use crate::sandbox::{launch, shelf};
use crate::transition::Transition;
use crate::{fault, tasks};

/// Tries to record that a sandbox sleeps, once it does.
const COMMIT_TRIES: u32 = 5;
const COMMIT_PAUSE: Duration = Duration::from_millis(200);
/// Until a deadline whose sandbox could not be put to sleep is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// How long something took, and each step of the driver's in it.
pub(super) fn fields(
    begun: Instant,
    timings: &[(&'static str, Duration)],
) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::from([(
        "duration_ms".to_owned(),
        begun.elapsed().as_millis().to_string(),
    )]);
    for (step, took) in timings {
        let name = format!("{}_us", step.replace(' ', "_"));
        fields.insert(name, took.as_micros().to_string());
    }
    fields
}

impl Owner {
    /// On somebody's request. Streams stay open and stand still, too.
    pub(super) async fn pause_requested(&self) -> Result<After, Fault> {
        let record = self.live.record();
        if !matches!(record.state, SandboxState::Running { .. }) {
            // One that sleeps stays as it is; the lifecycle refuses the others.
            return self.check_settled(&record).map(|()| After::Exists);
        }
        self.can(Capability::Pause, "pausing")?;
        self.live.gate.close();
        let paused = self.pause(SleepCause::Requested).await;
        if paused.is_err() {
            self.live.gate.open();
        }
        paused.map(|()| After::Exists)
    }

    /// Freezes it. The gate is closed already.
    pub(super) async fn pause(&self, cause: SleepCause) -> Result<(), Fault> {
        let begun = Instant::now();
        let paused = self.pause_begun(cause, begun).await;
        let observed = &self.inner.observed;
        observed.tell(Transition::Pause, begun, &paused);
        paused
    }

    async fn pause_begun(&self, cause: SleepCause, begun: Instant) -> Result<(), Fault> {
        let now = Timestamp::now();
        let record = self.live.record();
        let mut step = lifecycle::step(&record, Event::Pause { cause }, now)?;
        let Next::Store(next) = step.next else {
            return Ok(());
        };
        let stored = self.inner.store.sandbox_update(&next, Vec::new()).await;
        stored.map_err(fault::store)?;
        self.live.set_record(*next);
        self.inner.alarm.set(self.live.record().due());
        if let Err(error) = self.inner.driver.pause(&self.live.id).await {
            let rearm = Rearm::At(record.deadline);
            self.apply(Event::Thawed { rearm }).await?;
            return Err(fault::driver(error));
        }
        annotate(&mut step.log, &fields(begun, &[]));
        self.log_later(events(step.log, now));
        Ok(())
    }

    /// Adds to the log while others go on.
    fn log_later(&self, log: Vec<woodfrog_store::NewEvent>) {
        let (inner, id) = (Arc::clone(&self.inner), self.live.id.clone());
        tasks::spawn(&self.inner.tasks, "sandbox log", async move {
            if let Err(error) = inner.store.event_append(&id, log).await {
                tracing::warn!(sandbox = %id, %error, "the log could not be written");
            }
        });
    }

    /// Freezes what is recorded as standing still.
    pub(super) async fn freeze(&self) {
        if let Err(error) = self.inner.driver.pause(&self.live.id).await {
            tracing::error!(sandbox = %self.live.id, %error, "a paused sandbox could not be frozen again");
        }
    }

    /// On somebody's request; says whether it slept like that before.
    pub(super) async fn hibernate_requested(
        &self,
        request: HibernateRequest,
    ) -> Result<bool, Fault> {
        let HibernateRequest { content, cause } = request;
        let record = self.live.record();
        match &record.state {
            SandboxState::Hibernated { sleep, .. } | SandboxState::Archived { sleep, .. } => {
                let dozed = matches!(sleep.cause, SleepCause::Idle | SleepCause::Requested);
                if !dozed || sleep.cause == cause {
                    return Ok(true);
                }
                self.apply(Event::Recause { cause }).await?;
                Ok(false)
            }
            SandboxState::Running { .. } | SandboxState::Paused { .. } => {
                self.hibernate_or_fall_back(content, cause).await?;
                Ok(false)
            }
            SandboxState::Creating
            | SandboxState::Hibernating { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Deleting { .. } => Err(unsettled(&record)),
        }
    }

    fn check_settled(&self, record: &Sandbox) -> Result<(), Fault> {
        match &record.state {
            SandboxState::Running { .. }
            | SandboxState::Paused { .. }
            | SandboxState::Hibernated { .. }
            | SandboxState::Archived { .. } => Ok(()),
            SandboxState::Creating
            | SandboxState::Hibernating { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Deleting { .. } => Err(unsettled(record)),
        }
    }

    /// Because its time has come. It must not be asked for at once again, whatever happens.
    pub(super) async fn fall_asleep(&self, content: SnapshotContent, cause: SleepCause) {
        let Err(fault) = self.hibernate_or_fall_back(content, cause).await else {
            return;
        };
        tracing::warn!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "a sandbox whose time had come could not be saved");
        if cause != SleepCause::Timeout {
            return;
        }
        let slept = match self.live.record().state {
            SandboxState::Running { .. } => {
                self.live.gate.close();
                self.live.gate.end();
                self.pause(cause).await
            }
            SandboxState::Paused { .. } => self.apply(Event::Recause { cause }).await.map(|_| ()),
            SandboxState::Creating
            | SandboxState::Hibernating { .. }
            | SandboxState::Hibernated { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Archived { .. }
            | SandboxState::Deleting { .. } => Ok(()),
        };
        if let Err(fault) = slept {
            tracing::error!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "a sandbox whose time was over runs on");
            self.live.gate.open();
            let deadline = Some(Timestamp::now().plus(AGAIN));
            let _ = Box::pin(self.apply(Event::SetDeadline { deadline })).await;
        }
    }

    /// There is no archive: what was to move stays where it is.
    pub(super) async fn no_archive(&self) {
        tracing::warn!(sandbox = %self.live.id, "it is to be archived, but this server has no archive");
        let mut policy = self.live.record().sleep;
        policy.archive_after = None;
        let _ = Box::pin(self.apply(Event::SetSleep { policy })).await;
    }

    async fn hibernate_or_fall_back(
        &self,
        content: SnapshotContent,
        cause: SleepCause,
    ) -> Result<(), Fault> {
        let result = self.hibernate(content, cause).await;
        let fallback = self.live.record().sleep.fallback;
        match (result, content, fallback) {
            (Err(fault), SnapshotContent::Memory, Fallback::Filesystem)
                if fault.code == Code::CheckpointFailed =>
            {
                self.hibernate(SnapshotContent::Filesystem, cause).await
            }
            (result, _, _) => result,
        }
    }

    pub(super) fn can(&self, capability: Capability, what: &str) -> Result<(), Fault> {
        match self.inner.driver.capabilities().why_missing(capability) {
            None => Ok(()),
            Some(why) => Err(Fault::new(
                Code::Unsupported,
                format!("{what} is not supported on this machine: {why}"),
            )),
        }
    }

    /// Refuses what could not be saved, or could not be brought back.
    pub(super) async fn can_save(
        &self,
        record: &Sandbox,
        content: SnapshotContent,
    ) -> Result<(), Fault> {
        match content {
            SnapshotContent::Memory => self.can(Capability::Checkpoint, "saving memory"),
            SnapshotContent::Filesystem => self.can(Capability::FilesystemSnapshot, "saving files"),
        }?;
        match launch::image(&self.inner, record).await {
            Some(_) => Ok(()),
            None => Err(Fault::new(
                Code::CheckpointFailed,
                "the sandbox cannot be saved: the template that it was made from is gone, and \
                 without it it could not be brought back",
            )),
        }
    }

    /// Saves it to disk and ends it there. On an error it goes on as before.
    pub(super) async fn hibernate(
        &self,
        content: SnapshotContent,
        cause: SleepCause,
    ) -> Result<(), Fault> {
        let begun = Instant::now();
        let record = self.live.record();
        let paused = match &record.state {
            SandboxState::Running { .. } => None,
            SandboxState::Paused { sleep, .. } => Some(*sleep),
            SandboxState::Creating
            | SandboxState::Hibernating { .. }
            | SandboxState::Hibernated { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Archived { .. }
            | SandboxState::Deleting { .. } => return Err(unsettled(&record)),
        };
        let result = async {
            self.can_save(&record, content).await?;
            shelf::check_quota(&self.inner, &record.workspace).await?;
            match cause {
                // What streams may be parked, and goes on after the wake.
                SleepCause::Idle | SleepCause::Requested => {}
                SleepCause::Held | SleepCause::Timeout => {
                    self.live.gate.close();
                    self.live.gate.end();
                }
            }
            self.put_away(&record, content, cause, paused, begun).await
        };
        let result = result.await;
        let observed = &self.inner.observed;
        observed.tell(Transition::Hibernate, begun, &result);
        self.reopen_unless(result.is_ok());
        result
    }

    /// Lets requests in again if it runs as before.
    pub(super) fn reopen_unless(&self, done: bool) {
        if !done && matches!(self.live.record().state, SandboxState::Running { .. }) {
            self.live.gate.open();
        }
    }

    /// Saves it, without asking whether it may.
    pub(super) async fn put_away(
        &self,
        record: &Sandbox,
        content: SnapshotContent,
        cause: SleepCause,
        paused: Option<Sleep>,
        begun: Instant,
    ) -> Result<(), Fault> {
        self.quiet().await;
        let purpose = SnapshotPurpose::Sleep {
            sandbox: record.id.clone(),
        };
        let mut draft = shelf::draft(&self.inner, record, content, purpose);
        let parent = shelf::parent(&self.inner, record).await;
        draft.parent = parent.as_ref().map(|(id, _)| id.clone());
        self.save(record, &draft, cause, paused, begun).await
    }

    /// Lets nobody in, and waits for those who are, as long as the options say: then they are cut.
    pub(super) async fn quiet(&self) {
        self.live.gate.close();
        let limit = self.inner.options.quiesce_timeout;
        let drained = tokio::time::timeout(limit, self.live.gate.drained());
        if drained.await.is_err() {
            tracing::info!(sandbox = %self.live.id, "operations that did not end are cut");
        }
    }

    async fn save(
        &self,
        record: &Sandbox,
        draft: &Snapshot,
        cause: SleepCause,
        paused: Option<Sleep>,
        begun: Instant,
    ) -> Result<(), Fault> {
        let now = Timestamp::now();
        let intent = Event::Hibernate {
            snapshot: draft.id.clone(),
            content: draft.content,
            cause,
        };
        let step = lifecycle::step(record, intent, now)?;
        let Next::Store(next) = step.next else {
            return Err(Fault::internal("an intent was not stored"));
        };
        let log = events(step.log, now);
        let stored = self
            .inner
            .store
            .sandbox_update_with_snapshot(&next, log, draft)
            .await;
        stored.map_err(fault::store)?;
        self.live.set_record(*next);
        let spec = CheckpointSpec {
            snapshot: draft.id.clone(),
            parent: draft.parent.clone(),
            content: draft.content,
            then: Then::Stop,
            timeout: self.inner.options.checkpoint_timeout,
        };
        match self.inner.driver.checkpoint(&record.id, spec).await {
            Ok(done) => self.saved(draft, &done, begun).await,
            Err(error) => self.not_saved(draft, paused, error).await,
        }
    }

    /// It is safe on disk and has ended.
    async fn saved(
        &self,
        draft: &Snapshot,
        done: &Checkpointed,
        begun: Instant,
    ) -> Result<(), Fault> {
        let before = self.live.record();
        let mut fields = fields(begun, &done.timings);
        for (name, bytes) in [
            ("memory_bytes", done.size.memory_bytes),
            ("written_bytes", done.size.written_bytes),
        ] {
            fields.insert(name.to_owned(), bytes.to_string());
        }
        let mut tries = 1;
        let effects = loop {
            let committed =
                crate::sandbox::settle::asleep(&self.inner, &before, draft, done.size, &fields);
            match committed.await {
                Ok((next, effects)) => {
                    self.live.set_record(next);
                    break effects;
                }
                Err(fault) if tries < COMMIT_TRIES => {
                    tracing::warn!(sandbox = %before.id, error = &fault as &dyn std::error::Error, "a sleep could not be recorded; again");
                    tokio::time::sleep(COMMIT_PAUSE * tries).await;
                    tries += 1;
                }
                // The owner settles it: see there.
                Err(fault) => return Err(fault),
            }
        };
        self.live.shut();
        self.effects(&effects).await;
        self.live.set_place(None);
        if let Some(last) = before.last_snapshot.clone() {
            let (inner, id) = (Arc::clone(&self.inner), before.id.clone());
            tasks::spawn(&self.inner.tasks, "old snapshot", async move {
                shelf::discard_slept(&inner, &id, &last).await;
            });
        }
        Ok(())
    }

    /// It goes on as before.
    async fn not_saved(
        &self,
        draft: &Snapshot,
        paused: Option<Sleep>,
        error: DriverError,
    ) -> Result<(), Fault> {
        let reason = match &error {
            DriverError::Checkpoint { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        let failed = Event::HibernateFailed { paused, reason };
        self.apply(failed).await?;
        shelf::discard(&self.inner, &draft.id).await;
        Err(fault::driver(error))
    }
}

fn unsettled(record: &Sandbox) -> Fault {
    Fault::new(
        Code::Transitioning,
        format!(
            "the sandbox is {}; try again in a moment",
            record.state.as_str()
        ),
    )
}
