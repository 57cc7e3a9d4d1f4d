//! Webhooks: addresses that are told what happens in a workspace.

use crate::secret::Sealed;
use crate::{Timestamp, WebhookId, WorkspaceId};

/// An address that is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub id: WebhookId,
    pub workspace: WorkspaceId,
    /// `http` or `https`, without credentials.
    pub url: String,
    /// For people.
    pub description: String,
    /// Kinds of events: `run.succeeded`, `run.*`, `*`. Empty is all.
    pub events: Vec<String>,
    /// What deliveries are signed with.
    pub secret: Sealed,
    pub state: WebhookState,
    /// Rises by one with each stored change; a write names the one it saw.
    pub generation: u64,
    pub created_at: Timestamp,
}

/// Whether it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookState {
    Enabled {
        /// Since when every delivery failed; `None` if the last one did not.
        failing_since: Option<Timestamp>,
    },
    /// It failed for too long. Nothing is recorded for it until it is enabled again.
    Disabled { since: Timestamp },
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookEvent {
    /// The same thing has the same id however often it is told: receivers drop repetitions by it.
    pub id: String,
    pub workspace: WorkspaceId,
    /// `run.succeeded`, `sandbox.hibernated`, `budget.threshold_reached`.
    pub kind: String,
    pub at: Timestamp,
    /// A JSON object: the body's `data`.
    pub data: String,
}

/// One event on its way to one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its place in the order in which they were recorded.
    pub number: u64,
    pub webhook: WebhookId,
    pub event: WebhookEvent,
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: u32,
    /// What became of the last try.
    pub last: Option<Attempt>,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It is tried then.
    Pending {
        due: Timestamp,
    },
    Delivered {
        at: Timestamp,
    },
    /// It was tried for the last time.
    Failed {
        at: Timestamp,
    },
}

impl DeliveryState {
    /// A stable name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Delivered { .. } => "delivered",
            Self::Failed { .. } => "failed",
        }
    }
}

/// One try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub at: Timestamp,
    /// The status that was answered, if anything was.
    pub status: Option<u16>,
    /// Why it failed; at most 500 characters.
    pub error: Option<String>,
}

impl Webhook {
    /// Whether it is told of events of this kind.
    pub fn wants(&self, kind: &str) -> bool {
        let matches = |wanted: &String| match wanted.strip_suffix('*') {
            Some(prefix) => kind.starts_with(prefix),
            None => wanted == kind,
        };
        self.events.is_empty() || self.events.iter().any(matches)
    }
}

/// Something that happened to a run, a session or a sandbox, as the store notes it in the
/// transaction that it happens in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// Its place in the order of what was noted.
    pub number: u64,
    pub workspace: WorkspaceId,
    /// [`WebhookEvent::kind`].
    pub kind: String,
    /// The id of the run, the session or the sandbox.
    pub subject: String,
    /// The generation of the run, 1 and 2 for the beginning and the end of a session, the place in
    /// the log of the sandbox.
    pub place: u64,
    pub at: Timestamp,
}

/// Entries of a sandbox's log that webhooks are told of.
pub const SANDBOX_KINDS: [&str; 9] = [
    "sandbox.created",
    "sandbox.paused",
    "sandbox.hibernated",
    "sandbox.archived",
    "sandbox.woken",
    "sandbox.deleted",
    "sandbox.expired",
    "sandbox.exited",
    "sandbox.lost",
];
