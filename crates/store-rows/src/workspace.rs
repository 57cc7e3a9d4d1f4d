//! Workspaces, members, limits and audit logs.

use serde::{Deserialize, Serialize};
use woodfrog_store::Result;
use woodfrog_types::audit::{AuditEnds, AuditEntry, AuditOutcome, NewAuditEntry};
use woodfrog_types::workspace::{LimitsRecord, Member, Role, UserId, Workspace, WorkspaceLimits};

use crate::{
    Columns, corrupt, count_column, get, id_column, json_column, parse, time_column,
    time_column_opt, to_json,
};

const WORKSPACE: &str = "workspace";
const MEMBER: &str = "member";
const LIMITS: &str = "limits";
const AUDIT: &str = "audit entry";

pub(crate) fn user_in(what: &'static str, text: &str) -> Result<UserId> {
    UserId::parse(text).ok_or_else(|| corrupt(what, format!("`{text}` is no user")))
}

fn user_column(row: &dyn Columns, what: &'static str, column: &str) -> Result<UserId> {
    user_in(what, &get::<String>(row, what, column)?)
}

pub(crate) fn role_column(row: &dyn Columns, what: &'static str) -> Result<Role> {
    let role: String = get(row, what, "role")?;
    Role::parse(&role).ok_or_else(|| corrupt(what, format!("unknown role `{role}`")))
}

pub fn workspace_from_row(row: &dyn Columns) -> Result<Workspace> {
    Ok(Workspace {
        id: id_column(row, WORKSPACE, "id")?,
        name: get(row, WORKSPACE, "name")?,
        owner: user_column(row, WORKSPACE, "owner")?,
        generation: count_column(row, WORKSPACE, "generation")?,
        created_at: time_column(row, WORKSPACE, "created_at")?,
        removing_since: time_column_opt(row, WORKSPACE, "removing_since")?,
    })
}

/// A workspace with somebody's `role` in it.
pub fn workspace_role_from_row(row: &dyn Columns) -> Result<(Workspace, Role)> {
    Ok((workspace_from_row(row)?, role_column(row, MEMBER)?))
}

pub fn member_from_row(row: &dyn Columns) -> Result<Member> {
    Ok(Member {
        workspace: id_column(row, MEMBER, "workspace")?,
        user: user_column(row, MEMBER, "user_name")?,
        role: role_column(row, MEMBER)?,
        joined_at: time_column(row, MEMBER, "joined_at")?,
    })
}

/// Every field may be missing: what was not known when it was written is the default.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
struct StoredLimits {
    v: u32,
    user_runs_per_minute: Option<u32>,
    runs_per_minute: Option<u32>,
    run_burst: u32,
    runs_at_once: Option<u32>,
    run_queue: u32,
    user_requests_per_minute: Option<u32>,
    requests_per_minute: Option<u32>,
    request_burst: u32,
    sandboxes: Option<u32>,
    cpus: Option<u32>,
    memory_bytes: Option<u64>,
    disk_bytes: Option<u64>,
    prompt_retention_days: Option<u32>,
    run_retention_days: Option<u32>,
    artifact_retention_days: Option<u32>,
    audit_retention_days: Option<u32>,
}

impl Default for StoredLimits {
    fn default() -> Self {
        WorkspaceLimits::default().into()
    }
}

impl From<WorkspaceLimits> for StoredLimits {
    fn from(limits: WorkspaceLimits) -> Self {
        Self {
            v: 1,
            user_runs_per_minute: limits.user_runs_per_minute,
            runs_per_minute: limits.runs_per_minute,
            run_burst: limits.run_burst,
            runs_at_once: limits.runs_at_once,
            run_queue: limits.run_queue,
            user_requests_per_minute: limits.user_requests_per_minute,
            requests_per_minute: limits.requests_per_minute,
            request_burst: limits.request_burst,
            sandboxes: limits.sandboxes,
            cpus: limits.cpus,
            memory_bytes: limits.memory_bytes,
            disk_bytes: limits.disk_bytes,
            prompt_retention_days: limits.prompt_retention_days,
            run_retention_days: limits.run_retention_days,
            artifact_retention_days: limits.artifact_retention_days,
            audit_retention_days: limits.audit_retention_days,
        }
    }
}

impl From<StoredLimits> for WorkspaceLimits {
    fn from(stored: StoredLimits) -> Self {
        Self {
            user_runs_per_minute: stored.user_runs_per_minute,
            runs_per_minute: stored.runs_per_minute,
            run_burst: stored.run_burst,
            runs_at_once: stored.runs_at_once,
            run_queue: stored.run_queue,
            user_requests_per_minute: stored.user_requests_per_minute,
            requests_per_minute: stored.requests_per_minute,
            request_burst: stored.request_burst,
            sandboxes: stored.sandboxes,
            cpus: stored.cpus,
            memory_bytes: stored.memory_bytes,
            disk_bytes: stored.disk_bytes,
            prompt_retention_days: stored.prompt_retention_days,
            run_retention_days: stored.run_retention_days,
            artifact_retention_days: stored.artifact_retention_days,
            audit_retention_days: stored.audit_retention_days,
        }
    }
}

pub fn limits_to_json(limits: &WorkspaceLimits) -> Result<String> {
    to_json(LIMITS, &StoredLimits::from(limits.clone()))
}

pub fn limits_from_row(row: &dyn Columns) -> Result<LimitsRecord> {
    let stored: StoredLimits = json_column(row, LIMITS, "limits")?;
    if stored.v != 1 {
        return Err(corrupt(LIMITS, format!("unknown form {}", stored.v)));
    }
    Ok(LimitsRecord {
        workspace: id_column(row, LIMITS, "workspace")?,
        limits: stored.into(),
        generation: count_column(row, LIMITS, "generation")?,
        updated_at: time_column(row, LIMITS, "updated_at")?,
    })
}

pub fn audit_from_row(row: &dyn Columns) -> Result<AuditEntry> {
    let outcome: String = get(row, AUDIT, "outcome")?;
    let key: Option<String> = get(row, AUDIT, "key")?;
    Ok(AuditEntry {
        sequence: count_column(row, AUDIT, "sequence")?,
        entry: NewAuditEntry {
            workspace: id_column(row, AUDIT, "workspace")?,
            at: time_column(row, AUDIT, "at")?,
            actor: user_column(row, AUDIT, "actor")?,
            key: key.map(|key| parse(AUDIT, &key)).transpose()?,
            action: get(row, AUDIT, "action")?,
            target: get(row, AUDIT, "target")?,
            outcome: AuditOutcome::parse(&outcome)
                .ok_or_else(|| corrupt(AUDIT, format!("unknown outcome `{outcome}`")))?,
            detail: get(row, AUDIT, "detail")?,
            face: get(row, AUDIT, "face")?,
            request_id: get(row, AUDIT, "request_id")?,
        },
        hash: get(row, AUDIT, "hash")?,
    })
}

pub fn audit_ends_from_row(row: &dyn Columns) -> Result<AuditEnds> {
    Ok(AuditEnds {
        trimmed: count_column(row, AUDIT, "trimmed")?,
        trimmed_hash: get(row, AUDIT, "trimmed_hash")?,
        last: count_column(row, AUDIT, "last")?,
        last_hash: get(row, AUDIT, "last_hash")?,
    })
}
