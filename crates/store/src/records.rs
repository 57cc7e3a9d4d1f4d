//! Records that only the store's callers build.

use std::collections::BTreeMap;

use woodfrog_types::event::Level;
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::session::{LogEnd, NewSessionEvent, Position, Session, SessionEvent, Turn};
use woodfrog_types::{SandboxId, SessionId, Timestamp, WorkspaceId};

/// An event before the store gives it its sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    pub at: Timestamp,
    pub level: Level,
    pub kind: String,
    pub message: String,
    pub fields: BTreeMap<String, String>,
}

/// How the request behind an idempotency key ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdempotencyOutcome {
    /// Still running, or the server died under it.
    InProgress,
    /// It made this (an id); a retry is answered with the same.
    Done { result: String },
    /// It failed and left nothing; the key is free again.
    Freed,
}

/// A claimed idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyEntry {
    pub workspace: WorkspaceId,
    pub key: String,
    /// SHA-256 of the request, hex: the same key with another request is refused.
    pub fingerprint: String,
    pub claimed_at: Timestamp,
    pub outcome: IdempotencyOutcome,
}

/// Every sandbox that is recorded.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// By id.
    pub sandboxes: Vec<Sandbox>,
    pub damaged: Vec<Damaged>,
}

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// `None` if not even its id can be read.
    pub id: Option<SandboxId>,
    /// What is wrong with it.
    pub detail: String,
}

/// What one step of a session changes, in one transaction.
#[derive(Debug, Clone)]
pub struct SessionAppend {
    pub session: SessionId,
    /// The claim under which it is written ([`LogEnd::epoch`]).
    pub epoch: u64,
    /// Each goes to the end of its stream, in this order.
    pub events: Vec<NewSessionEvent>,
    /// `None` leaves it.
    pub position: Option<Position>,
    /// The record, its generation one higher than the stored one; `None` leaves it.
    pub record: Option<Session>,
    /// Turns that begin or end: those with a number that is there replace it.
    pub turns: Vec<Turn>,
}

/// A piece of a log, and where the log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSlice {
    pub end: LogEnd,
    /// Those after the place that was asked for and still held, oldest first.
    pub events: Vec<SessionEvent>,
}

/// A session as a client's own persistence knows it: the server keeps it and looks at nothing but
/// its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistedSession {
    /// The client's, unique in the workspace.
    pub id: String,
    /// Lists go by it, then by id.
    pub created_at: i64,
    /// JSON, as it was given.
    pub record: String,
}

/// An event as a client's own persistence knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistedEvent {
    /// The client's, unique in the workspace.
    pub id: String,
    pub session: String,
    /// Unique in the session.
    pub index: u64,
    /// JSON, as it was given.
    pub record: String,
}
