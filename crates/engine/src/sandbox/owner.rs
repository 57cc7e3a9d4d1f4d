//! The owner of one sandbox: the only task that changes it.
//!
//! The owner commits what it is about to do, then does it. If it panics, the next one reads the
//! record and goes on from there, as after a restart of the server. A sandbox that sleeps on disk
//! has no owner: whoever wants something of it gives it one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use woodfrog_core::lifecycle::{self, Effect, Event, LogEntry, Next};
use woodfrog_core::token::{self, Purpose};
use woodfrog_sandbox::DriverError;
use woodfrog_store::NewEvent;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::{EndReason, Sandbox, SandboxState};
use woodfrog_types::template::BuiltImage;
use woodfrog_types::{Fault, Timestamp};

use crate::access::{Reach, SandboxAccess};
use crate::inner::Inner;
use crate::lease;
use crate::request::DeadlineChange;
use crate::sandbox::launch::{self, Boot};
use crate::sandbox::live::{Command, Live};
use crate::sandbox::{hidden, holds, shelf};
use crate::{fault, guest, tasks};

mod archive;
mod boot;
mod checkpoint;
mod fresh;
mod health;
mod idle;
mod periodic;
mod settle;
mod sleep;
mod wake;

use health::Watched;
pub(crate) use wake::asleep;

/// Between attempts to remove what could not be removed.
const REMOVE_RETRY: Duration = Duration::from_secs(30);
/// How long the owner of a sandbox that sleeps on disk stays, once nobody wants anything.
const LINGER: Duration = Duration::from_millis(100);

/// Gives a sandbox its owner, unless it has one; returns the sandbox as it is there.
pub(crate) fn spawn(inner: &Arc<Inner>, live: Arc<Live>, boot: Option<Boot>) -> Arc<Live> {
    let (live, fresh) = inner.registry.insert(live);
    if !fresh {
        return live;
    }
    let shared = Arc::clone(inner);
    let owned = Arc::clone(&live);
    let mut boot = boot;
    tasks::supervise(&inner.tasks, "sandbox owner", move || {
        let owner = Owner {
            inner: Arc::clone(&shared),
            live: Arc::clone(&owned),
            begun: Mutex::default(),
            health: Watched::new(),
        };
        owner.run(boot.take())
    });
    live
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

/// What a step of an owner left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The sandbox exists, and so does its owner.
    Exists,
    /// It sleeps on disk and needs no owner.
    Left,
    /// It exists, but the server stops.
    Stopped,
    /// It does not exist any more.
    Gone,
}

struct Owner {
    inner: Arc<Inner>,
    live: Arc<Live>,
    /// It began to move to the archive, and these wait for that.
    begun: Mutex<Option<archive::Waiting>>,
    health: Watched,
}

impl Owner {
    async fn run(self, boot: Option<Boot>) {
        let mut inbox = self.live.receiver.lock().await;
        let mut after = match boot {
            Some(boot) => self.boot(boot).await,
            None => self.resume().await,
        };
        while after == After::Exists {
            after = match self.live.record().state {
                SandboxState::Running { .. } | SandboxState::Paused { .. } => {
                    self.serve(&mut inbox).await
                }
                SandboxState::Hibernated { .. } | SandboxState::Archived { .. } => {
                    self.serve_asleep(&mut inbox).await
                }
                SandboxState::Archiving { .. } => self.archiving(&mut inbox).await,
                SandboxState::Hibernating { .. } | SandboxState::Waking { .. } => {
                    self.settle().await
                }
                SandboxState::Creating | SandboxState::Deleting { .. } => self.remove().await,
            };
        }
        if after == After::Gone {
            self.live.withdraw();
        }
        let record = self.live.record();
        if after == After::Left
            && matches!(record.state, SandboxState::Archived { .. })
            // The files of volumes stay on this machine, and so does who needs them.
            && record.volumes.is_empty()
        {
            // Before the next owner can come: what that one takes is not let go under it.
            lease::release(&self.inner, &self.live.id).await;
        }
        if after != After::Stopped {
            self.inner.registry.remove(&self.live);
        }
        // Whoever still waits looks again, and finds what is there now.
        inbox.close();
        while inbox.try_recv().is_ok() {}
    }

    /// Another server has it: ends what is here of it.
    async fn lost(&self) -> After {
        self.live.withdraw();
        if let Err(fault) = launch::destroy(&self.inner, &self.live.id).await {
            tracing::error!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "what this server had of it is left; the next start removes it");
        }
        After::Left
    }

    /// Goes on with a sandbox that an earlier owner or server left.
    async fn resume(&self) -> After {
        if let Err(fault) = lease::hold(&self.inner, &self.live.id).await {
            tracing::debug!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "not taken up");
            return After::Left;
        }
        let stored = match self.inner.store.sandbox_fetch(&self.live.id).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return After::Gone,
            Err(error) => {
                tracing::error!(sandbox = %self.live.id, %error, "the record cannot be read");
                (*self.live.record()).clone()
            }
        };
        self.live.set_record(stored.clone());
        if let Err(fault) = holds::reload(&self.inner, &self.live).await {
            tracing::error!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "who holds it cannot be read: it may fall asleep under them");
        }
        match stored.state {
            SandboxState::Running { .. } => {
                self.reopen_egress(&stored).await;
                self.resume_running(&stored).await;
            }
            SandboxState::Paused { .. } => {
                self.reopen_egress(&stored).await;
                self.freeze().await;
                self.publish(&self.image(&stored).await);
            }
            SandboxState::Creating
            | SandboxState::Hibernating { .. }
            | SandboxState::Hibernated { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Archived { .. }
            | SandboxState::Deleting { .. } => {}
        }
        self.inner.alarm.set(stored.due());
        After::Exists
    }

    /// A sandbox in memory: until it goes to sleep on disk, ends, or the server stops.
    async fn serve(&self, inbox: &mut mpsc::Receiver<Command>) -> After {
        let exited = self.exited();
        tokio::pin!(exited);
        let mut pace = periodic::Pace::new();
        // Kept while commands come and go: a question that was asked is waited for.
        let unwell = self.unwell();
        tokio::pin!(unwell);
        if self.live.gate.is_open() {
            crate::sandbox::metrics::sample(&self.inner, &self.live).await;
        }
        loop {
            let after = tokio::select! {
                biased;
                () = self.inner.stopping.cancelled() => return After::Stopped,
                reason = &mut exited => self.end(reason).await,
                command = inbox.recv() => match command {
                    Some(command) => self.handle(command).await,
                    None => return After::Stopped,
                },
                verdict = &mut unwell => {
                    let after = self.revive(verdict).await;
                    unwell.set(self.unwell());
                    after
                }
                () = self.idle() => self.doze().await,
                () = self.save_due(&mut pace) => {
                    self.save_now(&mut pace).await;
                    After::Exists
                }
            };
            if after != After::Exists {
                return after;
            }
            match self.live.record().state {
                SandboxState::Running { .. } | SandboxState::Paused { .. } => {}
                SandboxState::Creating
                | SandboxState::Hibernating { .. }
                | SandboxState::Hibernated { .. }
                | SandboxState::Waking { .. }
                | SandboxState::Archiving { .. }
                | SandboxState::Archived { .. }
                | SandboxState::Deleting { .. } => return After::Exists,
            }
        }
    }

    /// A sandbox on disk: until it is woken or gone, or nobody wants anything of it.
    async fn serve_asleep(&self, inbox: &mut mpsc::Receiver<Command>) -> After {
        loop {
            if self.inner.moves.is_moving(&self.live.id)
                && matches!(self.live.record().state, SandboxState::Archived { .. })
            {
                return After::Left;
            }
            let command = tokio::select! {
                biased;
                () = self.inner.stopping.cancelled() => return After::Stopped,
                command = tokio::time::timeout(LINGER, inbox.recv()) => command,
            };
            let after = match command {
                Ok(Some(command)) => self.handle(command).await,
                Ok(None) | Err(_) => return After::Left,
            };
            if after != After::Exists {
                return after;
            }
            match self.live.record().state {
                SandboxState::Hibernated { .. } | SandboxState::Archived { .. } => {}
                SandboxState::Creating
                | SandboxState::Running { .. }
                | SandboxState::Paused { .. }
                | SandboxState::Hibernating { .. }
                | SandboxState::Waking { .. }
                | SandboxState::Archiving { .. }
                | SandboxState::Deleting { .. } => return After::Exists,
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
            Command::Refill { reply } => {
                let _ = reply.send(self.refill().await);
                After::Exists
            }
            Command::SleepPolicy { policy, reply } => {
                let result = self.apply(Event::SetSleep { policy }).await;
                self.answer(result, reply, |()| self.live.record())
            }
            Command::Pause { reply } => {
                let result = self.pause_requested().await;
                self.answer(result, reply, |()| self.live.record())
            }
            Command::Hibernate { request, reply } => {
                let result = self.hibernate_requested(request).await;
                let _ = reply.send(result.map(|already| (self.live.record(), already)));
                After::Exists
            }
            Command::Archive { reply } => {
                self.archive_requested(reply).await;
                After::Exists
            }
            Command::Wake { order, reply } => {
                let result = self.wake_for(&order).await;
                let _ = reply.send(result);
                After::Exists
            }
            Command::Checkpoint { snapshot, reply } => {
                let _ = reply.send(self.checkpoint(*snapshot).await);
                After::Exists
            }
            Command::Sweep { idle, reply } => {
                self.sweep(idle).await;
                let _ = reply.send(Ok(()));
                After::Exists
            }
            Command::Evict { reply } => {
                let _ = reply.send(Ok(self.evict().await));
                After::Exists
            }
            Command::Due => self.apply(Event::Due).await.unwrap_or_else(|fault| {
                tracing::warn!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "what was due failed; again soon");
                After::Exists
            }),
            Command::Rethink => After::Exists,
            Command::Lost => self.lost().await,
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
            self.inner.registry.remove(&self.live);
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
        self.apply_with(event, &BTreeMap::new()).await
    }

    /// As [`Self::apply`]; the lines of its log get these fields, too.
    async fn apply_with(
        &self,
        event: Event,
        fields: &BTreeMap<String, String>,
    ) -> Result<After, Fault> {
        let now = Timestamp::now();
        let record = self.live.record();
        let mut step = lifecycle::step(&record, event, now)?;
        annotate(&mut step.log, fields);
        match step.next {
            Next::Unchanged => {}
            Next::Store(next) => {
                let log = events(step.log, now);
                let stored = self.inner.store.sandbox_update(&next, log).await;
                stored.map_err(fault::store)?;
                let traffic_token = traffic_token(&self.inner, &next);
                self.live.set_network(*next, traffic_token);
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
                Effect::Publish | Effect::ApplyEgress | Effect::Freeze => {}
                Effect::Withdraw => self.live.withdraw(),
                Effect::RearmDeadline => self.inner.alarm.set(self.live.record().due()),
                Effect::Destroy => return self.remove().await,
                Effect::Hibernate { content, cause } => {
                    Box::pin(self.fall_asleep(*content, *cause)).await;
                }
                Effect::Archive => Box::pin(self.archive_due()).await,
            }
        }
        After::Exists
    }

    /// Removes what is left of the sandbox, then its record. Goes on trying until it is done or
    /// the server stops: a restart then goes on.
    async fn remove(&self) -> After {
        loop {
            if lease::is_anothers(&self.inner, &self.live.id).await {
                return self.lost().await;
            }
            let record = self.live.record();
            let removed = match self.remove_once(&record).await {
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
                () = self.inner.stopping.cancelled() => return After::Stopped,
                () = tokio::time::sleep(REMOVE_RETRY) => {}
            }
        }
    }

    async fn remove_once(&self, record: &Sandbox) -> Result<(), Fault> {
        launch::destroy(&self.inner, &record.id).await?;
        shelf::remove_slept(&self.inner, record).await
    }

    /// Commits new rules and has the driver apply them; if it cannot, the old ones come back.
    async fn replace_network(&self, network: NetworkSpec) -> Result<After, Fault> {
        let (inner, id) = (&self.inner, &self.live.id);
        let old = self.live.record().network.clone();
        let network = hidden::sealed(inner, id, network)?;
        let workspace = &self.live.record().workspace;
        let egress = launch::egress(inner, workspace, id, &network).await?;
        let event = Event::SetNetwork {
            network: network.clone(),
        };
        self.apply(event).await?;
        if !self.in_memory() {
            // Its next wake applies them.
            return Ok(After::Exists);
        }
        let (had, has) = (launch::has_rules(&old), launch::has_rules(&network));
        let named = old.dns_servers != network.dns_servers;
        // Programs trust whoever changes their requests before any is changed, and after.
        if has && !had {
            self.tell_guest(&network).await;
        }
        let set = inner.driver.set_egress(id, egress).await;
        if let Err(fault) = set.map_err(fault::driver) {
            self.apply(Event::SetNetwork { network: old }).await?;
            return Err(fault);
        }
        if (had && !has) || (named && (had || !has)) {
            self.tell_guest(&network).await;
        }
        Ok(After::Exists)
    }

    /// Has the driver apply the rules with the values that secrets have now.
    async fn refill(&self) -> Result<(), Fault> {
        let record = self.live.record();
        if !self.in_memory() {
            // Its next wake looks them up.
            return Ok(());
        }
        let (inner, id) = (&self.inner, &record.id);
        let egress = launch::egress(inner, &record.workspace, id, &record.network).await?;
        let set = inner.driver.set_egress(id, egress).await;
        set.map_err(fault::driver)
    }

    /// Tells the guest what changes inside. One that stands still is told when it goes on. What the
    /// inside makes of it has no say in which rules hold.
    async fn tell_guest(&self, network: &NetworkSpec) {
        if !matches!(self.live.record().state, SandboxState::Running { .. }) {
            return;
        }
        if let Err(fault) = guest::retrust(&self.inner, &self.live.id, network).await {
            tracing::warn!(sandbox = %self.live.id, error = &fault as &dyn std::error::Error, "a sandbox was not told of its network rules");
        }
    }

    /// Tells the driver after a restart what it may not keep, and what it was not told any more by
    /// the server before. Until then connections that need it wait.
    async fn reopen_egress(&self, stored: &Sandbox) {
        let told = match launch::egress(&self.inner, &stored.workspace, &stored.id, &stored.network)
            .await
        {
            Ok(egress) => {
                let set = self.inner.driver.set_egress(&stored.id, egress).await;
                set.map_err(fault::driver)
            }
            Err(fault) => Err(fault),
        };
        if let Err(fault) = told {
            tracing::error!(sandbox = %stored.id, error = &fault as &dyn std::error::Error, "network rules of an adopted sandbox are not whole: its connections end");
        }
    }

    fn in_memory(&self) -> bool {
        match self.live.record().state {
            SandboxState::Running { .. } | SandboxState::Paused { .. } => true,
            SandboxState::Creating
            | SandboxState::Hibernating { .. }
            | SandboxState::Hibernated { .. }
            | SandboxState::Waking { .. }
            | SandboxState::Archiving { .. }
            | SandboxState::Archived { .. }
            | SandboxState::Deleting { .. } => false,
        }
    }

    /// The image that the sandbox was made from; if its build is gone, what every image has.
    async fn image(&self, sandbox: &Sandbox) -> BuiltImage {
        launch::image(&self.inner, sandbox)
            .await
            .unwrap_or_else(crate::template::plain_image)
    }

    /// Says how to get in; the gate decides who may.
    fn publish(&self, image: &BuiltImage) {
        let access = access_of(&self.inner, &self.live.record(), image, Reach::Awake);
        self.live.set_access(access);
    }
}

/// How to get into a sandbox.
pub(crate) fn access_of(
    inner: &Inner,
    record: &Sandbox,
    image: &BuiltImage,
    reach: Reach,
) -> SandboxAccess {
    SandboxAccess {
        id: record.id.clone(),
        workspace: record.workspace.clone(),
        secure: record.secure,
        access_token: token::derive(&inner.secret, Purpose::Guest, &record.id),
        traffic_token: traffic_token(inner, record),
        network: record.network.clone(),
        default_user: image.user.clone(),
        default_workdir: image.workdir.clone(),
        reach,
    }
}

/// The token for ports inside, where public traffic is off.
pub(crate) fn traffic_token(inner: &Inner, record: &Sandbox) -> Option<String> {
    (!record.network.allow_public_traffic)
        .then(|| token::derive(&inner.secret, Purpose::Traffic, &record.id))
}

/// Adds fields to lines of a log.
fn annotate(log: &mut [LogEntry], fields: &BTreeMap<String, String>) {
    for entry in log {
        entry.fields.extend(fields.clone());
    }
}

pub(crate) fn deadline_event(change: DeadlineChange) -> Event {
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
