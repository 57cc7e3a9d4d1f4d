//! API keys and the principals they stand for.

use crate::{KeyId, Timestamp, WorkspaceId};

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything in every workspace, and the keys themselves.
    Admin,
    /// Everything in its own workspace, but no keys.
    Workspace,
}

/// An API key as it is stored: never its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: KeyId,
    pub workspace: WorkspaceId,
    /// For people.
    pub name: String,
    pub scope: Scope,
    /// The first characters of the secret, to recognise it by.
    pub hint: String,
    /// SHA-256 of the secret's 256 random bits: no salt needed, no guess possible.
    pub digest: [u8; 32],
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// To the minute.
    pub last_used_at: Option<Timestamp>,
}

/// Who is asking: resolved once per request, then handed down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub workspace: WorkspaceId,
    /// `None` in development mode, where any key is accepted.
    pub key: Option<KeyId>,
    pub scope: Scope,
}
