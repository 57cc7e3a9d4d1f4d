//! API keys.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use woodfrog_types::Timestamp;
use woodfrog_types::key::{ApiKey, KeyReach, Scope as Domain};

use super::workspace::Role;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything in every workspace, and the keys themselves.
    Admin,
    /// Everything in one workspace.
    #[default]
    Workspace,
}

/// In which workspaces a key can be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// In its own.
    #[default]
    Workspace,
    /// In every one that its user is a member of.
    User,
}

impl From<KeyReach> for Reach {
    fn from(reach: KeyReach) -> Self {
        match reach {
            KeyReach::Bound => Self::Workspace,
            KeyReach::User => Self::User,
        }
    }
}

impl From<Reach> for KeyReach {
    fn from(reach: Reach) -> Self {
        match reach {
            Reach::Workspace => Self::Bound,
            Reach::User => Self::User,
        }
    }
}

/// A key to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// For people.
    pub name: String,
    /// The caller's workspace if absent.
    pub workspace: Option<String>,
    #[serde(default)]
    pub scope: Scope,
    /// Whom it acts for; itself if absent.
    pub user: Option<String>,
    /// The most that it lets its holder be: `member` if absent, `owner` in admin scope.
    pub role: Option<Role>,
    #[serde(default)]
    pub reach: Reach,
    /// Never if absent.
    pub expires_at: Option<i64>,
}

/// A key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    pub id: String,
    pub name: String,
    pub workspace: String,
    pub scope: Scope,
    /// Whom it acts for; itself if absent.
    pub user: Option<String>,
    /// The most that it lets its holder be.
    pub role: Role,
    pub reach: Reach,
    /// The first characters of the secret.
    pub hint: String,
    pub created_at: i64,
    pub expires_at: Option<i64>,
    pub last_used_at: Option<i64>,
    /// Until when the secret before the last rotation is taken.
    pub previous_until: Option<i64>,
}

/// A key is to have a new secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Seconds for which the secret before is still taken; a day if absent.
    pub grace_seconds: Option<u64>,
}

/// A new key. Its secret is shown this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedKey {
    #[serde(flatten)]
    pub key: Key,
    /// `wf_` and 64 hex digits.
    pub secret: String,
    /// The same key in the form that E2B's clients accept.
    pub e2b_secret: String,
}

/// All keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    pub items: Vec<Key>,
}

impl From<Domain> for Scope {
    fn from(scope: Domain) -> Self {
        match scope {
            Domain::Admin => Self::Admin,
            Domain::Workspace => Self::Workspace,
        }
    }
}

impl From<Scope> for Domain {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Admin => Self::Admin,
            Scope::Workspace => Self::Workspace,
        }
    }
}

impl From<ApiKey> for Key {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name,
            workspace: key.workspace.to_string(),
            scope: key.scope.into(),
            user: key.user.map(|user| user.to_string()),
            role: key.role.into(),
            reach: key.reach.into(),
            previous_until: key.previous.map(|previous| previous.until.as_millis()),
            hint: key.hint,
            created_at: key.created_at.as_millis(),
            expires_at: key.expires_at.map(Timestamp::as_millis),
            last_used_at: key.last_used_at.map(Timestamp::as_millis),
        }
    }
}

impl CreatedKey {
    /// The reply for a key and its secret's hex digits.
    pub fn new(key: ApiKey, secret_hex: &str) -> Self {
        Self {
            key: key.into(),
            secret: format!("wf_{secret_hex}"),
            e2b_secret: format!("e2b_{secret_hex}"),
        }
    }
}
