//! Files: entries, listings, reads, writes, watchers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// On whose behalf a file operation runs. The guest acts as root; the user decides what `~` and
/// relative paths mean and who owns what is created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathRequest {
    pub path: String,
    /// Unset: the configured default user.
    pub user: Option<String>,
    /// Extended attributes with this prefix are reported as metadata; unset: none.
    pub xattr_prefix: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    Other,
}

/// One directory entry. Size, mode, owner and times are those of the entry itself (`lstat`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryInfo {
    pub name: String,
    /// Absolute.
    pub path: String,
    pub kind: EntryKind,
    pub size: u64,
    /// `st_mode`, with the type bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Name in the sandbox's passwd file, else the number.
    pub owner: String,
    pub group: String,
    /// Nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Set for symlinks.
    pub link: Option<LinkInfo>,
    pub metadata: BTreeMap<String, String>,
}

/// Where a symlink leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// The text of the link.
    pub text: String,
    /// The target after following every link; unset when it does not exist.
    pub target: Option<LinkTarget>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkTarget {
    pub path: String,
    pub kind: EntryKind,
    pub mode: u32,
    pub size: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListRequest {
    #[serde(flatten)]
    pub at: PathRequest,
    /// Levels below the directory; 0 means 1.
    pub depth: u32,
    /// Entries at most; the listing then ends as truncated.
    pub max_entries: Option<u32>,
}

/// One event of a listing. Parents come before their children, siblings in byte order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPage {
    pub entries: Vec<EntryInfo>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListEnd {
    pub entries: u64,
    pub truncated: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MkdirRequest {
    #[serde(flatten)]
    pub at: PathRequest,
    /// Permission bits of the directory itself; unset: 0755.
    pub mode: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MoveRequest {
    #[serde(flatten)]
    pub from: PathRequest,
    /// Resolved like the source; missing parents are made. Replaces what `rename(2)` replaces. What
    /// is on another file system is copied with owner, permissions, times and attributes, and then
    /// removed; until the copy is whole, nothing is changed. Sockets, devices and mount points
    /// cannot go there: `invalid_argument`.
    pub to: String,
}

/// Joins files into one, which readers see whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ComposeRequest {
    #[serde(flatten)]
    pub to: PathRequest,
    /// In their order; resolved like the destination, and removed at the end.
    pub sources: Vec<String>,
}

/// An entry, as the last frame of stat, mkdir, move and write, and the first of read and open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryReply {
    pub entry: EntryInfo,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadRequest {
    #[serde(flatten)]
    pub at: PathRequest,
    pub offset: u64,
    /// Unset: to the end.
    pub length: Option<u64>,
}

/// A byte position, at the end of reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadEnd {
    pub offset: u64,
}

/// How new content replaces old.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// The file is emptied and written; a reader can see half of it.
    #[default]
    Truncate,
    /// Written beside and renamed over; a reader sees the old or the new.
    Atomic,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WriteRequest {
    #[serde(flatten)]
    pub at: PathRequest,
    pub replace: WriteMode,
    /// Permission bits of a new file; unset: 0644. An existing file keeps its own.
    pub mode: Option<u32>,
    /// Replaces all attributes under the prefix when set.
    pub metadata: Option<BTreeMap<String, String>>,
}

/// What the descriptor passed to the host may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenMode {
    Read,
    /// Emptied, made with its parents when missing, given to the user.
    Write {
        mode: Option<u32>,
        metadata: Option<BTreeMap<String, String>>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRequest {
    #[serde(flatten)]
    pub at: PathRequest,
    pub open: OpenMode,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchRequest {
    #[serde(flatten)]
    pub at: PathRequest,
    pub depth: WatchDepth,
    pub entries: WatchEntries,
    pub network_mounts: NetworkMounts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchDepth {
    /// The directory's own entries.
    #[default]
    Direct,
    /// Directories below too, also ones made later.
    Recursive,
}

/// Whether create, write and chmod events carry the entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchEntries {
    #[default]
    Omit,
    Include,
}

/// Changes made by other machines are invisible to watchers, so such mounts must be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMounts {
    #[default]
    Refuse,
    Allow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchKind {
    Create,
    Write,
    Remove,
    /// The old name of an entry that was moved away; a new name in the tree is a create.
    Rename,
    Chmod,
    /// The kernel dropped events; the name is empty.
    Overflow,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchEvent {
    pub kind: WatchKind,
    /// Relative to the watched directory; `.` is the directory itself.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub entry: Option<EntryInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchPage {
    pub events: Vec<WatchEvent>,
}
