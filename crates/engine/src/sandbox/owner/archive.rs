//! The lowest rung: to the archive, and back from it.
//!
//! The intent is committed first; the move itself is the owner's next step, and is given up for
//! whatever is asked of the sandbox meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use woodfrog_core::lifecycle::{self, Event, Next};
use woodfrog_store::NewEvent;
use woodfrog_types::event::Level;
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::{Snapshot, SnapshotContent, SnapshotPlace};
use woodfrog_types::{Code, Fault, SnapshotId, Timestamp};

use super::{After, Owner, annotate, events, sleep as down};
use crate::fault;
use crate::layers;
use crate::sandbox::attic::{self, Uploaded};
use crate::sandbox::live::Command;
use crate::sandbox::{launch, shelf};
use crate::transition::Transition;

/// Tries to record a move to the archive.
const COMMIT_TRIES: u32 = 5;
const COMMIT_PAUSE: Duration = Duration::from_millis(200);

/// Those who wait for a move that this owner has begun.
pub(super) type Waiting = Vec<oneshot::Sender<Result<Arc<Sandbox>, Fault>>>;

impl Owner {
    /// On somebody's request: down to the archive from whatever rung.
    pub(super) async fn archive_requested(
        &self,
        reply: oneshot::Sender<Result<Arc<Sandbox>, Fault>>,
    ) {
        match self.archive_begin().await {
            Ok(true) => self.begun().get_or_insert_default().push(reply),
            Ok(false) => drop(reply.send(Ok(self.live.record()))),
            Err(fault) => drop(reply.send(Err(fault))),
        }
    }

    /// Because its time has come.
    pub(super) async fn archive_due(&self) {
        if !self.inner.attic.is_there() {
            return self.no_archive().await;
        }
        match Box::pin(self.archive_begin()).await {
            Ok(true) => drop(self.begun().get_or_insert_default()),
            Ok(false) => {}
            Err(fault) => {
                tracing::warn!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "a sandbox whose time had come could not be archived");
            }
        }
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, Option<Waiting>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits the intent; says whether there is something to move.
    async fn archive_begin(&self) -> Result<bool, Fault> {
        if !self.inner.attic.is_there() {
            return Err(Fault::new(
                Code::Unsupported,
                "archiving is not supported: this server has no archive",
            ));
        }
        let record = self.live.record();
        match &record.state {
            SandboxState::Archived { .. } => return Ok(false),
            SandboxState::Running { .. } => {
                let content = SnapshotContent::Memory;
                self.hibernate(content, SleepCause::Requested).await?;
            }
            SandboxState::Paused { sleep, .. } => {
                self.hibernate(SnapshotContent::Memory, sleep.cause).await?;
            }
            SandboxState::Hibernated { .. }
            | SandboxState::Creating
            | SandboxState::Hibernating { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Deleting { .. } => {}
        }
        self.apply(Event::Archive).await?;
        Ok(true)
    }

    /// Moves it to the archive, if this owner began that. It stops for whoever wants the sandbox.
    pub(super) async fn archiving(&self, inbox: &mut mpsc::Receiver<Command>) -> After {
        let Some(mut waiting) = self.begun().take() else {
            return self.settle().await;
        };
        let begun = Instant::now();
        let SandboxState::Archiving { snapshot, .. } = self.live.record().state.clone() else {
            return After::Exists;
        };
        let wanted = {
            let uploaded = attic::upload(&self.inner, &snapshot);
            tokio::pin!(uploaded);
            loop {
                let command = tokio::select! {
                    biased;
                    () = self.inner.stopping.cancelled() => return After::Stopped,
                    uploaded = &mut uploaded => break Err(uploaded),
                    command = inbox.recv() => command,
                };
                match command {
                    None => return After::Stopped,
                    Some(Command::Archive { reply }) => waiting.push(reply),
                    Some(Command::Evict { reply }) => drop(reply.send(Ok(false))),
                    Some(Command::Due | Command::Rethink) => {}
                    Some(Command::Lost) => return self.lost().await,
                    Some(Command::Wake { reply, .. })
                        if self.inner.moves.is_moving(&self.live.id) =>
                    {
                        let moving = self.inner.moves.check(&self.live.id);
                        drop(reply.send(moving.map(|()| false)));
                    }
                    Some(other) => break Ok(other),
                }
            }
        };
        let (result, next) = match wanted {
            Err(Ok(uploaded)) => (self.archive(&snapshot, &uploaded, begun).await, None),
            Err(Err(fault)) => (Err(fault), None),
            Ok(command) => {
                let text = "the sandbox was wanted while it was being archived";
                (Err(Fault::new(Code::Conflict, text)), Some(command))
            }
        };
        let observed = &self.inner.observed;
        observed.tell(Transition::Archive, begun, &result);
        let result = match result {
            Ok(()) => Ok(()),
            Err(fault) => Err(self.not_archived(fault).await),
        };
        if result.is_ok() && self.inner.moves.is_moving(&self.live.id) {
            self.inner.moves.leaving(&self.inner, &self.live.id).await;
            // What streams from it here does not go on here.
            self.live.gate.end();
        }
        for reply in waiting {
            let answer = match &result {
                Ok(()) => Ok(self.live.record()),
                Err(fault) => Err(Fault::new(fault.code, fault.message.clone())),
            };
            let _ = reply.send(answer);
        }
        match next {
            Some(command) => self.handle(command).await,
            None => After::Exists,
        }
    }

    /// It stays on this machine.
    async fn not_archived(&self, fault: Fault) -> Fault {
        tracing::warn!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "a sandbox was not archived");
        let reason = fault.message.clone();
        match self.apply(Event::ArchiveFailed { reason }).await {
            Ok(_) => fault,
            Err(worse) => worse.because(fault),
        }
    }

    /// It is in the archive: that is recorded, and then it goes from here.
    async fn archive(
        &self,
        snapshot: &SnapshotId,
        uploaded: &Uploaded,
        begun: Instant,
    ) -> Result<(), Fault> {
        if let Some(image) = launch::image(&self.inner, &self.live.record()).await {
            // Whoever wakes it needs them.
            layers::ship(&self.inner, &image.layers).await?;
        }
        let mut fields = down::fields(begun, &[]);
        for (name, bytes) in [
            ("bytes", uploaded.bytes),
            ("written_bytes", uploaded.written_bytes),
        ] {
            fields.insert(name.to_owned(), bytes.to_string());
        }
        fields.insert("archive".to_owned(), uploaded.archive.to_string());
        let mut tries = 1;
        while let Err(fault) = self.archived(snapshot, uploaded, &fields).await {
            if tries == COMMIT_TRIES {
                return Err(fault);
            }
            tracing::warn!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "a move to the archive could not be recorded; again");
            tokio::time::sleep(COMMIT_PAUSE * tries).await;
            tries += 1;
        }
        attic::clear_local(&self.inner, snapshot).await;
        Ok(())
    }

    /// Commits that it is in the archive, with the place of its snapshot, in one transaction.
    async fn archived(
        &self,
        snapshot: &SnapshotId,
        uploaded: &Uploaded,
        fields: &BTreeMap<String, String>,
    ) -> Result<(), Fault> {
        let now = Timestamp::now();
        let (known, pin) = shelf::take(&self.inner, snapshot).await?;
        let moved = Snapshot {
            place: SnapshotPlace::Archive {
                archive: uploaded.archive.clone(),
            },
            generation: known.generation + 1,
            ..known
        };
        let mut step = lifecycle::step(&self.live.record(), Event::Archived, now)?;
        annotate(&mut step.log, fields);
        let Next::Store(next) = step.next else {
            return Err(Fault::internal("a move to the archive was not stored"));
        };
        let log = events(step.log, now);
        let stored = self
            .inner
            .store
            .sandbox_update_with_snapshot(&next, log, &moved);
        stored.await.map_err(fault::store)?;
        drop(pin);
        self.live.set_record(*next);
        self.effects(&step.effects).await;
        Ok(())
    }

    /// Brings its snapshot back from the archive; what is there stays as it is.
    pub(super) async fn unarchive(&self) -> Result<(), Fault> {
        let begun = Instant::now();
        let SandboxState::Archived { snapshot, .. } = self.live.record().state.clone() else {
            return Ok(());
        };
        let back = async {
            let (known, pin) = shelf::take(&self.inner, &snapshot).await?;
            let (_, bytes) = attic::bring_back(&self.inner, known).await?;
            Ok((bytes, pin))
        };
        let back: Result<_, Fault> = back.await;
        let observed = &self.inner.observed;
        observed.tell(Transition::Unarchive, begun, &back);
        let (bytes, _pin) = match back {
            Ok(back) => back,
            Err(fault) => return Err(self.not_brought_back(&snapshot, fault).await),
        };
        let mut fields = down::fields(begun, &[]);
        fields.insert("bytes".to_owned(), bytes.to_string());
        self.apply_with(Event::Unarchived, &fields).await.map(drop)
    }

    async fn not_brought_back(&self, snapshot: &SnapshotId, fault: Fault) -> Fault {
        tracing::error!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "a sandbox could not be brought back from the archive");
        let event = NewEvent {
            at: Timestamp::now(),
            level: Level::Error,
            kind: "sandbox.unarchive_failed".to_owned(),
            message: "it could not be brought back from the archive, where it is untouched"
                .to_owned(),
            fields: BTreeMap::from([
                ("reason".to_owned(), fault.message.clone()),
                ("snapshot".to_owned(), snapshot.to_string()),
            ]),
        };
        let logged = self.inner.store.event_append(&self.live.id, vec![event]);
        if let Err(error) = logged.await {
            tracing::warn!(sandbox = %self.live.id, %error, "the log could not be written");
        }
        fault
    }
}
