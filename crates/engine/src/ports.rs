//! What the engine is given: its ports and its options.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use woodfrog_core::admission::Caps;
use woodfrog_core::health::HealthPolicy;
use woodfrog_sandbox::Driver;
use woodfrog_store::Store;
use woodfrog_types::sleep::SleepPolicy;
use woodfrog_types::workspace::WorkspaceLimits;
use woodfrog_types::{Timestamp, limits};
use woodfrog_volumes::Places;

use crate::archive::Archive;
use crate::images::Images;
use crate::keys::TokenVerifier;

/// The engine's ways into the world.
#[derive(Clone)]
pub struct Ports {
    pub store: Arc<dyn Store>,
    pub driver: Arc<dyn Driver>,
    pub images: Arc<dyn Images>,
    /// Where snapshots go that leave the machine; `None`: they do not.
    pub archive: Option<Arc<dyn Archive>>,
}

/// Who may use the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPolicy {
    /// Only holders of a key of this server.
    Required,
    /// Development: any key, or none, is the default workspace's administrator.
    AcceptAny,
}

/// Times at which idle sandboxes go down one rung.
#[derive(Clone)]
pub struct Sweep {
    /// The first time after this one.
    pub next: Arc<dyn Fn(Timestamp) -> Option<Timestamp> + Send + Sync>,
    /// How long a sandbox must have been without use, or on its rung.
    pub idle: Duration,
}

impl std::fmt::Debug for Sweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweep")
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

/// A certificate authority, as those who are to trust it need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressAuthority {
    /// Its certificate (PEM).
    pub certificate: String,
    /// Its name in a directory where OpenSSL looks certificates up.
    pub link: String,
}

/// How the engine behaves. Immutable once it runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where uploads for template builds are kept.
    pub data_dir: PathBuf,
    pub keys: KeyPolicy,
    /// Checks tokens of an identity provider; `None`: they are not taken.
    pub tokens: Option<Arc<dyn TokenVerifier>>,
    /// What workspaces may use whose limits nobody set.
    pub limits: WorkspaceLimits,
    /// How many sandboxes may be in memory at once; those that sleep on disk do not count.
    pub caps: Caps,
    /// The longest timeout that a request may ask for.
    pub timeout_max: Duration,
    /// How long a new sandbox's guest may take until it answers.
    pub guest_timeout: Duration,
    /// How long a template's ready command may take until it succeeds.
    pub ready_timeout: Duration,
    /// How long a create waits for the server's own base template while it is being made; then it
    /// is refused as not ready.
    pub base_wait: Duration,
    /// Between two samples of each sandbox's use of resources.
    pub metric_interval: Duration,
    /// Samples kept per sandbox.
    pub metric_samples: usize,
    /// Builds that run at once; more wait for their turn.
    pub builds_at_once: usize,
    /// Bytes of layers that nothing but the cache of build steps needs.
    pub build_cache_bytes: u64,
    /// How long one step of a build may take.
    pub build_step_timeout: Duration,
    /// Bytes of one file archive uploaded for a build.
    pub upload_bytes_max: u64,
    /// When sandboxes go to sleep whose request does not say.
    pub sleep: SleepPolicy,
    /// When sandboxes that nobody used for long go down one rung; `None`: never.
    pub sweep: Option<Sweep>,
    /// How long a caller waits for a sandbox to wake, a place for it included.
    pub wake_timeout: Duration,
    /// Callers that may wait for a place for a sandbox to wake; more are refused.
    pub wakes_waiting_max: usize,
    /// How long bringing a sandbox back may take once it has a place.
    pub restore_timeout: Duration,
    /// How long saving a sandbox may take; it goes on if it takes longer.
    pub checkpoint_timeout: Duration,
    /// How long operations under way may take to end before a sandbox is saved; then they are cut.
    pub quiesce_timeout: Duration,
    /// A sandbox that was not used for this long may be put to sleep where another one needs its
    /// place, if it may sleep by itself at all.
    pub evict_idle: Duration,
    /// Percent of one CPU: a sandbox that uses more is active.
    pub active_cpu_pct: f64,
    /// What the snapshots of one workspace may take; `None`: as much as the disk has.
    pub snapshot_quota: Option<u64>,
    /// Makes room for volumes that have limits, below `pool` in the data directory; `None`: they
    /// have none.
    pub volume_places: Option<Arc<dyn Places>>,
    /// What a volume holds whose request does not say.
    pub volume_bytes: u64,
    /// The most that a volume may hold.
    pub volume_bytes_max: u64,
    /// Sandboxes of each kind that are made ahead of the creates that will ask for them, once some
    /// were asked for; 0: none.
    pub spares: usize,
    /// Whether a template with a start command is started once, and its sandboxes begin there.
    pub warm: bool,
    /// Between two looks at the snapshots that sandboxes sleep in; zero: never.
    pub scrub_interval: Duration,
    /// How long a snapshot may take to come from the archive; who uses its sandbox waits as much
    /// longer.
    pub archive_timeout: Duration,
    /// Between two looks for what nothing refers to in the archive; zero: never.
    pub archive_gc_interval: Duration,
    /// Whom sandboxes with header rules are to trust, so that requests over TLS can be changed;
    /// `None`: the driver changes none.
    pub egress_authority: Option<EgressAuthority>,
    /// How running sandboxes are asked whether they answer; `None`: they are not.
    pub health: Option<HealthPolicy>,
    /// How many others keep something of workspaces: no workspace is removed before as many have
    /// said so ([`crate::Engine::on_workspace_removal`]).
    pub workspace_contents: usize,
    /// How long a shutdown waits for operations under way.
    pub drain_timeout: Duration,
    /// What this server is called among those that share its store.
    pub node_name: String,
    /// Whether servers that share the store share the archive, too: then sandboxes go between them.
    pub shared_archive: bool,
    /// How long this server has a sandbox without saying so, where others share its store.
    pub lease: Duration,
}

impl Options {
    /// The defaults, with everything kept under `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            keys: KeyPolicy::Required,
            tokens: None,
            limits: WorkspaceLimits::default(),
            caps: Caps {
                server: 2_000,
                workspace: 1_000,
            },
            timeout_max: limits::SANDBOX_TIMEOUT_MAX,
            guest_timeout: Duration::from_secs(10),
            ready_timeout: Duration::from_secs(60),
            base_wait: Duration::ZERO,
            metric_interval: Duration::from_secs(5),
            // One hour at the default interval.
            metric_samples: 720,
            builds_at_once: 2,
            build_cache_bytes: 10 << 30,
            build_step_timeout: Duration::from_secs(3600),
            upload_bytes_max: 4 << 30,
            sleep: SleepPolicy::default(),
            sweep: None,
            wake_timeout: Duration::from_secs(60),
            wakes_waiting_max: 1_000,
            restore_timeout: Duration::from_secs(60),
            checkpoint_timeout: Duration::from_secs(300),
            quiesce_timeout: Duration::from_millis(250),
            evict_idle: Duration::from_secs(5),
            active_cpu_pct: 5.0,
            snapshot_quota: None,
            volume_places: None,
            volume_bytes: 10 << 30,
            volume_bytes_max: 100 << 30,
            spares: 0,
            warm: false,
            scrub_interval: Duration::from_secs(60),
            archive_timeout: Duration::from_secs(600),
            archive_gc_interval: Duration::from_secs(6 * 3600),
            egress_authority: None,
            health: Some(HealthPolicy::default()),
            workspace_contents: 0,
            drain_timeout: Duration::from_secs(10),
            node_name: "woodfrog".to_owned(),
            shared_archive: false,
            lease: Duration::from_secs(30),
        }
    }
}
