//! API keys and the principals they stand for.

use crate::workspace::{Role, UserId};
use crate::{KeyId, Timestamp, WorkspaceId};

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything in every workspace, and the keys themselves.
    Admin,
    /// Everything in its own workspace, but no keys.
    Workspace,
}

/// In which workspaces a key can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyReach {
    /// In its own only.
    Bound,
    /// In every one that its user is a member of; its own is meant where a request names none.
    User,
}

impl KeyReach {
    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bound => "workspace",
            Self::User => "user",
        }
    }

    /// The reach of that name.
    pub fn parse(name: &str) -> Option<Self> {
        let mut all = [Self::Bound, Self::User].into_iter();
        all.find(|reach| reach.as_str() == name)
    }
}

/// A secret that a rotation replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreviousSecret {
    pub digest: [u8; 32],
    /// It is taken until then.
    pub until: Timestamp,
}

/// An API key as it is stored: never its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: KeyId,
    pub workspace: WorkspaceId,
    /// For people.
    pub name: String,
    pub scope: Scope,
    /// Whom it acts for; `None`: itself.
    pub user: Option<UserId>,
    /// The most that it lets its holder be.
    pub role: Role,
    /// Where it can be used.
    pub reach: KeyReach,
    /// The first characters of the secret, to recognise it by.
    pub hint: String,
    /// SHA-256 of the secret's 256 random bits: no salt needed, no guess possible.
    pub digest: [u8; 32],
    /// The secret before the last rotation, and until when it is still taken.
    pub previous: Option<PreviousSecret>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// To the minute.
    pub last_used_at: Option<Timestamp>,
}

/// Who is asking, where, and as what: resolved once per request, then handed down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub workspace: WorkspaceId,
    /// Who: what runs, limits and the audit go by.
    pub user: UserId,
    /// What they are in `workspace`, as far as their key lets them be it.
    pub role: Role,
    /// `None` in development mode, where any key is accepted.
    pub key: Option<KeyId>,
    pub scope: Scope,
}
