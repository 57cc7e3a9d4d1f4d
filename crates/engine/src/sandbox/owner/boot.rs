//! Bringing a new sandbox up.

use std::time::{Duration, Instant};

use woodfrog_core::lifecycle::{self, Event, Next};
use woodfrog_sandbox::{LaunchSpec, Launched, Outbound, RestoreSpec};
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Fault, Timestamp};

use super::{After, Owner, annotate, events};
use crate::layers;
use crate::sandbox::launch::{self, Boot, Origin};
use crate::sandbox::spares::{self, Spare};
use crate::{fault, guest};

impl Owner {
    /// Brings a new sandbox up and tells the caller how that went.
    pub(super) async fn boot(&self, mut boot: Boot) -> After {
        let spare = match &mut boot.origin {
            Origin::Layers { spare } => spare.take(),
            Origin::Snapshot { .. } => None,
        };
        let result = self.bring_up(&boot, spare).await;
        let after = match &result {
            Ok(()) => After::Exists,
            Err(fault) => {
                tracing::warn!(sandbox = %self.live.id, error = fault as &dyn std::error::Error, "create failed");
                if let Origin::Snapshot { warm: true, .. } = boot.origin {
                    self.inner.warm.give_up(self.live.record().build);
                }
                self.undo(&boot).await;
                After::Gone
            }
        };
        if after == After::Gone {
            self.inner.registry.remove(&self.live);
        }
        if let Origin::Layers { .. } = boot.origin {
            spares::refill(&self.inner);
        }
        // A caller that went away leaves the sandbox to its deadline.
        let _ = boot.reply.send(result.map_err(fault::create));
        after
    }

    async fn bring_up(&self, boot: &Boot, spare: Option<Spare>) -> Result<(), Fault> {
        let inner = &self.inner;
        let record = self.live.record();
        // Until the driver has them.
        let _used = inner.layer_uses.begin(&*inner.images);
        layers::bring(inner, &boot.image.layers).await?;
        let spec = launch::spec(inner, &record, &boot.image).await?;
        // The intent is durable before anything of the sandbox exists.
        let begun = Instant::now();
        let stored = inner.store.sandbox_insert(&record, Vec::new()).await;
        stored.map_err(fault::store)?;
        let recorded = begun.elapsed();
        let launch = self.launch(spec, &boot.origin, spare);
        let (began, ()) = tokio::try_join!(launch, self.mark_idempotency(boot))?;
        let (launched, copied) = began;
        let running_after = begun.elapsed();
        let now = Timestamp::now();
        let ready = Event::Ready {
            instance: launched.instance,
        };
        let mut step = lifecycle::step(&record, ready, now)?;
        let Next::Store(running) = step.next else {
            return Err(Fault::internal("a ready sandbox was not stored"));
        };
        let mut fields = super::sleep::fields(begun, &launched.timings);
        if let (Origin::Snapshot { snapshot, .. }, Some(_)) = (&boot.origin, copied) {
            fields.insert("snapshot".to_owned(), snapshot.to_string());
        }
        annotate(&mut step.log, &fields);
        let log = events(step.log, now);
        let commit = async {
            let stored = inner.store.sandbox_update(&running, log).await;
            stored.map_err(fault::store)?;
            Ok::<_, Fault>(begun.elapsed())
        };
        if has_services(boot, copied) {
            self.configure(&running, boot, begun).await?;
            guest::start_services(inner, &running.id, &boot.image).await?;
            commit.await?;
        } else {
            // If we die in between, adoption repeats the configuring.
            let configure = self.configure(&running, boot, begun);
            let (configured_after, committed_after) = tokio::try_join!(configure, commit)?;
            tracing::debug!(
                sandbox = %running.id, ?recorded, ?running_after, ?configured_after,
                ?committed_after, driver = ?launched.timings, "created"
            );
        }
        self.live.set_record(*running);
        self.publish(&boot.image);
        self.live.gate.open();
        self.effects(&step.effects).await;
        Ok(())
    }

    /// Makes it; says of what content it is a copy, if it is one.
    async fn launch(
        &self,
        spec: LaunchSpec,
        origin: &Origin,
        spare: Option<Spare>,
    ) -> Result<(Launched, Option<SnapshotContent>), Fault> {
        let driver = &self.inner.driver;
        let launch = async |spec| {
            let launched = driver.launch(spec).await.map_err(fault::driver);
            launched.map(|launched| (launched, None))
        };
        let Origin::Snapshot {
            snapshot,
            content,
            warm,
            ..
        } = origin
        else {
            if let Some(spare) = spare
                && let Some(launched) = spares::become_one(&self.inner, spare, &spec).await
            {
                return Ok((launched, None));
            }
            return launch(spec).await;
        };
        let restore = RestoreSpec {
            launch: spec.clone(),
            snapshot: snapshot.clone(),
            content: *content,
            // They are those of the sandbox that it is a copy of.
            outbound: Outbound::End,
            timeout: self.inner.options.restore_timeout,
        };
        match driver.restore(restore).await {
            Ok(restored) => Ok((restored, Some(*content))),
            Err(error) if *warm => {
                tracing::warn!(%snapshot, %error, "a started template cannot be used; it boots");
                self.inner.warm.give_up(self.live.record().build);
                launch(spec).await
            }
            Err(error) => Err(fault::driver(error)),
        }
    }

    async fn configure(
        &self,
        running: &Sandbox,
        boot: &Boot,
        begun: Instant,
    ) -> Result<Duration, Fault> {
        guest::configure(&self.inner, running, &boot.image).await?;
        Ok(begun.elapsed())
    }

    /// Ties the idempotency key to this sandbox before it runs, so that no crash can leave a
    /// running sandbox that a retry would make again.
    async fn mark_idempotency(&self, boot: &Boot) -> Result<(), Fault> {
        let Some(key) = &boot.idempotency_key else {
            return Ok(());
        };
        let outcome = woodfrog_store::IdempotencyOutcome::Done {
            result: self.live.id.to_string(),
        };
        let workspace = &self.live.record().workspace;
        let marked = self
            .inner
            .store
            .idempotency_finish(workspace, key, outcome)
            .await;
        marked.map_err(fault::store)
    }

    /// Leaves nothing of a sandbox that did not come up. What cannot be removed stays recorded as
    /// intended, and the next start of the server removes it.
    async fn undo(&self, boot: &Boot) {
        let record = self.live.record();
        let now = Timestamp::now();
        if let Err(fault) = launch::destroy(&self.inner, &record.id).await {
            tracing::error!(sandbox = %record.id, error = &fault as &dyn std::error::Error, "a failed sandbox could not be removed");
            return;
        }
        let log = lifecycle::step(&record, Event::Destroyed, now)
            .map_or_else(|_| Vec::new(), |step| step.log);
        if let Err(error) = self
            .inner
            .store
            .sandbox_remove(&record.id, events(log, now))
            .await
        {
            tracing::error!(sandbox = %record.id, %error, "the record of a failed sandbox could not be removed");
        }
        if let Some(key) = &boot.idempotency_key {
            let freed = woodfrog_store::IdempotencyOutcome::Freed;
            let finish = self
                .inner
                .store
                .idempotency_finish(&record.workspace, key, freed);
            if let Err(error) = finish.await {
                tracing::warn!(sandbox = %record.id, %error, "an idempotency key could not be freed");
            }
        }
    }

    /// Goes on with a sandbox that runs.
    pub(super) async fn resume_running(&self, stored: &Sandbox) {
        let image = self.image(stored).await;
        self.publish(&image);
        self.live.gate.open();
        if let Err(fault) = guest::configure(&self.inner, stored, &image).await {
            tracing::warn!(sandbox = %stored.id, error = &fault as &dyn std::error::Error, "the guest of an adopted sandbox does not answer");
        }
    }
}

/// Whether the template's commands have to be started: not in a copy whose processes go on.
fn has_services(boot: &Boot, copied: Option<SnapshotContent>) -> bool {
    copied != Some(SnapshotContent::Memory)
        && (boot.image.start_cmd.is_some() || boot.image.ready_cmd.is_some())
}
