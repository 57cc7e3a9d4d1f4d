//! Workspaces, the people in them, and what each may do.

use std::fmt;
use std::sync::Arc;

use crate::{KeyId, Timestamp, WorkspaceId};

/// A person or a program, by the name that it is known by: 1 to 100 characters.
///
/// Keys act for one; identity providers name them by `sub`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

impl UserId {
    /// The longest name, in characters.
    pub const CHARS_MAX: usize = 100;

    /// `None` if it is empty, too long, or has control characters.
    pub fn parse(value: &str) -> Option<Self> {
        let chars = value.chars().count();
        let fits = (1..=Self::CHARS_MAX).contains(&chars) && !value.chars().any(char::is_control);
        fits.then(|| Self(value.into()))
    }

    /// What a key is that acts for nobody in particular: itself.
    pub fn of_key(key: &KeyId) -> Self {
        Self(key.as_str().into())
    }

    /// Who runs the server: whoever has no other name.
    pub fn operator() -> Self {
        Self("operator".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Workspace {
    /// The longest name, in characters.
    pub const NAME_CHARS_MAX: usize = 100;
    /// The name of the workspace that every server has.
    pub const DEFAULT_NAME: &'static str = "default";
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What somebody is in a workspace. Each role may do all that those below it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Works: sandboxes, sessions, runs.
    Member,
    /// Also members, keys, reviews, limits and budgets.
    Admin,
    /// Also admins, and the workspace itself.
    Owner,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Member, Self::Admin, Self::Owner];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// A workspace: the unit of tenancy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    pub id: WorkspaceId,
    /// For people: 1 to 100 characters.
    pub name: String,
    pub owner: UserId,
    /// Rises by one with each stored change.
    pub generation: u64,
    pub created_at: Timestamp,
    /// It is being removed since then: nothing in it can be reached any more.
    pub removing_since: Option<Timestamp>,
}

/// Somebody in a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub workspace: WorkspaceId,
    pub user: UserId,
    pub role: Role,
    pub joined_at: Timestamp,
}

/// What a workspace may use. `None` is no limit of its own: those of the server hold all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceLimits {
    /// Runs that one user may start in any minute, all workspaces together.
    pub user_runs_per_minute: Option<u32>,
    /// Runs that may be started in the workspace in any minute.
    pub runs_per_minute: Option<u32>,
    /// Runs above either rate that may be started at once; they come back over ten minutes.
    pub run_burst: u32,
    /// Runs that may go on at once; more wait in the queue.
    pub runs_at_once: Option<u32>,
    /// Runs that may wait; more are refused.
    pub run_queue: u32,
    /// Requests of one user in any minute.
    pub user_requests_per_minute: Option<u32>,
    /// Requests to the workspace in any minute.
    pub requests_per_minute: Option<u32>,
    /// Requests above either rate that are let in at once; they come back over ten minutes.
    pub request_burst: u32,
    /// Sandboxes in memory at once; those that sleep on disk do not count.
    pub sandboxes: Option<u32>,
    /// vCPUs of all sandboxes in memory.
    pub cpus: Option<u32>,
    /// Bytes of memory of all sandboxes in memory.
    pub memory_bytes: Option<u64>,
    /// Bytes of disk of all sandboxes in memory.
    pub disk_bytes: Option<u64>,
    /// Days after which the text of a run's prompt is removed; its hash stays.
    pub prompt_retention_days: Option<u32>,
    /// Days after which a run that is over is removed, with its log and artifacts; what it used
    /// stays in the books.
    pub run_retention_days: Option<u32>,
    /// Days after which artifacts are removed.
    pub artifact_retention_days: Option<u32>,
    /// Days after which entries of the audit log are removed.
    pub audit_retention_days: Option<u32>,
}

impl WorkspaceLimits {
    /// The largest rate, burst or queue that can be set.
    pub const COUNT_MAX: u32 = 1_000_000;
    /// The longest retention that can be set, in days.
    pub const DAYS_MAX: u32 = 36_500;
}

impl Default for WorkspaceLimits {
    fn default() -> Self {
        Self {
            user_runs_per_minute: Some(10),
            runs_per_minute: None,
            run_burst: 0,
            runs_at_once: None,
            run_queue: 1_000,
            user_requests_per_minute: None,
            requests_per_minute: None,
            request_burst: 0,
            sandboxes: None,
            cpus: None,
            memory_bytes: None,
            disk_bytes: None,
            prompt_retention_days: None,
            run_retention_days: None,
            artifact_retention_days: None,
            audit_retention_days: None,
        }
    }
}

/// The limits of a workspace, as the store holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsRecord {
    pub workspace: WorkspaceId,
    pub limits: WorkspaceLimits,
    /// Rises by one with each stored change; 1 is the first.
    pub generation: u64,
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users_have_limits() {
        assert!(UserId::parse("").is_none());
        assert!(UserId::parse(&"a".repeat(101)).is_none());
        assert!(UserId::parse("a\nb").is_none());
        assert!(UserId::parse(&"ä".repeat(100)).is_some());
    }

    #[test]
    fn roles_rise() {
        assert!(Role::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
    }
}
