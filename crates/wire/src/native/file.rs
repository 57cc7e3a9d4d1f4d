//! Files of a sandbox.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Names one file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PathQuery {
    /// Absolute, `~/…`, or relative to the user's home.
    pub path: String,
    /// Who owns what is made, and whose home it is; the template's user if absent.
    pub user: Option<String>,
}

/// Names a file to be written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WriteQuery {
    /// Absolute, `~/…`, or relative to the user's home. Missing parents are made.
    pub path: String,
    pub user: Option<String>,
    /// Permission bits of a new file, octal; `644` if absent.
    pub mode: Option<String>,
    /// `true`: readers see the old content or the new, never a part.
    #[serde(default)]
    pub atomic: bool,
}

/// Names a directory to be listed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    pub path: String,
    pub user: Option<String>,
    /// Levels below the directory; 1 if absent.
    pub depth: Option<u32>,
    /// Entries at most.
    pub limit: Option<u32>,
}

/// Names a directory to be watched.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WatchQuery {
    pub path: String,
    pub user: Option<String>,
    /// `true`: directories below too, also ones made later.
    #[serde(default)]
    pub recursive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    Other,
}

/// One entry; what is said is about the entry itself, not where a link leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    pub name: String,
    /// Absolute.
    pub path: String,
    pub kind: EntryKind,
    pub size: u64,
    /// Permission bits, octal: `644`.
    pub mode: String,
    pub uid: u32,
    pub gid: u32,
    pub owner: String,
    pub group: String,
    pub modified_at: i64,
    /// The text of a link.
    pub target: Option<String>,
}

/// A listing: parents before their children.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listing {
    pub items: Vec<Entry>,
    /// There were more entries than asked for.
    pub truncated: bool,
}

/// A directory to be made, with its parents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDirectory {
    pub path: String,
    pub user: Option<String>,
    /// Permission bits, octal; `755` if absent.
    pub mode: Option<String>,
}

/// A file or directory to be moved; the parents of the new place are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Move {
    pub from: String,
    pub to: String,
    pub user: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Create,
    Write,
    Remove,
    Rename,
    Chmod,
    /// Changes were lost; look for yourself.
    Overflow,
}

/// One change in a watched directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    pub kind: ChangeKind,
    /// Relative to the watched directory.
    pub name: String,
}
