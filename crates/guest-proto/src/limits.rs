//! Every limit of the protocol, by name.

use std::time::Duration;

/// Largest JSON payload of a control frame.
pub const MAX_CONTROL: usize = 1 << 20;
/// Largest number of data bytes in one data frame.
pub const MAX_DATA: usize = 256 << 10;
/// Data bytes per frame that senders aim at.
pub const DATA_CHUNK: usize = 64 << 10;

/// Output kept per process when the start request does not say.
pub const DEFAULT_RETENTION: usize = 1 << 20;
/// Most output a start request may ask to keep.
pub const MAX_RETENTION: usize = 64 << 20;
/// Least output kept; below this a reader would be woken for every line.
pub const MIN_RETENTION: usize = 4 << 10;

/// Ended processes whose output and exit status are kept.
pub const ENDED_KEPT: usize = 64;
/// How long an ended process is kept.
pub const ENDED_FOR: Duration = Duration::from_secs(600);
/// Output bytes kept over all ended processes.
pub const ENDED_BYTES: usize = 16 << 20;

/// Ended processes that are kept until they are forgotten; the oldest go first.
pub const KEPT: usize = 256;
/// Output bytes kept over all of those.
pub const KEPT_BYTES: usize = 64 << 20;

/// Processes the guest runs at once on behalf of the host.
pub const MAX_PROCESSES: usize = 1024;
/// Connections served at once.
pub const MAX_CONNECTIONS: usize = 256;
/// Arguments plus environment entries of one process.
pub const MAX_STRINGS: usize = 16 << 10;

/// Entries a listing returns when the request does not say.
pub const DEFAULT_LIST: u32 = 100_000;
/// Most entries a listing may ask for.
pub const MAX_LIST: u32 = 1_000_000;
/// Entries in one page of a listing.
pub const LIST_PAGE: usize = 256;
/// Bytes of a symlink target or path that are reported.
pub const MAX_PATH: usize = 4096;
/// Metadata attributes per file.
pub const MAX_METADATA: usize = 64;
/// Bytes of one metadata value.
pub const MAX_METADATA_VALUE: usize = 4096;

/// Files that one request may join.
pub const MAX_SOURCES: usize = 1024;

/// Directories one recursive watcher may cover.
pub const MAX_WATCHES: usize = 8192;
/// Events in one frame of a watcher.
pub const WATCH_PAGE: usize = 256;
/// Listening ports reported.
pub const MAX_PORTS: usize = 4096;
