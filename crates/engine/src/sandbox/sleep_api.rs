//! Putting sandboxes to sleep and waking them: what callers with a principal may do.

use std::time::Instant;

use woodfrog_core::names;
use woodfrog_core::sleep::{self, Rearm, Rung, Waker};
use woodfrog_sandbox::Capability;
use woodfrog_types::key::Principal;
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::sleep::{SleepCause, SleepPolicy};
use woodfrog_types::snapshot::{Snapshot, SnapshotContent, SnapshotPurpose};
use woodfrog_types::{Code, Fault, SandboxId, Timestamp};

use crate::engine::Engine;
use crate::fault;
use crate::request::{CheckpointRequest, DeadlineChange, HibernateRequest, ResumeRequest};
use crate::sandbox::live::{Command, Live, WakeOrder};
use crate::sandbox::{create, shelf};
use crate::view::{NextRung, Resumed, SandboxView, Slept, Touched, Wakefulness};

impl Engine {
    /// Freezes a sandbox in place. One that sleeps already stays as it is.
    pub async fn sandbox_pause(
        &self,
        principal: &Principal,
        id: &SandboxId,
    ) -> Result<SandboxView, Fault> {
        let record = self
            .ask(principal, id, |reply| Command::Pause { reply })
            .await?;
        Ok(self.view(&record))
    }

    /// Whether this server can save sandboxes; `Unsupported` with the reason otherwise.
    pub fn can_save(&self, content: SnapshotContent) -> Result<(), Fault> {
        let (capability, what) = match content {
            SnapshotContent::Memory => (Capability::Checkpoint, "saving memory"),
            SnapshotContent::Filesystem => (Capability::FilesystemSnapshot, "saving files"),
        };
        match self.inner.driver.capabilities().why_missing(capability) {
            None => Ok(()),
            Some(why) => Err(Fault::new(
                Code::Unsupported,
                format!("{what} is not supported on this machine: {why}"),
            )),
        }
    }

    /// Puts a sandbox to sleep on disk: it is safe there when this returns. On an error it goes on
    /// as before.
    pub async fn sandbox_hibernate(
        &self,
        principal: &Principal,
        id: &SandboxId,
        request: HibernateRequest,
    ) -> Result<Slept, Fault> {
        match request.cause {
            SleepCause::Requested | SleepCause::Held => {}
            SleepCause::Idle | SleepCause::Timeout => {
                return Err(Fault::invalid("cause", "must be `requested` or `held`"));
            }
        }
        let (record, already) = self
            .ask(principal, id, |reply| Command::Hibernate { request, reply })
            .await?;
        let view = self.view(&record);
        Ok(Slept { view, already })
    }

    /// Lets a sandbox go on that sleeps, from whatever rung; it answers when this returns.
    pub async fn sandbox_resume(
        &self,
        principal: &Principal,
        id: &SandboxId,
        request: ResumeRequest,
    ) -> Result<Resumed, Fault> {
        self.inner.accepting()?;
        let now = Timestamp::now();
        let max = self.inner.options.timeout_max;
        let rearm = match request.deadline {
            None => Rearm::Own,
            Some(DeadlineChange::Never) => Rearm::At(None),
            Some(DeadlineChange::Set(after)) => {
                woodfrog_core::validate::timeout(Some(after), max)?;
                Rearm::At(Some(now.plus(after)))
            }
            Some(DeadlineChange::Extend(after)) => {
                woodfrog_core::validate::timeout_at_most(after, max)?;
                Rearm::Extend(now.plus(after))
            }
        };
        if let Some(on_timeout) = request.on_timeout {
            create::check_on_timeout(&self.inner, on_timeout)?;
        }
        let order = WakeOrder {
            waker: Waker::Resume,
            asked: Instant::now(),
            content: request.content,
            rearm,
            on_timeout: request.on_timeout,
        };
        let (view, woke) = self.wake(principal, id, order).await?;
        Ok(Resumed { view, woke })
    }

    pub(super) async fn wake(
        &self,
        principal: &Principal,
        id: &SandboxId,
        order: WakeOrder,
    ) -> Result<(SandboxView, bool), Fault> {
        let woke = self
            .ask(principal, id, |reply| Command::Wake { order, reply })
            .await?;
        let record = self.record(principal, id).await?;
        Ok((self.view(&record), woke))
    }

    /// Moves a sandbox's snapshot to the archive; one that is awake is hibernated first. All of it
    /// is there and was read back when this returns; `Conflict` if the sandbox was used meanwhile.
    pub async fn sandbox_archive(
        &self,
        principal: &Principal,
        id: &SandboxId,
    ) -> Result<SandboxView, Fault> {
        let record = self
            .ask(principal, id, |reply| Command::Archive { reply })
            .await?;
        Ok(self.view(&record))
    }

    /// Takes a snapshot of a sandbox, which goes on as it is. One that sleeps on disk is not
    /// woken: the snapshot that it sleeps in is kept.
    pub async fn sandbox_checkpoint(
        &self,
        principal: &Principal,
        id: &SandboxId,
        request: CheckpointRequest,
    ) -> Result<Snapshot, Fault> {
        self.inner.accepting()?;
        if let Some(name) = &request.name {
            names::template_name(name)
                .map_err(|_| Fault::invalid("name", "a snapshot name is 1 to 128 characters of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit"))?;
        }
        woodfrog_core::validate::metadata(&request.labels)
            .map_err(|fault| fault.with_field("labels"))?;
        let record = self.record(principal, id).await?;
        self.ask(principal, id, |reply| {
            let purpose = SnapshotPurpose::Checkpoint;
            let mut draft = shelf::draft(&self.inner, &record, request.content, purpose);
            draft.name.clone_from(&request.name);
            draft.labels.clone_from(&request.labels);
            let snapshot = Box::new(draft);
            Command::Checkpoint { snapshot, reply }
        })
        .await
    }

    /// Says that a sandbox is in use; wakes it if it sleeps.
    pub async fn sandbox_touch(
        &self,
        principal: &Principal,
        id: &SandboxId,
    ) -> Result<Touched, Fault> {
        let (view, _) = self.wake(principal, id, WakeOrder::access()).await?;
        let last_activity = match self.inner.registry.get(id) {
            Some(live) => {
                live.gate.touch();
                live.gate.seen().last
            }
            None => Timestamp::now(),
        };
        Ok(Touched {
            view,
            last_activity,
        })
    }

    /// Why a sandbox is awake or asleep, and when it goes to the next rung. Never wakes it.
    pub async fn sandbox_wakefulness(
        &self,
        principal: &Principal,
        id: &SandboxId,
    ) -> Result<Wakefulness, Fault> {
        let record = self.record(principal, id).await?;
        let now = Timestamp::now();
        let live = self.inner.registry.get(id);
        let last_activity = match &live {
            Some(live) => live.gate.seen().last,
            None => crate::sandbox::owner::asleep(&record)
                .map_or(record.started_at, |(slept, _)| slept.since),
        };
        let holds = match &live {
            Some(live) => live.holds(now),
            None => {
                let kept = self.inner.store.hold_list(id, now).await;
                kept.map_err(fault::store)?
            }
        };
        Ok(Wakefulness {
            state: record.state.as_str(),
            reasons: reasons(&record, live.as_deref(), now),
            last_activity,
            holds,
            next: next(&record, live.as_deref(), now),
        })
    }

    /// Replaces the times after which a sandbox goes to sleep by itself.
    pub async fn sandbox_sleep_policy(
        &self,
        principal: &Principal,
        id: &SandboxId,
        policy: SleepPolicy,
    ) -> Result<SandboxView, Fault> {
        sleep::validate(&policy, self.inner.attic.is_there())?;
        let record = self
            .ask(principal, id, |reply| Command::SleepPolicy {
                policy,
                reply,
            })
            .await?;
        Ok(self.view(&record))
    }
}

/// What keeps it as it is, for people.
fn reasons(record: &Sandbox, live: Option<&Live>, now: Timestamp) -> Vec<String> {
    if let Some((slept, content)) = crate::sandbox::owner::asleep(record) {
        let why = match slept.cause {
            SleepCause::Idle => "nothing used it",
            SleepCause::Requested => "somebody asked for it",
            SleepCause::Held => "somebody asked for it, until it is resumed",
            SleepCause::Timeout => "its deadline passed",
        };
        let woken = match sleep::may_wake(slept, content, record.auto_resume, Waker::Access) {
            true => "any use wakes it",
            false => "only resuming it wakes it",
        };
        return vec![
            format!("asleep since {}: {why}", slept.since),
            woken.to_owned(),
        ];
    }
    let (SandboxState::Running { .. }, Some(live)) = (&record.state, live) else {
        return vec![format!("it is {}", record.state.as_str())];
    };
    let seen = live.gate.seen();
    let mut reasons = Vec::new();
    if seen.leases > 0 {
        reasons.push(format!(
            "{} operations or streams are under way",
            seen.leases
        ));
    } else {
        reasons.push(format!("idle since {}", seen.last));
    }
    for hold in live.holds(now) {
        reasons.push(match hold.expires_at {
            Some(until) => format!("hold `{}` until {until}", hold.name),
            None => format!("hold `{}` until it is released", hold.name),
        });
    }
    if record.sleep.pause_after.is_none() {
        reasons.push("it never goes to sleep by itself".to_owned());
    }
    reasons
}

/// What comes next by the clock alone: its deadline, or the next rung.
fn next(record: &Sandbox, live: Option<&Live>, now: Timestamp) -> Option<NextRung> {
    let end = record.deadline.map(|at| {
        let state = match record.on_timeout {
            woodfrog_types::sandbox::OnTimeout::Kill => Rung::Delete.state(),
            woodfrog_types::sandbox::OnTimeout::Pause { .. } => Rung::Hibernate.state(),
        };
        NextRung { state, at }
    });
    let rung = match (&record.state, live) {
        (SandboxState::Running { .. }, Some(live)) => {
            let seen = live.gate.seen();
            let at = sleep::idle_due(&record.sleep, seen.last, live.held(now));
            at.map(|at| NextRung {
                state: Rung::Pause.state(),
                at,
            })
        }
        _ => record.sleep_due.map(|at| {
            let before = Timestamp::from_millis(at.as_millis() - 1);
            let rung = sleep::next_rung(record, Some(before));
            let rung = rung.map_or(Rung::Delete, |(rung, _)| rung);
            let slept = crate::sandbox::owner::asleep(record).map(|(slept, _)| slept.since);
            let at = match (rung, slept, record.sleep.delete_after) {
                // The warning is not what people want to know about.
                (Rung::Warn, Some(since), Some(after)) => since.plus(after),
                _ => at,
            };
            NextRung {
                state: rung.state(),
                at,
            }
        }),
    };
    match (end, rung) {
        (Some(end), Some(rung)) => Some(if end.at <= rung.at { end } else { rung }),
        (end, rung) => end.or(rung),
    }
}
