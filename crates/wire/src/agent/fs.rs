//! Files.

use serde::{Deserialize, Serialize};

/// A path is absolute, or relative to the user's home without `..`.
#[derive(Debug, Clone, Deserialize)]
pub struct PathQuery {
    pub path: String,
}

/// Like [`PathQuery`]; the home itself if there is none.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct DirectoryQuery {
    pub path: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct DeleteQuery {
    pub path: String,
    /// A directory with everything in it.
    #[serde(default)]
    pub recursive: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryType {
    File,
    Directory,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub name: String,
    pub path: String,
    pub entry_type: EntryType,
    pub size: u64,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stat {
    pub path: String,
    pub entry_type: EntryType,
    pub size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
}

/// What was made or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    pub path: String,
    pub bytes_written: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Move {
    pub from: String,
    pub to: String,
    /// Replaces what is at `to`.
    #[serde(default)]
    pub overwrite: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moved {
    pub from: String,
    pub to: String,
}

/// What an archive brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unpacked {
    pub paths: Vec<String>,
    /// There were more than are listed.
    pub truncated: bool,
}
