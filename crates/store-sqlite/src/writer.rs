//! The one thread that writes. It takes what is queued, up to a limit, runs each job in a
//! savepoint of one transaction, commits once and only then answers: under load many writers
//! share one fsync, and a job that fails takes only its own changes back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use woodfrog_store::{Result, SessionAppend, StoreError};
use woodfrog_types::SessionId;
use woodfrog_types::session::LogEnd;

use crate::OpenError;
use crate::error::{closed, in_};
use crate::session_log::Logs;

/// Writes that may wait; the next caller waits for room.
const QUEUE_JOBS: usize = 1024;
/// Writes in one transaction.
const BATCH_JOBS: usize = 256;
/// The longest time without a new job before a transaction begins.
const PAUSE_MAX: Duration = Duration::from_micros(250);

#[derive(Debug)]
pub(crate) struct Writer {
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(conn: Connection, logs: Logs) -> std::result::Result<Self, OpenError> {
        let (queue, jobs) = mpsc::channel(QUEUE_JOBS);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || serve(&conn, logs, jobs))
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
        self.submit(|reply| Write {
            job: Some(job),
            log: None,
            result: None,
            reply,
        })
        .await
    }

    /// As [`Writer::write`], for a job that changes where that session's logs stand.
    pub(crate) async fn write_log<T, F>(&self, session: &SessionId, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.submit(|reply| Write {
            job: Some(job),
            log: Some(session.clone()),
            result: None,
            reply,
        })
        .await
    }

    pub(crate) async fn append(&self, append: SessionAppend) -> Result<LogEnd> {
        self.submit(|reply| Append {
            append,
            result: None,
            reply,
        })
        .await
    }

    async fn submit<T, J: Job + 'static>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T>>) -> J,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        let job = Box::new(job(reply));
        queue.send(job).await.map_err(|_| closed())?;
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

fn serve(conn: &Connection, mut logs: Logs, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    let mut batch = Vec::with_capacity(BATCH_JOBS);
    let mut pace = Pace::default();
    while take(&mut jobs, &mut batch, logs.has_trash()) {
        pace.gather(&mut jobs, &mut batch);
        let start = Instant::now();
        let result = run(conn, &mut logs, &mut batch);
        pace.took(start.elapsed(), batch.len());
        let end = match result {
            Ok(()) => End::Committed,
            Err(error) => {
                tracing::error!(%error, jobs = batch.len(), "a transaction of the store failed");
                logs.lost();
                roll_back(conn);
                End::Lost(Arc::new(error))
            }
        };
        for job in batch.drain(..) {
            job.finish(&end);
        }
    }
}

/// Takes what is queued; waits for a job unless there is other work. `false` when all is done
/// and nobody can send any more: what is left of the other work is for the next start.
fn take(
    jobs: &mut mpsc::Receiver<Box<dyn Job>>,
    batch: &mut Vec<Box<dyn Job>>,
    other_work: bool,
) -> bool {
    if !other_work {
        return jobs.blocking_recv_many(batch, BATCH_JOBS) > 0;
    }
    while batch.len() < BATCH_JOBS {
        match jobs.try_recv() {
            Ok(job) => batch.push(job),
            Err(TryRecvError::Empty) => break,
            Err(TryRecvError::Disconnected) => return !batch.is_empty(),
        }
    }
    true
}

/// How long to wait for those who were just answered to come back, before a transaction begins.
///
/// Without it, writers who wait in turn fall into two groups of which one is always too late,
/// and each pays for two commits.
#[derive(Debug, Default)]
struct Pace {
    /// How long a transaction took of late.
    commit: Duration,
    /// Jobs in the last one.
    jobs: usize,
}

impl Pace {
    fn took(&mut self, commit: Duration, jobs: usize) {
        self.commit = (self.commit * 7 + commit) / 8;
        self.jobs = jobs;
    }

    /// Takes what comes until nothing does for a small part of what a transaction takes.
    fn gather(&self, jobs: &mut mpsc::Receiver<Box<dyn Job>>, batch: &mut Vec<Box<dyn Job>>) {
        // Somebody who writes alone does not wait.
        if self.jobs.max(batch.len()) <= 1 {
            return;
        }
        let pause = (self.commit / 16).min(PAUSE_MAX);
        let start = Instant::now();
        let mut newest = start;
        while batch.len() < BATCH_JOBS && start.elapsed() < self.commit / 4 {
            match jobs.try_recv() {
                Ok(job) => {
                    batch.push(job);
                    newest = Instant::now();
                }
                Err(_) if newest.elapsed() < pause => std::thread::yield_now(),
                Err(_) => return,
            }
        }
    }
}

fn run(conn: &Connection, logs: &mut Logs, batch: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    execute(conn, "BEGIN IMMEDIATE")?;
    logs.begin(conn)?;
    for job in batch {
        job.run(conn, logs)?;
    }
    logs.sweep(conn)?;
    logs.flush(conn)?;
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

pub(crate) fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

/// How the transaction that a job was part of ended.
enum End {
    Committed,
    Lost(Arc<rusqlite::Error>),
}

/// A queued write, its result type hidden.
trait Job: Send {
    /// Runs it; if it fails, it takes its changes back. An error is not the job's own: the whole
    /// transaction is lost.
    fn run(&mut self, conn: &Connection, logs: &mut Logs) -> rusqlite::Result<()>;
    /// Answers the caller.
    fn finish(self: Box<Self>, end: &End);
}

struct Write<T, F> {
    job: Option<F>,
    /// The session whose logs it changes.
    log: Option<SessionId>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Write<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T> + Send,
{
    fn run(&mut self, conn: &Connection, logs: &mut Logs) -> rusqlite::Result<()> {
        let Some(job) = self.job.take() else {
            return Ok(());
        };
        if let Some(session) = &self.log {
            logs.settle(conn, session)?;
        }
        // A defect in one job must not stop every later write.
        let job = || {
            catch_unwind(AssertUnwindSafe(|| job(conn)))
                .unwrap_or_else(|_| Err(StoreError::Unavailable("a write panicked".into())))
        };
        self.result = Some(in_savepoint(conn, job)?);
        Ok(())
    }

    fn finish(self: Box<Self>, end: &End) {
        answer(end, self.result, self.reply);
    }
}

struct Append {
    append: SessionAppend,
    result: Option<Result<LogEnd>>,
    reply: oneshot::Sender<Result<LogEnd>>,
}

impl Job for Append {
    fn run(&mut self, conn: &Connection, logs: &mut Logs) -> rusqlite::Result<()> {
        self.result = Some(logs.append(conn, &self.append)?);
        Ok(())
    }

    fn finish(self: Box<Self>, end: &End) {
        answer(end, self.result, self.reply);
    }
}

fn answer<T>(end: &End, result: Option<Result<T>>, reply: oneshot::Sender<Result<T>>) {
    let answer = match (end, result) {
        (End::Committed, Some(result)) => result,
        (End::Committed, None) => Err(closed()),
        (End::Lost(error), _) => Err(StoreError::Unavailable(Box::new(Arc::clone(error)))),
    };
    // A caller that went away does not want to know.
    let _gone = reply.send(answer);
}

/// Runs `job`; if it fails, nothing of it is left.
pub(crate) fn in_savepoint<T>(
    conn: &Connection,
    job: impl FnOnce() -> Result<T>,
) -> rusqlite::Result<Result<T>> {
    execute(conn, "SAVEPOINT job")?;
    let result = job();
    if result.is_err() {
        // Fails if SQLite has ended the transaction by itself.
        execute(conn, "ROLLBACK TO job")?;
    }
    execute(conn, "RELEASE job")?;
    Ok(result)
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

#[cfg(test)]
mod tests;
