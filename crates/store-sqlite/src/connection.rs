//! Opening connections: the same settings everywhere.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::OpenError;

/// Environment variables of sandboxes are in there. SQLite gives its side files the same mode.
const FILE_MODE: u32 = 0o600;
/// How long a statement waits for another process (a backup, a shell) to let go.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// More than the number of different statements.
const CACHED_STATEMENTS: usize = 128;
/// The write-ahead log is cut to this after a checkpoint.
const WAL_BYTES_KEPT: i64 = 64 << 20;

pub(crate) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    make_private(path).map_err(|source| OpenError::File {
        path: path.to_owned(),
        source,
    })?;
    let conn = open_writing(path)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    Ok(conn)
}

/// For a connection that moves the write-ahead log into the file.
pub(crate) fn open_checkpoints(path: &Path) -> Result<Connection, OpenError> {
    open_writing(path)
}

fn open_writing(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = open(path, flags)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    // A commit is on disk before it is acknowledged, even if the power fails; and the log before
    // it is copied into the file.
    conn.pragma_update(None, "synchronous", "full")?;
    Ok(conn)
}

pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = open(path, flags)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    // Savepoints and sorts spill to memory, not to files in a shared directory.
    conn.pragma_update(None, "temp_store", "memory")?;
    Ok(conn)
}

/// Creates the file if it is missing and takes everybody else's rights away.
fn make_private(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))
}
