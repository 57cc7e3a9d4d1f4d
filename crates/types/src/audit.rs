//! The audit log: who did what to what, when, and how it ended.

use crate::workspace::UserId;
use crate::{Code, KeyId, Timestamp, WorkspaceId};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// It was not allowed, or over a limit.
    Refused,
    /// It could not be done.
    Failed,
}

impl AuditOutcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Done, Self::Refused, Self::Failed];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    /// The outcome of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == name)
    }

    /// What an answer with that HTTP status says.
    pub const fn of_status(status: u16) -> Self {
        match status {
            0..=399 => Self::Done,
            401 | 403 | 429 => Self::Refused,
            _ => Self::Failed,
        }
    }

    /// What a refusal with that code is.
    pub const fn of_code(code: Code) -> Self {
        Self::of_status(code.http_status())
    }
}

/// What happened, before it has its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAuditEntry {
    pub workspace: WorkspaceId,
    pub at: Timestamp,
    pub actor: UserId,
    /// The key that was used, if one was.
    pub key: Option<KeyId>,
    /// What was done: `sandbox.create`.
    pub action: String,
    /// What it was done to: an id or a path, cut to [`AuditEntry::TARGET_CHARS_MAX`].
    pub target: String,
    pub outcome: AuditOutcome,
    /// The status of the answer, or the code of the refusal.
    pub detail: String,
    /// The face through which it came; `engine` for what the server does by itself.
    pub face: String,
    /// Empty for what the server does by itself.
    pub request_id: String,
}

/// One entry of a workspace's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its place: dense per workspace, from 1.
    pub sequence: u64,
    pub entry: NewAuditEntry,
    /// SHA-256 over the hash of the entry before and all that is in this one.
    pub hash: [u8; 32],
}

impl AuditEntry {
    /// The longest target, in characters.
    pub const TARGET_CHARS_MAX: usize = 300;
}

/// Where a workspace's log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditEnds {
    /// The place of the last entry that retention removed; 0 if there is none.
    pub trimmed: u64,
    /// Its hash; zeros if there is none.
    pub trimmed_hash: [u8; 32],
    /// The place of the last entry; 0 for an empty log.
    pub last: u64,
    /// Its hash; zeros for an empty log.
    pub last_hash: [u8; 32],
}

impl AuditEnds {
    /// The log of a workspace in which nothing happened yet.
    pub const EMPTY: Self = Self {
        trimmed: 0,
        trimmed_hash: [0; 32],
        last: 0,
        last_hash: [0; 32],
    };
}

/// Which entries a list wants. `None` means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    pub actor: Option<UserId>,
    /// `sandbox.create`, or `sandbox.` for all that begins so.
    pub action: Option<String>,
    pub target: Option<String>,
    pub outcome: Option<AuditOutcome>,
    /// At or after.
    pub from: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

impl AuditFilter {
    /// Whether the list wants this entry.
    pub fn matches(&self, entry: &NewAuditEntry) -> bool {
        let action = |wanted: &String| match wanted.ends_with('.') {
            true => entry.action.starts_with(wanted.as_str()),
            false => entry.action == *wanted,
        };
        self.actor.as_ref().is_none_or(|one| entry.actor == *one)
            && self.action.as_ref().is_none_or(action)
            && self.target.as_ref().is_none_or(|one| entry.target == *one)
            && self.outcome.is_none_or(|one| entry.outcome == one)
            && self.from.is_none_or(|from| entry.at >= from)
            && self.until.is_none_or(|until| entry.at < until)
    }
}
