//! Snapshots of a sandbox that goes on.

use std::collections::BTreeMap;
use std::time::Instant;

use woodfrog_sandbox::{CheckpointSpec, Then};
use woodfrog_store::NewEvent;
use woodfrog_types::event::Level;
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::snapshot::{Snapshot, SnapshotContent, SnapshotPurpose};
use woodfrog_types::{Code, Fault, SnapshotId, Timestamp};

use super::{Owner, sleep};
use crate::fault;
use crate::sandbox::shelf;
use crate::transition::Transition;

impl Owner {
    /// Takes the snapshot that is drafted here; it is safe on disk when this returns.
    pub(super) async fn checkpoint(&self, mut draft: Snapshot) -> Result<Snapshot, Fault> {
        let record = self.live.record();
        match &record.state {
            SandboxState::Running { .. } => {
                self.can_save(&record, draft.content).await?;
                let parent = shelf::parent(&self.inner, &record).await;
                draft.parent = parent.as_ref().map(|(id, _)| id.clone());
                self.quiet().await;
                let taken = self.take(&draft).await;
                self.live.gate.open();
                taken
            }
            SandboxState::Paused { .. } => {
                self.can_save(&record, draft.content).await?;
                let parent = shelf::parent(&self.inner, &record).await;
                draft.parent = parent.as_ref().map(|(id, _)| id.clone());
                self.quiet().await;
                self.take(&draft).await
            }
            SandboxState::Hibernated { snapshot, .. } | SandboxState::Archived { snapshot, .. } => {
                self.keep(snapshot, draft).await
            }
            SandboxState::Creating
            | SandboxState::Hibernating { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Deleting { .. } => Err(unsettled(&record)),
        }
    }

    async fn take(&self, draft: &Snapshot) -> Result<Snapshot, Fault> {
        let begun = Instant::now();
        let inner = &self.inner;
        shelf::check_quota(inner, &draft.workspace).await?;
        let intent = inner.store.snapshot_insert(draft).await;
        intent.map_err(taken_name)?;
        let spec = CheckpointSpec {
            snapshot: draft.id.clone(),
            parent: draft.parent.clone(),
            content: draft.content,
            then: Then::Continue,
            timeout: inner.options.checkpoint_timeout,
        };
        let done = inner.driver.checkpoint(&draft.source, spec).await;
        inner.observed.tell(Transition::Checkpoint, begun, &done);
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                let reason = BTreeMap::from([("reason".to_owned(), error.to_string())]);
                self.log_checkpoint(Level::Warn, "sandbox.checkpoint_failed", reason)
                    .await;
                shelf::discard(inner, &draft.id).await;
                return Err(fault::driver(error));
            }
        };
        let ready = shelf::ready(draft, done.size);
        let stored = inner.store.snapshot_update(&ready).await;
        if let Err(error) = stored {
            shelf::discard(inner, &draft.id).await;
            return Err(fault::store(error));
        }
        let mut fields = sleep::fields(begun, &done.timings);
        for (name, value) in [
            ("snapshot", ready.id.to_string()),
            ("content", ready.content.as_str().to_owned()),
            ("purpose", ready.purpose.as_str().to_owned()),
            ("written_bytes", done.size.written_bytes.to_string()),
        ] {
            fields.insert(name.to_owned(), value);
        }
        self.log_checkpoint(Level::Info, "sandbox.checkpointed", fields)
            .await;
        Ok(ready)
    }

    pub(super) async fn log_checkpoint(
        &self,
        level: Level,
        kind: &str,
        fields: BTreeMap<String, String>,
    ) {
        let message = match level {
            Level::Debug | Level::Info => "a snapshot was taken; it goes on",
            Level::Warn | Level::Error => "a snapshot could not be taken; it goes on",
        };
        let event = NewEvent {
            at: Timestamp::now(),
            level,
            kind: kind.to_owned(),
            message: message.to_owned(),
            fields,
        };
        let logged = self.inner.store.event_append(&self.live.id, vec![event]);
        if let Err(error) = logged.await {
            tracing::warn!(sandbox = %self.live.id, %error, "the log could not be written");
        }
    }

    /// The snapshot that it sleeps in is what is wanted: it is kept under the name that was asked
    /// for, and the sandbox goes on sleeping in it.
    async fn keep(&self, slept_in: &SnapshotId, draft: Snapshot) -> Result<Snapshot, Fault> {
        let (known, _pin) = shelf::take(&self.inner, slept_in).await?;
        let wanted = (known.content, draft.content);
        if wanted == (SnapshotContent::Filesystem, SnapshotContent::Memory)
            || wanted == (SnapshotContent::Memory, SnapshotContent::Filesystem)
        {
            return Err(Fault::new(
                Code::Conflict,
                format!(
                    "the sandbox sleeps with its {}; resume it first",
                    known.content.as_str()
                ),
            ));
        }
        match &known.purpose {
            SnapshotPurpose::Sleep { .. } => {}
            SnapshotPurpose::Checkpoint if draft.name.is_none() || draft.name == known.name => {
                return Ok(known);
            }
            SnapshotPurpose::Checkpoint | SnapshotPurpose::Warm { .. } | SnapshotPurpose::Fork => {
                return Err(Fault::new(
                    Code::Conflict,
                    format!("the sandbox sleeps in the snapshot {} already", known.id),
                ));
            }
        }
        if draft.purpose != SnapshotPurpose::Checkpoint {
            return Ok(known);
        }
        let kept = Snapshot {
            purpose: SnapshotPurpose::Checkpoint,
            name: draft.name,
            labels: draft.labels,
            generation: known.generation + 1,
            ..known
        };
        let stored = self.inner.store.snapshot_update(&kept).await;
        stored.map_err(taken_name)?;
        Ok(kept)
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

fn taken_name(error: woodfrog_store::StoreError) -> Fault {
    match error {
        woodfrog_store::StoreError::Constraint { .. } => Fault::new(
            Code::AlreadyExists,
            "the workspace has a snapshot of that name",
        )
        .with_field("name"),
        error => fault::store(error),
    }
}
