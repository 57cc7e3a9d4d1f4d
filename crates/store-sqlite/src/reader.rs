//! The threads that read, each with its own read-only connection. With a write-ahead log they
//! neither wait for the writer nor make it wait.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::types::FromSql;
use rusqlite::{Connection, Params, Row};
use tokio::sync::{mpsc, oneshot};
use woodfrog_store::{Result, StoreError};

use crate::error::{closed, in_};
use crate::stored::{Columns, count_column, get};
use crate::{OpenError, connection};

/// Reads that may wait; the next caller waits for room.
const QUEUE_JOBS: usize = 1024;
/// A long list must not delay the next fetch.
const THREADS: usize = 2;

type Job = Box<dyn FnOnce(&Connection) + Send>;

#[derive(Debug)]
pub(crate) struct Readers {
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(crate) fn start(path: &Path) -> std::result::Result<Self, OpenError> {
        let (queue, jobs) = mpsc::channel(QUEUE_JOBS);
        let jobs = Arc::new(Mutex::new(jobs));
        let mut readers = Self {
            queue: Some(queue),
            threads: Vec::with_capacity(THREADS),
        };
        for number in 0..THREADS {
            let conn = connection::open_reader(path)?;
            let jobs = Arc::clone(&jobs);
            let thread = std::thread::Builder::new()
                .name(format!("store-reader-{number}"))
                .spawn(move || serve(&conn, &jobs))
                .map_err(OpenError::Thread)?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    pub(crate) async fn read<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |conn| {
            // A caller that went away does not want to know.
            let _gone = reply.send(job(conn));
        });
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue.send(job).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reader thread of the store panicked");
            }
        }
    }
}

fn serve(conn: &Connection, jobs: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        // Held while waiting: the threads take turns, and whoever has a job lets the next one in.
        let job = jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        match job {
            Some(job) => job(conn),
            None => return,
        }
    }
}

/// The first row of a cached query, converted; `None` if there is none.
pub(crate) fn first<T>(
    conn: &Connection,
    what: &'static str,
    sql: &str,
    params: impl Params,
    convert: impl FnOnce(&dyn Columns) -> Result<T>,
) -> Result<Option<T>> {
    let mut statement = conn.prepare_cached(sql).map_err(in_(what))?;
    let mut rows = statement.query(params).map_err(in_(what))?;
    let row = rows.next().map_err(in_(what))?;
    row.map(|row| convert(&Cells(row))).transpose()
}

/// Every row of a cached query, converted. The first that cannot be ends it.
pub(crate) fn all<T>(
    conn: &Connection,
    what: &'static str,
    sql: &str,
    params: impl Params,
    mut convert: impl FnMut(&dyn Columns) -> Result<T>,
) -> Result<Vec<T>> {
    let mut statement = conn.prepare_cached(sql).map_err(in_(what))?;
    let mut rows = statement.query(params).map_err(in_(what))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(in_(what))? {
        found.push(convert(&Cells(row))?);
    }
    Ok(found)
}

/// A row, for records.
pub(crate) struct Cells<'a>(pub(crate) &'a Row<'a>);

impl Cells<'_> {
    fn get<T: FromSql>(&self, what: &'static str, column: &str) -> Result<T> {
        self.0.get(column).map_err(in_(what))
    }
}

impl Columns for Cells<'_> {
    fn text(&self, what: &'static str, column: &str) -> Result<Option<String>> {
        self.get(what, column)
    }

    fn integer(&self, what: &'static str, column: &str) -> Result<Option<i64>> {
        self.get(what, column)
    }

    fn bytes(&self, what: &'static str, column: &str) -> Result<Option<Vec<u8>>> {
        self.get(what, column)
    }
}

/// The number `n` of a query's only row.
pub(crate) fn count(
    conn: &Connection,
    what: &'static str,
    sql: &str,
    params: impl Params,
) -> Result<u64> {
    let count = first(conn, what, sql, params, |row| count_column(row, what, "n"))?;
    Ok(count.unwrap_or(0))
}

/// Adds the row's id to a `Corrupt` error of a list.
pub(crate) fn name_culprit(row: &dyn Columns, error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { what, detail } => {
            let id: String = get(row, what, "id").unwrap_or_else(|_| "(id unreadable)".to_owned());
            StoreError::Corrupt {
                what,
                detail: format!("{id}: {detail}"),
            }
        }
        other => other,
    }
}
