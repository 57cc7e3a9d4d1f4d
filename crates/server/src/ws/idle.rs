//! When an idle sandbox goes.
//!
//! While a client is attached its connection looks after that, so that it can say so. The
//! sandbox's deadline, which the engine keeps, comes a little later: it counts where there is no
//! connection, also after the server was killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use woodfrog_engine::{DeadlineChange, Engine};
use woodfrog_types::key::{Principal, Scope};
use woodfrog_types::sandbox::{OnTimeout, Sandbox};
use woodfrog_types::workspace::{Role, UserId};
use woodfrog_types::{Code, SandboxId, WorkspaceId, limits};

use super::machine::{OnIdle, Settings};
use super::room::{Room, Sockets};

/// How often a sandbox is looked for whose process has ended nobody knows how: it may be going.
const SOON: Duration = Duration::from_secs(1);

/// Where a sandbox's settings are, among its metadata.
const KEY: &str = "woodfrog.ws";
/// How much later than the idle timeout the deadline is while somebody looks after it.
const SLACK: Duration = Duration::from_secs(60);
/// How often the deadline is moved meanwhile.
const RENEW: Duration = Duration::from_secs(20);
/// The shortest deadline: a client whose connection broke is just coming back.
const LEAST: Duration = Duration::from_secs(1);
/// How long the end of code is remembered whose client does not come back.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What a client asked for when it made the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Wishes {
    /// Seconds.
    pub(super) idle_timeout: Option<f64>,
    pub(super) checkpoint: bool,
    pub(super) auto_checkpoint: bool,
    #[serde(default)]
    pub(super) handoff: bool,
}

impl Wishes {
    /// Writes them down.
    pub(super) fn note(&self, metadata: &mut BTreeMap<String, String>) {
        let text = serde_json::to_string(self).unwrap_or_default();
        metadata.insert(KEY.to_owned(), text);
    }

    /// Those of a sandbox; of one that was made in another way: nothing was asked for.
    pub(super) fn of(sandbox: &Sandbox) -> Self {
        let noted = sandbox.metadata.get(KEY);
        let noted = noted.and_then(|text| serde_json::from_str(text).ok());
        noted.unwrap_or(Self {
            idle_timeout: None,
            checkpoint: true,
            auto_checkpoint: false,
            handoff: false,
        })
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            checkpoint: self.checkpoint,
            on_idle: match self.auto_checkpoint {
                true => OnIdle::Checkpoint,
                false => OnIdle::Delete,
            },
        }
    }

    /// The idle timeout; `None` is never.
    pub(super) fn idle(&self) -> Option<Duration> {
        let most = limits::SANDBOX_TIMEOUT_MAX.saturating_sub(SLACK);
        let idle = Duration::try_from_secs_f64(self.idle_timeout?).unwrap_or(most);
        Some(idle.min(most))
    }

    /// What the sandbox's own clock is set to when it is made.
    pub(super) fn timeout(&self) -> Option<Duration> {
        // Whole seconds, as the store keeps them.
        let idle = self.idle()?;
        Some(Duration::from_secs(idle.as_secs() + 1) + SLACK)
    }

    pub(super) fn on_timeout(&self) -> OnTimeout {
        match self.auto_checkpoint {
            true => OnTimeout::Pause { memory: true },
            false => OnTimeout::Kill,
        }
    }
}

/// Whoever has a sandbox's token acts for its workspace.
pub(super) fn principal_of(workspace: WorkspaceId) -> Principal {
    Principal {
        workspace,
        user: UserId::operator(),
        role: Role::Owner,
        key: None,
        scope: Scope::Workspace,
    }
}

/// The clock of one sandbox.
pub(super) struct Clock {
    engine: Engine,
    principal: Principal,
    id: SandboxId,
    /// `None`: it never goes.
    idle: Option<Duration>,
    last: Instant,
    renewed: Option<Instant>,
}

impl Clock {
    pub(super) fn new(engine: Engine, sandbox: &Sandbox) -> Self {
        Self {
            engine,
            principal: principal_of(sandbox.workspace.clone()),
            id: sandbox.id.clone(),
            idle: Wishes::of(sandbox).idle(),
            last: Instant::now(),
            renewed: None,
        }
    }

    /// Whether it never goes by itself.
    pub(super) const fn is_endless(&self) -> bool {
        self.idle.is_none()
    }

    /// Something happened.
    pub(super) fn touch(&mut self) {
        self.last = Instant::now();
    }

    /// When it is time to look again.
    pub(super) fn due(&self) -> Instant {
        let renewal = self.renewed.map_or(self.last, |at| at + RENEW);
        match self.idle {
            Some(idle) => renewal.min(self.last + idle),
            None => renewal + REMEMBERED,
        }
    }

    /// Whether it was idle for as long as it may; its deadline is moved otherwise. `running`: code
    /// runs.
    pub(super) async fn look(&mut self, running: bool) -> bool {
        if running {
            self.touch();
        }
        let Some(idle) = self.idle else {
            self.renewed = Some(Instant::now());
            return false;
        };
        let left = idle.saturating_sub(self.last.elapsed());
        if left.is_zero() {
            return true;
        }
        if self.renewed.is_none_or(|at| at.elapsed() >= RENEW) {
            self.renewed = Some(Instant::now());
            self.set(left + SLACK).await;
        }
        false
    }

    /// Nobody looks after it any more.
    pub(super) async fn leave(&self) {
        if let Some(idle) = self.idle {
            let left = idle.saturating_sub(self.last.elapsed());
            self.set(left.max(LEAST)).await;
        }
    }

    /// Whether the sandbox is gone, or on another server.
    async fn is_away(&self) -> bool {
        let gone = match self.engine.peek(&self.id).await {
            Ok(_) => false,
            Err(fault) => fault.code == Code::SandboxNotFound,
        };
        gone || self.engine.is_elsewhere(&self.id).await.unwrap_or(false)
    }

    async fn set(&self, left: Duration) {
        // Another server sees to it then; asking its owner would bring it back here.
        if self.engine.is_elsewhere(&self.id).await.unwrap_or(false) {
            return;
        }
        let change = DeadlineChange::Set(left);
        let set = self
            .engine
            .sandbox_deadline(&self.principal, &self.id, change);
        match set.await {
            Ok(_) => {}
            // It is gone, or sleeps.
            Err(fault) if matches!(fault.code, Code::SandboxNotFound | Code::Conflict) => {}
            Err(fault) => {
                let error = &fault as &dyn std::error::Error;
                tracing::warn!(sandbox = %self.id, error, "an idle timeout could not be set");
            }
        }
    }
}

/// Looks after a sandbox whose client is away while code runs in it, or has ended unheard.
pub(super) async fn keep(clock: Clock, room: Arc<Room>, sockets: Sockets) {
    let id = clock.id.clone();
    look_after(clock, &room, &sockets).await;
    drop(room);
    sockets.tidy(&id);
}

async fn look_after(mut clock: Clock, room: &Room, sockets: &Sockets) {
    let mut over = None;
    loop {
        if room.has_client() {
            return;
        }
        let Some(execution) = room.execution() else {
            break;
        };
        if execution.is_over() {
            if clock.is_away().await {
                // Whoever came meanwhile finds what is there by itself.
                if !room.has_client() {
                    room.forget();
                }
                return;
            }
            if over.is_none() {
                over = Some(Instant::now());
                clock.leave().await;
            }
            if over.is_some_and(|at| at.elapsed() >= REMEMBERED) {
                room.set_execution(None);
                break;
            }
        } else {
            clock.look(true).await;
        }
        let pause = match execution.end() {
            Some(None) => SOON,
            Some(Some(_)) | None => RENEW,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = execution.ended.cancelled(), if over.is_none() => {}
            () = sockets.stopping().cancelled() => {
                return room.note(&clock.engine, &clock.id).await;
            }
        }
    }
    if over.is_none() {
        clock.leave().await;
    }
}
