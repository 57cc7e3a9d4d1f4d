//! What callers get to see.

use woodfrog_types::key::ApiKey;
use woodfrog_types::sandbox::Sandbox;
pub use woodfrog_types::sleep::Hold;
use woodfrog_types::sleep::{SleepDefaults, SleepPolicy};
use woodfrog_types::template::{Build, Template};
use woodfrog_types::{SnapshotId, Timestamp};

/// A sandbox and what is derived from it.
#[derive(Debug, Clone)]
pub struct SandboxView {
    pub sandbox: Sandbox,
    /// Opens the guest. Derived from the id and the server's secret: valid for the sandbox's
    /// whole life.
    pub access_token: String,
    /// Opens ports inside where public traffic is off; `None` where it is on.
    pub traffic_token: Option<String>,
}

/// A template with the build that its default tag names.
#[derive(Debug, Clone)]
pub struct TemplateView {
    pub template: Template,
    pub current: Option<Build>,
}

/// A tag that names, or named, a build.
#[derive(Debug, Clone)]
pub struct TagAssignment {
    pub build: Build,
    /// Since when it did.
    pub at: Timestamp,
}

/// A build and the template it belongs to.
#[derive(Debug, Clone)]
pub struct BuildView {
    pub template: Template,
    pub build: Build,
}

/// A new key: the only time its secret is seen.
#[derive(Debug, Clone)]
pub struct CreatedKey {
    pub key: ApiKey,
    /// 64 lowercase hex digits. Presented as `wf_<hex>` or `e2b_<hex>`; both are the same key.
    pub secret_hex: String,
}

/// Where a build's file archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSlot {
    /// It was uploaded before.
    Present,
    /// Upload it with this one-time token.
    Upload { token: String },
}

impl SandboxView {
    /// As E2B names its state: one that dozes by itself is `running` to its client.
    pub fn e2b_state(&self) -> &'static str {
        match self.sandbox.state.is_kept_asleep() {
            true => "paused",
            false => "running",
        }
    }
}

/// A sandbox that was put to sleep.
#[derive(Debug, Clone)]
pub struct Slept {
    pub view: SandboxView,
    /// It was asleep on that rung, or a deeper one, before.
    pub already: bool,
}

/// A sandbox that runs.
#[derive(Debug, Clone)]
pub struct Resumed {
    pub view: SandboxView,
    /// It was asleep before.
    pub woke: bool,
}

/// A sandbox whose use was announced.
#[derive(Debug, Clone)]
pub struct Touched {
    pub view: SandboxView,
    pub last_activity: Timestamp,
}

/// What a workspace says about sleep, and what that makes of the server's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SleepDefaultsView {
    pub defaults: SleepDefaults,
    pub server: SleepPolicy,
    /// What a sandbox gets whose request says nothing.
    pub effective: SleepPolicy,
}

/// Why a sandbox is awake or asleep, and what comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wakefulness {
    /// [`woodfrog_types::sandbox::SandboxState::as_str`].
    pub state: &'static str,
    /// Sentences for people: ``hold `run-1` until …``, `idle since …`.
    pub reasons: Vec<String>,
    pub last_activity: Timestamp,
    pub holds: Vec<Hold>,
    pub next: Option<NextRung>,
}

/// The next rung of the ladder, if nothing happens until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextRung {
    /// The state that it goes to: `paused`, `hibernated`, `archived`, `deleted`.
    pub state: &'static str,
    pub at: Timestamp,
}

/// What a collection of unreferenced snapshots removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    pub removed: Vec<SnapshotId>,
    pub bytes: u64,
    /// Bytes that were removed from the archive.
    pub archive_bytes: u64,
}
