//! Files that runs left.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use woodfrog_types::artifact as domain;

/// Which files of a run are kept: those that it created or changed below some folders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewArtifactPolicy {
    /// Where they are looked for; the working directory of the run if absent. Relative ones are
    /// below it. At most 16.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Patterns of what is left out, beside the usual ones. One without a slash is of names, at any
    /// depth; others are of paths below the folder. `*` is within a name, `**` across. At most 100
    /// with the usual ones.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Whether the usual ones hold: `.git`, `node_modules`, `__pycache__` and other caches, and what
    /// begins with a dot at the top of the folder. `true` if absent.
    #[serde(default)]
    pub exclude_usual: Option<bool>,
    /// Larger files are left out; 10 MiB if absent.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// More files are left out; 50 if absent.
    #[serde(default)]
    pub max_files: Option<u32>,
}

/// What people think of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReviewState {
    Pending,
    Approved,
    Rejected,
}

impl From<domain::ReviewState> for ReviewState {
    fn from(state: domain::ReviewState) -> Self {
        match state {
            domain::ReviewState::Pending => Self::Pending,
            domain::ReviewState::Approved => Self::Approved,
            domain::ReviewState::Rejected => Self::Rejected,
        }
    }
}

impl From<ReviewState> for domain::ReviewState {
    fn from(state: ReviewState) -> Self {
        match state {
            ReviewState::Pending => Self::Pending,
            ReviewState::Approved => Self::Approved,
            ReviewState::Rejected => Self::Rejected,
        }
    }
}

/// A file that a run left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Artifact {
    pub id: String,
    pub run: String,
    pub thread: String,
    /// `file`, `image`, `code`, `log` or `other`.
    pub kind: String,
    /// Its name.
    pub title: String,
    /// Where it was in the sandbox.
    pub path: String,
    pub content_type: String,
    pub size: u64,
    /// Of its bytes, hexadecimal.
    pub sha256: String,
    pub review: ReviewState,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reviewed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reviewed_at: Option<i64>,
    pub created_at: i64,
}

impl From<domain::Artifact> for Artifact {
    fn from(artifact: domain::Artifact) -> Self {
        Self {
            review: artifact.state().into(),
            id: artifact.id.to_string(),
            run: artifact.run.to_string(),
            thread: artifact.thread,
            kind: artifact.kind.as_str().to_owned(),
            title: artifact.title,
            path: artifact.path,
            content_type: artifact.content_type,
            size: artifact.size,
            sha256: artifact.digest,
            reviewed_by: artifact.review.as_ref().map(|one| one.by.to_string()),
            reviewed_at: artifact.review.map(|one| one.at.as_millis()),
            created_at: artifact.created_at.as_millis(),
        }
    }
}

/// Which artifacts a list wants, and which page.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ArtifactQuery {
    /// Of this run only.
    pub run: Option<String>,
    /// Of this thread only.
    pub thread: Option<String>,
    /// `pending`, `approved` or `rejected`.
    pub review: Option<ReviewState>,
    /// Items of the page, 1 to 100; 100 if absent.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// What somebody thinks of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewReview {
    pub review: ReviewState,
}
