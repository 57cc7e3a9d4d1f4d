//! Workspaces, the people in them, and what they may use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use woodfrog_types::Timestamp;
use woodfrog_types::workspace as domain;

use super::sleep::{SetSleepPolicy, SleepPolicy};

/// What somebody is in a workspace; each may do all that those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Works.
    Member,
    /// Also members, keys, reviews, limits and budgets.
    Admin,
    /// Also admins, and the workspace itself.
    Owner,
}

impl From<domain::Role> for Role {
    fn from(role: domain::Role) -> Self {
        match role {
            domain::Role::Viewer => Self::Viewer,
            domain::Role::Member => Self::Member,
            domain::Role::Admin => Self::Admin,
            domain::Role::Owner => Self::Owner,
        }
    }
}

impl From<Role> for domain::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Member => Self::Member,
            Role::Admin => Self::Admin,
            Role::Owner => Self::Owner,
        }
    }
}

impl Role {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        domain::Role::from(self).as_str()
    }
}

/// A workspace to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWorkspace {
    /// 1 to 100 characters.
    pub name: String,
    /// Who asks, if absent; only the operator may name somebody else.
    pub owner: Option<String>,
}

/// What changes about a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceChange {
    /// 1 to 100 characters.
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Workspace {
    pub id: String,
    pub name: String,
    pub owner: String,
    /// What the caller is in it.
    pub role: Role,
    pub generation: u64,
    pub created_at: i64,
    /// It is being removed since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removing_since: Option<i64>,
}

impl Workspace {
    /// A workspace as somebody with that role sees it.
    pub fn new(workspace: domain::Workspace, role: domain::Role) -> Self {
        Self {
            id: workspace.id.to_string(),
            name: workspace.name,
            owner: workspace.owner.to_string(),
            role: role.into(),
            generation: workspace.generation,
            created_at: workspace.created_at.as_millis(),
            removing_since: workspace.removing_since.map(Timestamp::as_millis),
        }
    }
}

/// A page of workspaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Workspaces {
    pub items: Vec<Workspace>,
    /// Give it as `cursor` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// How far the removal of a workspace is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removal {
    pub id: String,
    pub name: String,
    pub removing_since: i64,
    /// What was removed so far, by kind.
    pub removed: BTreeMap<String, u64>,
    /// Why the last attempt did not get to its end; the next one goes on there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Workspaces that are being removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removals {
    pub items: Vec<Removal>,
}

/// Somebody to be taken into a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    /// 1 to 100 characters.
    pub user: String,
    pub role: Role,
}

/// What changes about a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberChange {
    pub role: Role,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    pub user: String,
    pub role: Role,
    pub joined_at: i64,
}

impl From<domain::Member> for Member {
    fn from(member: domain::Member) -> Self {
        Self {
            user: member.user.to_string(),
            role: member.role.into(),
            joined_at: member.joined_at.as_millis(),
        }
    }
}

/// All members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Members {
    pub items: Vec<Member>,
}

/// What a workspace may use. `null` is no limit of its own: those of the server hold all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Runs that one user may start in any minute.
    pub user_runs_per_minute: Option<u32>,
    /// Runs that may be started in the workspace in any minute.
    pub runs_per_minute: Option<u32>,
    /// Runs above either rate that may be started at once.
    #[serde(default)]
    pub run_burst: u32,
    pub runs_at_once: Option<u32>,
    /// Runs that may wait; more are refused.
    pub run_queue: u32,
    /// Requests of one user in any minute, at least 10.
    pub user_requests_per_minute: Option<u32>,
    /// Requests to the workspace in any minute, at least 10.
    pub requests_per_minute: Option<u32>,
    /// Requests above either rate that are let in at once.
    #[serde(default)]
    pub request_burst: u32,
    /// Sandboxes in memory at once.
    pub sandboxes: Option<u32>,
    /// vCPUs of all sandboxes in memory.
    pub cpus: Option<u32>,
    /// Memory of all sandboxes in memory.
    pub memory_bytes: Option<u64>,
    /// Disk of all sandboxes in memory.
    pub disk_bytes: Option<u64>,
    /// After which the text of a prompt is removed.
    pub prompt_retention_days: Option<u32>,
    /// After which a run that is over is removed, with its log and artifacts; what it used stays in
    /// the books.
    #[serde(default)]
    pub run_retention_days: Option<u32>,
    /// After which artifacts are removed.
    #[serde(default)]
    pub artifact_retention_days: Option<u32>,
    /// After which entries of the audit log are removed.
    pub audit_retention_days: Option<u32>,
}

/// The limits of a workspace with their generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitsRecord {
    pub limits: Limits,
    /// 0 while nobody set any: these are the server's defaults.
    pub generation: u64,
    pub updated_at: i64,
}

/// Limits to be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsChange {
    pub limits: Limits,
    /// If given, they are set only if the stored ones are still of this generation.
    pub generation: Option<u64>,
}

macro_rules! limits {
    ($($field:ident),* $(,)?) => {
        impl From<domain::WorkspaceLimits> for Limits {
            fn from(limits: domain::WorkspaceLimits) -> Self {
                let domain::WorkspaceLimits { $($field),* } = limits;
                Self { $($field),* }
            }
        }

        impl From<Limits> for domain::WorkspaceLimits {
            fn from(limits: Limits) -> Self {
                let Limits { $($field),* } = limits;
                Self { $($field),* }
            }
        }
    };
}

limits! {
    user_runs_per_minute, runs_per_minute, run_burst, runs_at_once, run_queue,
    user_requests_per_minute, requests_per_minute, request_burst,
    sandboxes, cpus, memory_bytes, disk_bytes,
    prompt_retention_days, run_retention_days, artifact_retention_days, audit_retention_days,
}

impl From<domain::LimitsRecord> for LimitsRecord {
    fn from(record: domain::LimitsRecord) -> Self {
        Self {
            limits: record.limits.into(),
            generation: record.generation,
            updated_at: record.updated_at.as_millis(),
        }
    }
}

/// When a workspace's sandboxes go to sleep whose request does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SleepDefaults {
    /// What the workspace says; what is absent is as the server has it, `null` is never.
    pub sleep: SetSleepPolicy,
    /// 0 while it never said anything.
    pub generation: u64,
    pub updated_at: i64,
    /// What the server's settings say.
    pub server: SleepPolicy,
    /// What a sandbox gets whose request says nothing.
    pub effective: SleepPolicy,
}

/// What a workspace says about sleep from now on: all of it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SleepDefaultsChange {
    pub sleep: SetSleepPolicy,
    /// If given, it is set only if what is stored is still of this generation.
    pub generation: Option<u64>,
}
