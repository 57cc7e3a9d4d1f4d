//! A guest that does not answer: its sandbox is started anew, with its files.
//!
//! It is put away as files and brought back from them, by the same two steps as any sleep: whatever
//! a crash leaves of that is settled as any sleep is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use woodfrog_core::health::{Health, HealthPolicy, Verdict};
use woodfrog_core::lifecycle::Event;
use woodfrog_guest_client::GuestError;
use woodfrog_store::NewEvent;
use woodfrog_types::event::Level;
use woodfrog_types::sandbox::SandboxState;
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Fault, SnapshotId, Timestamp};

use super::{After, Owner};
use crate::guest;
use crate::sandbox::launch;
use crate::sandbox::live::{Command, WakeOrder};

/// What an owner knows of its guest's health.
pub(super) struct Watched {
    since: Instant,
    health: Mutex<Health>,
}

impl Watched {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            health: Mutex::default(),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Owner {
    /// Asks the guest again and again; resolves when something must be done about it. Asking does
    /// not count as use, and a sandbox that stands still is not asked.
    pub(super) async fn unwell(&self) -> Verdict {
        let Some(policy) = self.inner.options.health else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(policy.interval).await;
            let answered = self.ask_guest(&policy).await;
            let now = self.health.now();
            let mut health = self.health.health();
            match answered {
                None => health.not_asked(),
                Some(true) => health.answered(&policy, now),
                Some(false) => match health.missed(&policy, now) {
                    Verdict::Wait => {
                        tracing::info!(sandbox = %self.live.id, misses = health.misses(), "its guest does not answer");
                    }
                    verdict @ (Verdict::Restart | Verdict::GiveUp) => return verdict,
                },
            }
        }
    }

    /// Whether the guest answers; `None` if it cannot be asked, or falls asleep meanwhile.
    async fn ask_guest(&self, policy: &HealthPolicy) -> Option<bool> {
        let _attached = self.live.gate.attach()?;
        let client = guest::client(&self.inner, &self.live.id).with_deadline(policy.timeout);
        tokio::select! {
            biased;
            // No connection may lead there then.
            () = self.live.gate.closed() => None,
            answer = client.hello() => Some(match answer {
                Ok(_) | Err(GuestError::Refused(_)) => true,
                Err(error) => {
                    tracing::debug!(sandbox = %self.live.id, %error, "no answer of its guest");
                    false
                }
            }),
        }
    }

    /// Does what is to be done about a guest that does not answer.
    pub(super) async fn revive(&self, verdict: Verdict) -> After {
        let what = match verdict {
            Verdict::Wait => return After::Exists,
            Verdict::Restart => "its guest does not answer; it is started anew with its files",
            Verdict::GiveUp => "its guest does not answer, and it could not be started anew",
        };
        self.log_unwell(what).await;
        if verdict == Verdict::GiveUp {
            return self.give_up().await;
        }
        let restarted = self.restart().await;
        let now = self.health.now();
        match restarted {
            Ok(()) => self.health.health().restarted(now),
            Err(fault) => {
                tracing::error!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "a sandbox that does not answer could not be started anew");
                self.health.health().restart_failed(now);
            }
        }
        After::Exists
    }

    async fn log_unwell(&self, what: &str) {
        let health = *self.health.health();
        tracing::warn!(sandbox = %self.live.id, misses = health.misses(), restarts = health.restarts(), what);
        let event = NewEvent {
            at: Timestamp::now(),
            level: Level::Warn,
            kind: "sandbox.unresponsive".to_owned(),
            message: what.to_owned(),
            fields: BTreeMap::from([
                ("misses".to_owned(), health.misses().to_string()),
                ("restarts".to_owned(), health.restarts().to_string()),
            ]),
        };
        let logged = self.inner.store.event_append(&self.live.id, vec![event]);
        if let Err(error) = logged.await {
            tracing::warn!(sandbox = %self.live.id, %error, "the log could not be written");
        }
    }

    /// Ends its processes, keeps its files, and has itself woken. That its workspace has no room
    /// left for snapshots does not count: these files are there already.
    async fn restart(&self) -> Result<(), Fault> {
        let begun = Instant::now();
        let record = self.live.record();
        if !matches!(record.state, SandboxState::Running { .. }) {
            return Ok(());
        }
        let content = SnapshotContent::Filesystem;
        let away = async {
            self.can_save(&record, content).await?;
            // As one that dozes: its deadline counts on, and whoever uses it wakes it.
            self.put_away(&record, content, SleepCause::Idle, None, begun)
                .await
        };
        let away = away.await;
        self.reopen_unless(away.is_ok());
        away?;
        // Nobody waits for the answer; if it fails, the next use tries again.
        let (reply, _) = oneshot::channel();
        let order = WakeOrder::access();
        self.live.tell(Command::Wake { order, reply });
        Ok(())
    }

    /// What is left is its last snapshot; without one it is lost.
    async fn give_up(&self) -> After {
        let abandon = Event::Hibernate {
            // Never written: the owner settles this as a save that did not come to its end.
            snapshot: SnapshotId::generate(),
            content: SnapshotContent::Filesystem,
            cause: SleepCause::Idle,
        };
        let abandoned = async {
            self.apply(abandon).await?;
            self.live.gate.end_anew("its sandbox was lost");
            self.live.shut();
            launch::destroy(&self.inner, &self.live.id).await?;
            self.live.set_place(None);
            Ok::<_, Fault>(())
        };
        if let Err(fault) = abandoned.await {
            tracing::error!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "a sandbox that does not answer could not be ended");
        }
        After::Exists
    }
}
