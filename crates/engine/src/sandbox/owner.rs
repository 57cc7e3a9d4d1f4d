//! The owner of one sandbox: the only task that changes it.
//!
//! The owner commits what it is about to do, then does it. If it panics, the next one reads the
//! record and goes on from there, as after a restart of the server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use woodfrog_core::lifecycle::{self, Effect, Event, LogEntry, Next};
use woodfrog_core::token::{self, Purpose};
use woodfrog_sandbox::DriverError;
use woodfrog_store::NewEvent;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::{EndReason, Sandbox, SandboxState};
use woodfrog_types::template::{BuildState, BuiltImage};
use woodfrog_types::{Fault, Timestamp};

use crate::access::SandboxAccess;
use crate::inner::Inner;
use crate::request::DeadlineChange;
use crate::sandbox::launch::{self, Boot};
use crate::sandbox::live::{Command, Live};
use crate::{fault, guest, tasks};

/// Between attempts to remove what could not be removed.
const REMOVE_RETRY: Duration = Duration::from_secs(30);

/// Gives a sandbox its owner.
pub(crate) fn spawn(inner: &Arc<Inner>, live: Arc<Live>, boot: Option<Boot>) {
    inner.registry.insert(Arc::clone(&live));
    let shared = Arc::clone(inner);
    let mut boot = boot;
    tasks::supervise(&inner.tasks, "sandbox owner", move || {
        let owner = Owner {
            inner: Arc::clone(&shared),
            live: Arc::clone(&live),
        };
        owner.run(boot.take())
    });
}

/// Lines of the lifecycle as the store takes them.
pub(crate) fn events(log: Vec<LogEntry>, at: Timestamp) -> Vec<NewEvent> {
    log.into_iter()
        .map(|entry| NewEvent {
            at,
            level: entry.level,
            kind: entry.kind.to_owned(),
            message: entry.message,
            fields: entry.fields,
        })
        .collect()
}

/// Whether the sandbox still exists after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Exists,
    Gone,
}

struct Owner {
    inner: Arc<Inner>,
    live: Arc<Live>,
}

impl Owner {
    async fn run(self, boot: Option<Boot>) {
        let mut inbox = self.live.receiver.lock().await;
        let after = match boot {
            Some(boot) => self.boot(boot).await,
            None => self.resume().await,
        };
        let after = match after {
            After::Exists => self.serve(&mut inbox).await,
            After::Gone => After::Gone,
        };
        if after == After::Gone {
            self.live.withdraw();
            self.inner.registry.remove(&self.live.id);
            // Whoever still waits is told that it is gone.
            inbox.close();
            while inbox.try_recv().is_ok() {}
        }
    }

    /// Brings a new sandbox up and tells the caller how that went.
    async fn boot(&self, boot: Boot) -> After {
        let result = self.bring_up(&boot).await;
        let after = match &result {
            Ok(()) => After::Exists,
            Err(fault) => {
                tracing::warn!(sandbox = %self.live.id, error = fault as &dyn std::error::Error, "create failed");
                self.undo(&boot).await;
                After::Gone
            }
        };
        if after == After::Gone {
            self.inner.registry.remove(&self.live.id);
        }
        // A caller that went away leaves the sandbox to its deadline.
        let _ = boot.reply.send(result.map_err(fault::create));
        after
    }

    async fn bring_up(&self, boot: &Boot) -> Result<(), Fault> {
        let inner = &self.inner;
        let record = self.live.record();
        let spec = launch::spec(inner, &record, &boot.image)?;
        // The intent is durable before anything of the sandbox exists.
        let begun = Instant::now();
        let stored = inner.store.sandbox_insert(&record, Vec::new()).await;
        stored.map_err(fault::store)?;
        let recorded = begun.elapsed();
        let launch = async { inner.driver.launch(spec).await.map_err(fault::driver) };
        let (launched, ()) = tokio::try_join!(launch, self.mark_idempotency(boot))?;
        let running_after = begun.elapsed();
        let now = Timestamp::now();
        let ready = Event::Ready {
            instance: launched.instance,
        };
        let step = lifecycle::step(&record, ready, now)?;
        let Next::Store(running) = step.next else {
            return Err(Fault::internal("a ready sandbox was not stored"));
        };
        let log = events(step.log, now);
        let commit = async {
            let stored = inner.store.sandbox_update(&running, log).await;
            stored.map_err(fault::store)?;
            Ok::<_, Fault>(begun.elapsed())
        };
        let configure = async {
            guest::configure(inner, &running, &boot.image).await?;
            Ok::<_, Fault>(begun.elapsed())
        };
        if boot.image.start_cmd.is_none() && boot.image.ready_cmd.is_none() {
            // If we die in between, adoption repeats the configuring.
            let (configured_after, committed_after) = tokio::try_join!(configure, commit)?;
            tracing::debug!(
                sandbox = %running.id, ?recorded, ?running_after, ?configured_after,
                ?committed_after, driver = ?launched.timings, "created"
            );
        } else {
            configure.await?;
            guest::start_services(inner, &running.id, &boot.image).await?;
            commit.await?;
        }
        self.live.set_record(*running);
        self.publish(&boot.image);
        self.effects(&step.effects).await;
        Ok(())
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

    /// Goes on with a sandbox that an earlier owner or server left.
    async fn resume(&self) -> After {
        let stored = match self.inner.store.sandbox_fetch(&self.live.id).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return After::Gone,
            Err(error) => {
                tracing::error!(sandbox = %self.live.id, %error, "the record cannot be read");
                (*self.live.record()).clone()
            }
        };
        self.live.set_record(stored.clone());
        match stored.state {
            SandboxState::Running { .. } => {
                let image = self.image(&stored).await;
                self.publish(&image);
                if let Err(fault) = guest::configure(&self.inner, &stored, &image).await {
                    tracing::warn!(sandbox = %stored.id, error = &fault as &dyn std::error::Error, "the guest of an adopted sandbox does not answer");
                }
                self.inner.alarm.set(stored.deadline);
                After::Exists
            }
            SandboxState::Creating | SandboxState::Deleting { .. } => self.remove().await,
        }
    }

    /// The image that the sandbox was made from; if its build is gone, what every image has.
    async fn image(&self, sandbox: &Sandbox) -> BuiltImage {
        if let Ok(Some(build)) = self.inner.store.build_fetch(&sandbox.build).await
            && let BuildState::Ready(image) = build.state
        {
            return image;
        }
        crate::template::plain_image()
    }

    async fn serve(&self, inbox: &mut mpsc::Receiver<Command>) -> After {
        let exited = self.exited();
        tokio::pin!(exited);
        crate::sandbox::metrics::sample(&self.inner, &self.live).await;
        loop {
            let after = tokio::select! {
                biased;
                () = self.inner.stopping.cancelled() => return After::Exists,
                reason = &mut exited => self.end(reason).await,
                command = inbox.recv() => match command {
                    Some(command) => self.handle(command).await,
                    None => return After::Exists,
                },
            };
            if after == After::Gone {
                return After::Gone;
            }
        }
    }

    /// Resolves when the sandbox ended by itself.
    async fn exited(&self) -> EndReason {
        match self.inner.driver.exited(&self.live.id).await {
            Ok(how) => {
                tracing::info!(sandbox = %self.live.id, how, "init ended");
                EndReason::Exited
            }
            Err(DriverError::NotFound { .. }) => EndReason::Lost,
            Err(error) => {
                tracing::error!(sandbox = %self.live.id, %error, "cannot watch for its end");
                std::future::pending().await
            }
        }
    }

    async fn handle(&self, command: Command) -> After {
        match command {
            Command::Delete { reply } => {
                let reason = EndReason::Requested;
                self.answer(self.apply(Event::Delete { reason }).await, reply, |()| ())
            }
            Command::Deadline { change, reply } => {
                let result = self.apply(deadline_event(change)).await;
                self.answer(result, reply, |()| self.live.record())
            }
            Command::Network { network, reply } => {
                let result = self.replace_network(*network).await;
                self.answer(result, reply, |()| ())
            }
            Command::Due => self.apply(Event::DeadlinePassed).await.unwrap_or_else(|fault| {
                tracing::warn!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "expiry failed; again soon");
                After::Exists
            }),
        }
    }

    fn answer<T>(
        &self,
        result: Result<After, Fault>,
        reply: oneshot::Sender<Result<T, Fault>>,
        value: impl FnOnce(()) -> T,
    ) -> After {
        let after = *result.as_ref().unwrap_or(&After::Exists);
        if after == After::Gone {
            // Before the answer: who deletes and then looks must not find it.
            self.inner.registry.remove(&self.live.id);
        }
        let _ = reply.send(result.map(|_| value(())));
        after
    }

    async fn end(&self, reason: EndReason) -> After {
        match self.apply(Event::Delete { reason }).await {
            Ok(after) => after,
            Err(fault) => {
                tracing::error!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "an ended sandbox could not be recorded as such");
                self.live.withdraw();
                self.remove().await
            }
        }
    }

    /// Lets the lifecycle decide, commits its decision, then acts on it.
    async fn apply(&self, event: Event) -> Result<After, Fault> {
        let now = Timestamp::now();
        let record = self.live.record();
        let step = lifecycle::step(&record, event, now)?;
        match step.next {
            Next::Unchanged => {}
            Next::Store(next) => {
                let log = events(step.log, now);
                let stored = self.inner.store.sandbox_update(&next, log).await;
                stored.map_err(fault::store)?;
                self.live.set_record(*next);
            }
            Next::Remove => {
                let log = events(step.log, now);
                let removed = self.inner.store.sandbox_remove(&record.id, log).await;
                removed.map_err(fault::store)?;
                return Ok(After::Gone);
            }
        }
        Ok(self.effects(&step.effects).await)
    }

    async fn effects(&self, effects: &[Effect]) -> After {
        for effect in effects {
            match effect {
                // Done where the image is known, and where a failure can be undone.
                Effect::Publish | Effect::ApplyEgress => {}
                Effect::Withdraw => self.live.withdraw(),
                Effect::RearmDeadline => self.inner.alarm.set(self.live.record().deadline),
                Effect::Destroy => return self.remove().await,
            }
        }
        After::Exists
    }

    /// Removes what is left of the sandbox, then its record. Goes on trying until it is done or
    /// the server stops: a restart then goes on.
    async fn remove(&self) -> After {
        loop {
            let record = self.live.record();
            let removed = match launch::destroy(&self.inner, &record.id).await {
                Ok(()) => Box::pin(self.apply(Event::Destroyed)).await,
                Err(fault) => Err(fault),
            };
            match removed {
                Ok(_) => return After::Gone,
                Err(fault) => {
                    tracing::error!(sandbox = %record.id, error = &fault as &dyn std::error::Error, "removing failed; again later");
                }
            }
            tokio::select! {
                () = self.inner.stopping.cancelled() => return After::Exists,
                () = tokio::time::sleep(REMOVE_RETRY) => {}
            }
        }
    }

    /// Commits new rules and has the driver apply them; if it cannot, the old ones come back.
    async fn replace_network(&self, network: NetworkSpec) -> Result<After, Fault> {
        let old = self.live.record().network.clone();
        let egress = launch::egress(&network);
        self.apply(Event::SetNetwork { network }).await?;
        if let Err(error) = self.inner.driver.set_egress(&self.live.id, egress).await {
            self.apply(Event::SetNetwork { network: old }).await?;
            return Err(fault::driver(error));
        }
        Ok(After::Exists)
    }

    fn publish(&self, image: &BuiltImage) {
        let record = self.live.record();
        self.live.publish(SandboxAccess {
            id: record.id.clone(),
            secure: record.secure,
            access_token: token::derive(&self.inner.secret, Purpose::Guest, &record.id),
            traffic_token: traffic_token(&self.inner, &record),
            network: record.network.clone(),
            default_user: image.user.clone(),
            default_workdir: image.workdir.clone(),
        });
    }
}

/// The token for ports inside, where public traffic is off.
pub(crate) fn traffic_token(inner: &Inner, record: &Sandbox) -> Option<String> {
    (!record.network.allow_public_traffic)
        .then(|| token::derive(&inner.secret, Purpose::Traffic, &record.id))
}

fn deadline_event(change: DeadlineChange) -> Event {
    let now = Timestamp::now();
    match change {
        DeadlineChange::Set(after) => Event::SetDeadline {
            deadline: Some(now.plus(after)),
        },
        DeadlineChange::Extend(after) => Event::ExtendDeadline {
            deadline: now.plus(after),
        },
        DeadlineChange::Never => Event::SetDeadline { deadline: None },
    }
}
