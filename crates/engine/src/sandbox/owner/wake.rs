//! Going up the ladder: thawing, and coming back from disk.

use std::time::Instant;

use woodfrog_core::admission::Used;
use woodfrog_core::lifecycle::Event;
use woodfrog_core::sleep::{self, Rearm};
use woodfrog_sandbox::{DriverError, Launched, Outbound, RestoreSpec};
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::sleep::Sleep;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::template::BuiltImage;
use woodfrog_types::{Code, Fault, SnapshotId, Timestamp};

use super::{Owner, fresh, sleep as down};
use crate::layers;
use crate::sandbox::live::WakeOrder;
use crate::sandbox::metrics::Baseline;
use crate::sandbox::{launch, place, shelf};
use crate::transition::Transition;
use crate::{fault, guest};

/// Told to those who read from its processes.
const ANEW: &str = "its sandbox was started anew";

impl Owner {
    /// Sees to it that the sandbox runs. Says whether it slept.
    pub(super) async fn wake_for(&self, order: &WakeOrder) -> Result<bool, Fault> {
        self.inner.moves.check(&self.live.id)?;
        if let Some(failed) = self.live.failure_since(order.asked) {
            return Err(failed);
        }
        let record = self.live.record();
        if let Some((slept, content)) = asleep(&record)
            && !sleep::may_wake(slept, content, record.auto_resume, order.waker)
        {
            return Err(sleep::asleep());
        }
        let woke = match &record.state {
            SandboxState::Running { .. } => self.rearm(order.rearm).await.map(|()| false),
            SandboxState::Paused { sleep, .. } => match order.content {
                SnapshotContent::Memory => self.thaw(order.rearm).await.map(|()| true),
                // Its processes end; its files stay.
                SnapshotContent::Filesystem => {
                    let content = SnapshotContent::Filesystem;
                    match self.hibernate(content, sleep.cause).await {
                        Ok(()) => self.restore(order).await.map(|()| true),
                        Err(fault) => Err(fault),
                    }
                }
            },
            SandboxState::Hibernated { .. } => self.restore(order).await.map(|()| true),
            SandboxState::Archived { .. } => match self.unarchive().await {
                Ok(()) => self.restore(order).await.map(|()| true),
                Err(fault) => Err(wake_failed(fault)),
            },
            SandboxState::Creating
            | SandboxState::Hibernating { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Deleting { .. } => {
                return Err(Fault::sandbox_not_found(record.id.as_str()));
            }
        };
        let woke = woke.inspect_err(|fault| self.live.set_failure(fault))?;
        if let Some(on_timeout) = order.on_timeout {
            self.apply(Event::SetOnTimeout { on_timeout }).await?;
        }
        Ok(woke)
    }

    /// The deadline of one that runs already.
    async fn rearm(&self, rearm: Rearm) -> Result<(), Fault> {
        let event = match rearm {
            Rearm::Own => return Ok(()),
            Rearm::At(deadline) => Event::SetDeadline { deadline },
            Rearm::Extend(deadline) => Event::ExtendDeadline { deadline },
        };
        self.apply(event).await.map(|_| ())
    }

    /// Lets one go on that stands still. It is used from the moment it does; that is recorded
    /// beside: a server that dies in between freezes it again.
    async fn thaw(&self, rearm: Rearm) -> Result<(), Fault> {
        let begun = Instant::now();
        let resumed = self.inner.driver.resume(&self.live.id).await;
        let observed = &self.inner.observed;
        observed.tell(Transition::Thaw, begun, &resumed);
        resumed.map_err(|error| wake_failed(fault::driver(error)))?;
        let network = &self.live.record().network;
        if launch::has_rules(network)
            && let Err(fault) = guest::retrust(&self.inner, &self.live.id, network).await
        {
            tracing::warn!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "a sandbox was not told whom to trust");
        }
        self.live.gate.open();
        let fields = down::fields(begun, &[]);
        let committed = self.apply_with(Event::Thawed { rearm }, &fields).await;
        if let Err(fault) = committed {
            self.live.gate.close();
            self.freeze().await;
            return Err(fault);
        }
        Ok(())
    }

    /// Brings one back from disk.
    async fn restore(&self, order: &WakeOrder) -> Result<(), Fault> {
        let begun = Instant::now();
        let inner = &self.inner;
        let record = self.live.record();
        let image = launch::image(inner, &record).await.ok_or_else(|| {
            Fault::new(
                Code::WakeFailed,
                "the template build that it was made from is gone",
            )
        })?;
        if !self.live.has_place() {
            let place = place::wait(inner, &record.workspace, Used::one(&record.resources)).await?;
            self.live.set_place(Some(place));
        }
        let waited = begun.elapsed();
        let back = self.restore_placed(order, &image, begun, waited).await;
        inner.observed.tell(Transition::Restore, begun, &back);
        if back.is_err() {
            self.live.set_place(None);
        }
        back.map_err(wake_failed)
    }

    async fn restore_placed(
        &self,
        order: &WakeOrder,
        image: &BuiltImage,
        begun: Instant,
        waited: std::time::Duration,
    ) -> Result<(), Fault> {
        let inner = &self.inner;
        let record = self.live.record();
        // Until the driver has them.
        let _used = inner.layer_uses.begin(&*inner.images);
        layers::bring(inner, &image.layers).await?;
        let spec = launch::spec(inner, &record, image).await?;
        self.apply(Event::Wake).await?;
        let SandboxState::Waking {
            snapshot,
            content,
            sleep: slept,
        } = &self.live.record().state
        else {
            return Err(Fault::internal("a wake was not recorded"));
        };
        let content = match content {
            SnapshotContent::Memory => order.content,
            SnapshotContent::Filesystem => SnapshotContent::Filesystem,
        };
        let restore = RestoreSpec {
            launch: spec,
            snapshot: snapshot.clone(),
            content,
            outbound: match sleep::keeps_outbound(Timestamp::now().since(slept.since)) {
                true => Outbound::Keep,
                false => Outbound::End,
            },
            timeout: inner.options.restore_timeout,
        };
        let restored = match inner.driver.restore(restore).await {
            Ok(restored) => restored,
            Err(error) => {
                self.note_damage(snapshot, &error).await;
                let fault = fault::driver(error);
                return Err(self.stay_asleep(fault).await);
            }
        };
        let awake = self
            .awake(order, image, content, restored, begun, waited)
            .await;
        match awake {
            Ok(()) => Ok(()),
            Err(fault) => {
                if let Err(left) = launch::destroy(inner, &record.id).await {
                    tracing::error!(sandbox = %record.id, error = &left as &dyn std::error::Error, "a sandbox that did not come back could not be removed");
                }
                Err(self.stay_asleep(fault).await)
            }
        }
    }

    /// It is back: its guest is told what changed, and requests get in.
    async fn awake(
        &self,
        order: &WakeOrder,
        image: &BuiltImage,
        content: SnapshotContent,
        restored: Launched,
        begun: Instant,
        waited: std::time::Duration,
    ) -> Result<(), Fault> {
        let record = self.live.record();
        let restored_after = begun.elapsed();
        guest::configure(&self.inner, &record, image).await?;
        let configured_after = begun.elapsed();
        if content == SnapshotContent::Filesystem {
            // The processes whose streams are parked are gone.
            self.live.gate.end_anew(ANEW);
            guest::start_services(&self.inner, &record.id, image).await?;
        }
        let mut fields = down::fields(begun, &restored.timings);
        for (step, took) in [
            ("place", waited),
            ("restore", restored_after - waited),
            ("guest", configured_after - restored_after),
        ] {
            fields.insert(format!("{step}_us"), took.as_micros().to_string());
        }
        fields.extend(fresh::check(&self.inner, &record.id).await);
        let woken = Event::Woken {
            instance: restored.instance,
            content,
            rearm: order.rearm,
        };
        self.apply_with(woken, &fields).await?;
        *self
            .live
            .baseline
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Baseline::since(Timestamp::now());
        self.publish(image);
        self.live.gate.open();
        Ok(())
    }

    /// What cannot be read is marked, so that nobody tries again in vain.
    async fn note_damage(&self, snapshot: &SnapshotId, error: &DriverError) {
        let DriverError::Snapshot { reason, .. } = error else {
            return;
        };
        shelf::mark_damaged(&self.inner, snapshot, reason).await;
    }

    /// It sleeps as before.
    async fn stay_asleep(&self, fault: Fault) -> Fault {
        let reason = fault.message.clone();
        tracing::error!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "a sandbox could not be brought back");
        match self.apply(Event::WakeFailed { reason }).await {
            Ok(_) => fault,
            Err(worse) => worse.because(fault),
        }
    }
}

/// How it sleeps, is about to sleep, or slept until now; `None` if it runs.
pub(crate) fn asleep(record: &Sandbox) -> Option<(Sleep, SnapshotContent)> {
    match &record.state {
        SandboxState::Paused { sleep, .. } => Some((*sleep, SnapshotContent::Memory)),
        SandboxState::Hibernating { sleep, content, .. }
        | SandboxState::Hibernated { sleep, content, .. }
        | SandboxState::Waking { sleep, content, .. }
        | SandboxState::Archived { sleep, content, .. }
        | SandboxState::Archiving { sleep, content, .. } => Some((*sleep, *content)),
        SandboxState::Creating | SandboxState::Running { .. } | SandboxState::Deleting { .. } => {
            None
        }
    }
}

/// Why a sandbox is not back, with one code for what its owner cannot change.
fn wake_failed(fault: Fault) -> Fault {
    match fault.code {
        Code::Unavailable
        | Code::CapacityUnavailable
        | Code::RateLimited
        | Code::SnapshotUnusable
        | Code::WakeFailed
        | Code::DeadlineExceeded => fault,
        // Something about it that its owner can put right.
        Code::InvalidArgument => Fault::new(
            Code::WakeFailed,
            format!(
                "the sandbox could not be brought back: {}; its snapshot is untouched",
                fault.message
            ),
        ),
        code => Fault::new(
            Code::WakeFailed,
            format!("the sandbox could not be brought back ({code}); its snapshot is untouched"),
        )
        .because(fault),
    }
}
