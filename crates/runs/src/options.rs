//! How runs are held.

use std::time::Duration;

use woodfrog_core::run::BOOT_MAX;

/// Immutable.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a run may work that asks for nothing else.
    pub wall: Duration,
    /// The longest that it can ask for.
    pub wall_max: Duration,
    /// Runs that go on at once on this server; more wait.
    pub at_once: usize,
    /// Runs that wait, of all workspaces together; more are refused.
    pub queue_max: usize,
    /// How long a run may take to get its sandbox and process.
    pub boot_max: Duration,
    /// Between two looks at whether a run's process lives.
    pub heartbeat: Duration,
    /// Between two looks at the files of a run that goes on; each takes a tenth of the time at most.
    pub capture: Duration,
    /// Between two questions whether a run on hold may go on.
    pub hold_poll: Duration,
    /// Between two looks for sandboxes and runs that lost each other.
    pub reconcile: Duration,
    /// Untracked runs whose ends can still be read; the oldest is forgotten first.
    pub untracked_kept: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(120),
            wall_max: Duration::from_secs(600),
            at_once: 64,
            queue_max: 10_000,
            boot_max: BOOT_MAX,
            heartbeat: Duration::from_secs(15),
            capture: Duration::from_secs(10),
            hold_poll: Duration::from_secs(5),
            reconcile: Duration::from_secs(30),
            untracked_kept: 1_000,
        }
    }
}
