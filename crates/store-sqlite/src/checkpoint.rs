//! Moving what is in the write-ahead log into the file, beside the writer.
//!
//! A commit waits for the log alone. Were the writer to copy the log into the file itself every
//! thousand pages, as SQLite does by default, everybody who waits for a commit then would also
//! wait for that. A thread with a connection of its own does it; the writer helps only when the
//! log has grown large, since a log begins anew only at a moment at which all of it is in the
//! file.

use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use crate::{OpenError, connection};

/// Pages of the log after which the thread is asked to work.
const STEP_PAGES: i32 = 1000;
/// Pages of the log after which the writer works itself: 64 MiB.
const LOG_PAGES_MAX: i32 = 16_384;

/// The writer's side of it.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// How long the log is, as of the last commit.
    pages: Arc<AtomicI32>,
    /// How long it was when somebody was last asked to work.
    asked: i32,
    /// `None` only while dropping.
    wake: Option<SyncSender<()>>,
    /// One at a time: a second checkpoint would do nothing.
    turn: Arc<Mutex<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// For the writer's connection, which no longer does it by itself.
    pub(crate) fn start(path: &Path, writer: &mut Connection) -> Result<Self, OpenError> {
        let own = connection::open_checkpoints(path)?;
        let pages = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&pages);
        writer.wal_hook(Some(move |_: &mut Wal, pages| {
            seen.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        let turn = Arc::new(Mutex::new(()));
        let (wake, woken) = sync_channel(1);
        let taken = Arc::clone(&turn);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || serve(&own, &woken, &taken))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            pages,
            asked: 0,
            wake: Some(wake),
            turn,
            thread: Some(thread),
        })
    }

    /// After each commit, when everybody was answered.
    pub(crate) fn committed(&mut self, writer: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.asked {
            // The log began anew.
            self.asked = 0;
        }
        if pages - self.asked < STEP_PAGES {
            return;
        }
        self.asked = pages;
        if pages >= LOG_PAGES_MAX {
            work(writer, &self.turn);
        } else if let Some(wake) = &self.wake {
            // One that is asked already does this as well.
            let _asked = wake.try_send(());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's checkpoint thread panicked");
        }
    }
}

fn serve(conn: &Connection, woken: &Receiver<()>, turn: &Mutex<()>) {
    while woken.recv().is_ok() {
        work(conn, turn);
    }
}

/// Copies what no reader is in the way of. What is left is for the next time.
fn work(conn: &Connection, turn: &Mutex<()>) {
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let done = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    if let Err(error) = done {
        tracing::warn!(%error, "a checkpoint of the store failed; the next one does its work");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn open(dir: &Path) -> (Connection, Checkpoints) {
        let path = dir.join("store.db");
        let mut conn = connection::open_writer(&path).unwrap();
        conn.execute_batch("CREATE TABLE t (x BLOB)").unwrap();
        let checkpoints = Checkpoints::start(&path, &mut conn).unwrap();
        (conn, checkpoints)
    }

    fn write(conn: &Connection, checkpoints: &mut Checkpoints, bytes: i32) {
        let sql = "INSERT INTO t VALUES (zeroblob(?1))";
        conn.execute(sql, [bytes]).unwrap();
        checkpoints.committed(conn);
    }

    /// The file grows beside the writer, which never works itself.
    #[test]
    fn the_thread_moves_the_log_into_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (conn, mut checkpoints) = open(dir.path());
        for _ in 0..3 {
            write(&conn, &mut checkpoints, 2 << 20);
        }
        let start = Instant::now();
        let size = || {
            std::fs::metadata(dir.path().join("store.db"))
                .unwrap()
                .len()
        };
        while size() < 4 << 20 {
            assert!(start.elapsed() < PATIENCE, "{} bytes", size());
            std::thread::yield_now();
        }
    }

    /// However much is written, the log stays near its limit.
    #[test]
    fn the_log_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (conn, mut checkpoints) = open(dir.path());
        for _ in 0..100 {
            write(&conn, &mut checkpoints, 2 << 20);
        }
        let size = std::fs::metadata(dir.path().join("store.db-wal")).unwrap();
        assert!(size.len() < 80 << 20, "{} bytes", size.len());
    }
}
