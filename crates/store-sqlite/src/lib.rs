//! The store in one SQLite file.
//!
//! One thread writes, with group commit; two threads read beside it, and one moves the
//! write-ahead log into the file. Queues are bounded: a
//! caller waits for room. See `docs/design/store.md`.
#![forbid(unsafe_code)]

mod analytics;
mod audit;
mod billing;
mod builds;
mod checkpoint;
mod connection;
mod error;
mod events;
mod keys;
mod migrate;
mod persist;
mod reader;
mod runs;
mod sandbox_sessions;
mod sandboxes;
mod secrets;
mod session_log;
mod sessions;
mod settings;
mod sleep;
mod snapshots;
mod templates;
mod workspaces;
mod writer;

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use woodfrog_store::Result;
use woodfrog_store_rows as stored;
use woodfrog_types::SessionId;

pub use error::OpenError;

/// A SQLite file, opened for the server. Dropping it waits until the queued writes are on disk.
#[derive(Debug)]
pub struct SqliteStore {
    // Dropped in this order: the last connection to close must be the writer's, which can fold
    // the write-ahead log into the file.
    readers: reader::Readers,
    writer: writer::Writer,
    days: Arc<analytics::Days>,
}

/// A file is one server's own.
impl woodfrog_store::LeaseStore for SqliteStore {}

impl SqliteStore {
    /// Opens or creates the file (mode 0600) and brings its schema up to date.
    ///
    /// Blocks on disk I/O. A file with a schema of a newer version, or one whose migrations were
    /// changed, is left as it is.
    pub fn open(path: &Path) -> std::result::Result<Self, OpenError> {
        let mut conn = connection::open_writer(path)?;
        migrate::run(&mut conn, migrate::MIGRATIONS)?;
        let readers = reader::Readers::start(path)?;
        let checkpoints = checkpoint::Checkpoints::start(path, &mut conn)?;
        let logs = session_log::Logs::resuming();
        let writer = writer::Writer::start(conn, logs, Some(checkpoints))?;
        Ok(Self {
            readers,
            writer,
            days: Arc::default(),
        })
    }

    /// Runs `job` in a transaction of its own; returns once it is committed and on disk.
    async fn write<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.writer.write(job).await
    }

    /// As [`SqliteStore::write`], for a job that changes where that session's logs stand.
    async fn write_log<T, F>(&self, session: &SessionId, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.writer.write_log(session, job).await
    }

    /// Runs `job` on a read-only connection; it sees every write that was acknowledged before.
    async fn read<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.readers.read(job).await
    }
}
