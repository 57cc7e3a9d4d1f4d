//! The audit log.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use woodfrog_types::KeyId;
use woodfrog_types::audit as domain;

/// Which entries are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    pub actor: Option<String>,
    /// `member.add`, or `member.` for all that begins so.
    pub action: Option<String>,
    pub target: Option<String>,
    /// `done`, `refused` or `failed`.
    pub outcome: Option<String>,
    /// At or after.
    pub from: Option<i64>,
    /// Before.
    pub until: Option<i64>,
    /// 1 to 100.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// Which entries are exported, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditExport {
    /// `jsonl` or `csv` [default: `jsonl`].
    pub format: Option<String>,
    pub actor: Option<String>,
    pub action: Option<String>,
    pub target: Option<String>,
    pub outcome: Option<String>,
    pub from: Option<i64>,
    pub until: Option<i64>,
}

/// The period of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditPeriod {
    /// At or after.
    pub from: Option<i64>,
    /// Before.
    pub until: Option<i64>,
}

/// One entry: who did what to what, when, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its place: dense per workspace, from 1.
    pub sequence: u64,
    pub at: i64,
    pub workspace: String,
    pub actor: String,
    pub key: Option<String>,
    pub action: String,
    pub target: String,
    /// `done`, `refused` or `failed`.
    pub outcome: String,
    /// The status of the answer, or the code of the refusal.
    pub detail: String,
    /// The face through which it came; `engine` for what the server does by itself.
    pub face: String,
    pub request_id: String,
    /// SHA-256 over the hash of the entry before and all that is in this one, hexadecimal.
    pub hash: String,
}

impl AuditEntry {
    /// The names of the fields, in the order of [`AuditEntry::cells`].
    pub const COLUMNS: [&'static str; 12] = [
        "sequence",
        "at",
        "workspace",
        "actor",
        "key",
        "action",
        "target",
        "outcome",
        "detail",
        "face",
        "request_id",
        "hash",
    ];

    /// The fields as text.
    pub fn cells(self) -> [String; 12] {
        [
            self.sequence.to_string(),
            self.at.to_string(),
            self.workspace,
            self.actor,
            self.key.unwrap_or_default(),
            self.action,
            self.target,
            self.outcome,
            self.detail,
            self.face,
            self.request_id,
            self.hash,
        ]
    }
}

impl From<domain::AuditEntry> for AuditEntry {
    fn from(one: domain::AuditEntry) -> Self {
        let hash = one.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let entry = one.entry;
        Self {
            sequence: one.sequence,
            at: entry.at.as_millis(),
            workspace: entry.workspace.to_string(),
            actor: entry.actor.to_string(),
            key: entry.key.as_ref().map(KeyId::to_string),
            action: entry.action,
            target: entry.target,
            outcome: entry.outcome.as_str().to_owned(),
            detail: entry.detail,
            face: entry.face,
            request_id: entry.request_id,
            hash,
        }
    }
}

/// A page of the log, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    pub items: Vec<AuditEntry>,
    /// Give it as `cursor` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What the check of a log found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditCheck {
    /// Whether every entry is as it was written, and none is missing or moved.
    pub intact: bool,
    /// What is wrong, if something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flaw: Option<String>,
    /// Entries that are right.
    pub entries: u64,
    /// The first that is kept; those before it are past their retention.
    pub first: u64,
    /// The last that is right.
    pub last: u64,
    /// The hash of the last entry. Who keeps it elsewhere can tell later that nothing before it was
    /// written anew.
    pub head: String,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditReportRow {
    pub action: String,
    pub actor: String,
    pub outcome: String,
    pub count: u64,
}

/// What was done in a period, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditReport {
    pub from: Option<i64>,
    pub until: Option<i64>,
    /// Entries of the period: the sum of the rows.
    pub total: u64,
    pub rows: Vec<AuditReportRow>,
}
