//! The one thread that writes. It takes what is queued, up to a limit, runs each job in a
//! savepoint of one transaction, commits once and only then answers: under load many writers
//! share one fsync, and a job that fails takes only its own changes back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use woodfrog_store::{Result, StoreError};

use crate::OpenError;
use crate::error::{closed, in_};

/// Writes that may wait; the next caller waits for room.
const QUEUE_JOBS: usize = 1024;
/// Writes in one transaction.
const BATCH_JOBS: usize = 256;

#[derive(Debug)]
pub(crate) struct Writer {
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(conn: Connection) -> std::result::Result<Self, OpenError> {
        let (queue, jobs) = mpsc::channel(QUEUE_JOBS);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || serve(&conn, jobs))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    pub(crate) async fn write<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Write {
            job: Some(job),
            result: None,
            reply,
        };
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue.send(Box::new(job)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread ends once the queue is empty and nobody can send any more.
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

fn serve(conn: &Connection, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    let mut batch = Vec::with_capacity(BATCH_JOBS);
    while jobs.blocking_recv_many(&mut batch, BATCH_JOBS) > 0 {
        let end = match run(conn, &mut batch) {
            Ok(()) => End::Committed,
            Err(error) => {
                tracing::error!(%error, jobs = batch.len(), "a transaction of the store failed");
                roll_back(conn);
                End::Lost(Arc::new(error))
            }
        };
        for job in batch.drain(..) {
            job.finish(&end);
        }
    }
}

fn run(conn: &Connection, batch: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    execute(conn, "BEGIN IMMEDIATE")?;
    for job in batch {
        job.run(conn)?;
    }
    execute(conn, "COMMIT")
}

fn roll_back(conn: &Connection) {
    // SQLite ends the transaction by itself on some errors (a full disk among them).
    if !conn.is_autocommit()
        && let Err(error) = execute(conn, "ROLLBACK")
    {
        tracing::error!(%error, "rolling back a transaction of the store failed");
    }
}

fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

/// How the transaction that a job was part of ended.
enum End {
    Committed,
    Lost(Arc<rusqlite::Error>),
}

/// A queued write, its result type hidden.
trait Job: Send {
    /// Runs it in a savepoint. An error is not the job's own: the whole transaction is lost.
    fn run(&mut self, conn: &Connection) -> rusqlite::Result<()>;
    /// Answers the caller.
    fn finish(self: Box<Self>, end: &End);
}

struct Write<T, F> {
    job: Option<F>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Write<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T> + Send,
{
    fn run(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let Some(job) = self.job.take() else {
            return Ok(());
        };
        execute(conn, "SAVEPOINT job")?;
        // A defect in one job must not stop every later write.
        let result = catch_unwind(AssertUnwindSafe(|| job(conn)))
            .unwrap_or_else(|_| Err(StoreError::Unavailable("a write panicked".into())));
        if result.is_err() {
            // Fails if SQLite has ended the transaction by itself.
            execute(conn, "ROLLBACK TO job")?;
        }
        execute(conn, "RELEASE job")?;
        self.result = Some(result);
        Ok(())
    }

    fn finish(self: Box<Self>, end: &End) {
        let answer = match (end, self.result) {
            (End::Committed, Some(result)) => result,
            (End::Committed, None) => Err(closed()),
            (End::Lost(error), _) => Err(StoreError::Unavailable(Box::new(Arc::clone(error)))),
        };
        // A caller that went away does not want to know.
        let _gone = self.reply.send(answer);
    }
}

/// Runs one cached statement and returns how many rows it changed.
pub(crate) fn change(
    conn: &Connection,
    what: &'static str,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<usize> {
    conn.prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params))
        .map_err(in_(what))
}
