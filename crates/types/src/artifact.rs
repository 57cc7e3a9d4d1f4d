//! Artifacts: files that a run left, kept after its sandbox is gone.

use crate::workspace::UserId;
use crate::{ArtifactId, RunId, Timestamp, WorkspaceId};

/// What sort of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ArtifactKind {
    File,
    Image,
    Code,
    Log,
    Other,
}

impl ArtifactKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::File, Self::Image, Self::Code, Self::Log, Self::Other];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Image => "image",
            Self::Code => "code",
            Self::Log => "log",
            Self::Other => "other",
        }
    }
}

/// What people think of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReviewState {
    Pending,
    Approved,
    Rejected,
}

impl ReviewState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Approved, Self::Rejected];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
        }
    }
}

/// Who looked at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    pub state: ReviewState,
    pub by: UserId,
    pub at: Timestamp,
}

/// A file of a run. Its bytes are kept beside the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    pub id: ArtifactId,
    pub workspace: WorkspaceId,
    pub run: RunId,
    pub thread: String,
    pub kind: ArtifactKind,
    /// For people: at most 200 characters.
    pub title: String,
    /// Where it was in the sandbox; one artifact per run and path.
    pub path: String,
    pub content_type: String,
    pub size: u64,
    /// SHA-256 of its bytes, hexadecimal.
    pub digest: String,
    /// `None` while it is pending.
    pub review: Option<Review>,
    pub created_at: Timestamp,
}

impl Artifact {
    /// What people think of it.
    pub fn state(&self) -> ReviewState {
        self.review
            .as_ref()
            .map_or(ReviewState::Pending, |review| review.state)
    }
}

/// Which artifacts a list wants. `None` means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArtifactFilter {
    pub run: Option<RunId>,
    pub thread: Option<String>,
    pub state: Option<ReviewState>,
}
