//! Records that only the store's callers build.

use std::collections::BTreeMap;

use woodfrog_types::event::Level;
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::{SandboxId, Timestamp, WorkspaceId};

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
