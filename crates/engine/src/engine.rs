//! The engine itself: start, stop, and what it consists of.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use woodfrog_core::token::ServerSecret;
use woodfrog_store::Store;
use woodfrog_types::sandbox::SandboxState;
use woodfrog_types::{Fault, SandboxId, Timestamp, WorkspaceId};

use crate::agent_sandbox::Turns;
use crate::audit::{self, Audit};
use crate::fault;
use crate::grants::Grants;
use crate::inner::{Inner, Registry};
use crate::layers::{self, LayerUses};
use crate::lease;
use crate::lease::moving::{self, Moves};
use crate::ports::{Options, Ports};
use crate::rates::Rates;
use crate::sandbox::attic::{self, Attic};
use crate::sandbox::create::IDEMPOTENCY_KEPT;
use crate::sandbox::deadline::{self, Alarm};
use crate::sandbox::live::Live;
use crate::sandbox::shelf::Pins;
use crate::sandbox::spares::{self, Spares};
use crate::sandbox::warm::Warm;
use crate::sandbox::{metrics, recover, scrub, sweep};
use crate::sandbox_sessions;
use crate::tasks;
use crate::template::{self, Builds};
use crate::transition::{Observed, Observer};
use crate::volumes::{self, VolumePins};
use crate::workspaces::removal::{self, Removals};

/// The name under which the store keeps the server's secret.
const SECRET_SETTING: &str = "server.secret";
/// The name under which it keeps what tells this store's archives from others'.
const SCOPE_SETTING: &str = "archive.scope";
/// Between two sweeps of what is old.
const TRIM_INTERVAL: std::time::Duration = std::time::Duration::from_secs(3600);
/// How long the log of a sandbox that is gone is kept.
const EVENTS_KEPT: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);
/// Logs dropped in one go.
const TRIM_BATCH: usize = 1000;

/// Everything that Woodfrog does, behind one handle. A cheap clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

impl Engine {
    /// Recovers what the server before left, then runs. Fails if the store cannot be read.
    pub async fn start(ports: Ports, options: Options) -> Result<Self, Fault> {
        let secret = server_secret(&ports).await?;
        let scope = archive_scope(&ports).await?;
        let builds = Builds::new(options.builds_at_once);
        let inner = Arc::new(Inner {
            store: ports.store,
            driver: ports.driver,
            images: ports.images,
            options,
            secret,
            started_at: Timestamp::now(),
            registry: Registry::default(),
            alarm: Alarm::new(),
            grants: Grants::default(),
            audit: Arc::new(Audit::default()),
            rates: Rates::default(),
            removals: Removals::default(),
            builds,
            pins: Pins::default(),
            volume_pins: VolumePins::default(),
            attic: Attic::new(ports.archive, scope),
            observed: Observed::default(),
            warm: Warm::default(),
            spares: Spares::default(),
            agent_turns: Turns::default(),
            moves: Moves::default(),
            layer_uses: LayerUses::default(),
            collecting: tokio::sync::Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        });
        let engine = Self {
            inner: Arc::clone(&inner),
        };
        let begun = inner.store.lease_begin(&inner.options.node_name).await;
        begun.map_err(fault::store)?;
        layers::agree(&inner).await?;
        engine.adopt_workspaces().await?;
        removal::mark(&inner).await?;
        // It outlives the other tasks: what they did last is written too.
        tokio::spawn(audit::write(
            Arc::clone(&inner.audit),
            Arc::clone(&inner.store),
        ));
        let back = recover::recover(&inner).await?;
        template::end_unfinished(&inner).await?;
        volumes::tidy(&inner).await?;
        layers::collect_later(&inner);
        let shared = Arc::clone(&inner);
        tasks::spawn(&inner.tasks, "lost sandboxes", async move {
            recover::bring_back(shared, back).await;
        });
        let shared = Arc::clone(&inner);
        tasks::supervise(&inner.tasks, "leases", move || {
            lease::watch(Arc::clone(&shared))
        });
        let shared = Arc::clone(&inner);
        tasks::supervise(&inner.tasks, "hand-over", move || {
            moving::watch(Arc::clone(&shared))
        });
        let shared = Arc::clone(&inner);
        tasks::supervise(&inner.tasks, "deadlines", move || {
            deadline::watch(Arc::clone(&shared))
        });
        let shared = Arc::clone(&inner);
        tasks::supervise(&inner.tasks, "metrics", move || {
            metrics::watch(Arc::clone(&shared))
        });
        let shared = Arc::clone(&inner);
        tasks::supervise(&inner.tasks, "spare sandboxes", move || {
            spares::watch(Arc::clone(&shared))
        });
        let shared = Arc::clone(&inner);
        tasks::supervise(&inner.tasks, "scrub", move || {
            scrub::watch(Arc::clone(&shared))
        });
        let shared = Arc::clone(&inner);
        tasks::supervise(&inner.tasks, "archive", move || {
            attic::watch(Arc::clone(&shared))
        });
        let shared = Arc::clone(&inner);
        tasks::supervise(&inner.tasks, "sweep", move || {
            sweep::watch(Arc::clone(&shared))
        });
        let shared = Arc::clone(&inner);
        tasks::supervise(&inner.tasks, "trim", move || trim(Arc::clone(&shared)));
        let shared = engine.clone();
        tasks::supervise(&inner.tasks, "workspace removal", move || {
            removal::watch(shared.clone())
        });
        Ok(engine)
    }

    /// Tells `observer` of every change of rung from now on; the first one stays.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.inner.observed.set(observer);
    }

    /// What remembers sessions; everything else of the store goes through the engine.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.inner.store)
    }

    /// Whether requests are taken.
    pub fn ready(&self) -> bool {
        !self.inner.stopping.is_cancelled()
    }

    /// How many sandboxes run, of all workspaces.
    pub fn running(&self) -> usize {
        let live = self.inner.registry.all();
        let running =
            |live: &Arc<Live>| matches!(live.record().state, SandboxState::Running { .. });
        live.iter().filter(|live| running(live)).count()
    }

    /// The sandboxes that run, of all workspaces.
    pub fn awake(&self) -> Vec<(WorkspaceId, SandboxId)> {
        let live = self.inner.registry.all();
        live.iter()
            .map(|live| live.record())
            .filter(|record| matches!(record.state, SandboxState::Running { .. }))
            .map(|record| (record.workspace.clone(), record.id.clone()))
            .collect()
    }

    /// How many sandboxes are ready that belong to nobody yet.
    pub fn spares(&self) -> usize {
        self.inner.spares.count()
    }

    /// How many sandboxes have an owner: those in memory, and those on disk that somebody wants
    /// something of just now.
    pub fn owners(&self) -> usize {
        self.inner.registry.all().len()
    }

    /// Stops taking work and waits for what is under way, at most for the drain timeout.
    /// Sandboxes go on running; the next server adopts them.
    pub async fn shutdown(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        let drain = self.inner.options.drain_timeout;
        if tokio::time::timeout(drain, self.inner.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                left = self.inner.tasks.len(),
                "operations did not end in time; a restart goes on with them"
            );
        }
        self.inner.audit.flush().await;
        self.inner.driver.shutdown().await;
    }
}

/// The stored scope, made at the first start.
async fn archive_scope(ports: &Ports) -> Result<String, Fault> {
    let mut fresh = [0; 16];
    getrandom::fill(&mut fresh).map_err(|error| Fault::internal(error.to_string()))?;
    let fresh = hex::encode(fresh);
    let stored = ports
        .store
        .setting_init(SCOPE_SETTING, fresh.as_bytes())
        .await;
    String::from_utf8(stored.map_err(fault::store)?).map_err(Fault::internal)
}

/// The stored secret, made at the first start.
async fn server_secret(ports: &Ports) -> Result<ServerSecret, Fault> {
    let mut fresh = [0; ServerSecret::BYTES];
    getrandom::fill(&mut fresh).map_err(|error| Fault::internal(error.to_string()))?;
    let stored = ports.store.setting_init(SECRET_SETTING, &fresh).await;
    let stored = stored.map_err(fault::store)?;
    ServerSecret::from_slice(&stored)
        .ok_or_else(|| Fault::internal("the stored server secret is damaged"))
}

/// Forgets what is old, now and then.
async fn trim(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(TRIM_INTERVAL);
    loop {
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let before = |kept: std::time::Duration| {
            let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
            Timestamp::from_millis(Timestamp::now().as_millis().saturating_sub(kept))
        };
        let keys = inner.store.idempotency_trim(before(IDEMPOTENCY_KEPT)).await;
        let logs = inner
            .store
            .event_trim(before(EVENTS_KEPT), TRIM_BATCH)
            .await;
        let sessions = sandbox_sessions::trim(&inner, Timestamp::now()).await;
        let audit = audit::trim(&inner, Timestamp::now()).await;
        match keys.and(logs).and(sessions).and(audit) {
            Ok(dropped) => tracing::debug!(dropped, "trimmed"),
            Err(error) => tracing::warn!(%error, "trimming failed"),
        }
    }
}
