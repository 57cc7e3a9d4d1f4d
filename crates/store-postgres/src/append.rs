//! Appending to the logs of sessions. Appends that wait at the same moment share a transaction:
//! three statements and one commit for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deadpool_postgres::{GenericClient, Pool, Transaction};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use woodfrog_store::{Result, SessionAppend, StoreError};
use woodfrog_store_rows::{get, log_row_from_row, to_sql_int};
use woodfrog_types::session::{LogEnd, NewSessionEvent, Stream, Turn};
use woodfrog_types::{SnapshotId, Timestamp};

use crate::client::{Arg, Cells, begin, change, commit, rows};
use crate::error::in_;
use crate::session_log::stream_column;
use crate::sessions::{self, WHAT};
use crate::text::Text;

/// Appends that may wait; the next caller waits for room.
const QUEUE: usize = 1024;
/// Appends in one transaction.
const BATCH: usize = 256;
/// Entries that one transaction deletes.
const SWEEP_ROWS: i64 = 2000;

/// The way to the task that appends.
#[derive(Debug)]
pub(crate) struct Appends {
    queue: mpsc::Sender<Message>,
}

enum Message {
    Append(Box<Job>),
    /// There are entries to delete.
    Sweep,
}

struct Job {
    append: SessionAppend,
    reply: oneshot::Sender<Result<LogEnd>>,
}

/// The transaction that an append was part of was lost.
#[derive(Debug, thiserror::Error)]
#[error("the transaction of several appends failed")]
struct Lost(#[source] Arc<StoreError>);

#[derive(Debug, thiserror::Error)]
#[error("the store is closed")]
struct Closed;

fn closed<T>(_: T) -> StoreError {
    StoreError::Unavailable(Box::new(Closed))
}

impl Appends {
    /// Starts the task; it ends when this is dropped and what is queued is written.
    pub(crate) fn start(pool: Pool) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        drop(tokio::spawn(serve(pool, messages)));
        Self { queue }
    }

    pub(crate) async fn append(&self, append: SessionAppend) -> Result<LogEnd> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Append(Box::new(Job { append, reply }));
        self.queue.send(message).await.map_err(closed)?;
        answer.await.map_err(closed)?
    }

    /// Has what was thrown away deleted when there is nothing else to do.
    pub(crate) fn sweep(&self) {
        // With a full queue it waits for the next time, or the next start.
        let _full = self.queue.try_send(Message::Sweep);
    }
}

async fn serve(pool: Pool, mut messages: mpsc::Receiver<Message>) {
    // What a run before this one left over.
    let mut trash = true;
    let mut batch: Vec<Job> = Vec::with_capacity(BATCH);
    loop {
        let message = match trash {
            true => match messages.try_recv() {
                Ok(message) => Some(message),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => None,
            },
            false => match messages.recv().await {
                Some(message) => Some(message),
                None => return,
            },
        };
        let Some(message) = message else {
            trash = sweep(&pool).await.unwrap_or_else(|error| {
                tracing::error!(%error, "deleting entries of sessions failed");
                false
            });
            continue;
        };
        let mut next = Some(message);
        while let Some(message) = next {
            match message {
                Message::Append(job) => batch.push(*job),
                Message::Sweep => trash = true,
            }
            next = match batch.len() < BATCH {
                true => messages.try_recv().ok(),
                false => None,
            };
        }
        run(&pool, &mut batch).await;
    }
}

async fn run(pool: &Pool, batch: &mut Vec<Job>) {
    if batch.is_empty() {
        return;
    }
    let appends: Vec<&SessionAppend> = batch.iter().map(|job| &job.append).collect();
    let results = write(pool, &appends).await;
    let results = results.unwrap_or_else(|error| {
        tracing::error!(%error, appends = appends.len(), "a transaction of appends failed");
        let error = Arc::new(error);
        let lost = || StoreError::Unavailable(Box::new(Lost(Arc::clone(&error))));
        appends.iter().map(|_| Err(lost())).collect()
    });
    for (job, result) in batch.drain(..).zip(results) {
        // A caller that went away does not want to know.
        let _gone = job.reply.send(result);
    }
}

/// A log as this transaction knows it; its row is locked.
struct Known {
    log: i64,
    end: LogEnd,
    changed: bool,
}

/// One result for each append. An error means that nothing of any of them was written.
async fn write(pool: &Pool, appends: &[&SessionAppend]) -> Result<Vec<Result<LogEnd>>> {
    let client = pool.get().await;
    let mut client = client.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
    let transaction = begin(&mut client, WHAT).await?;
    let mut logs = lock(&transaction, appends).await?;
    let mut entries = Entries::default();
    let mut results = Vec::with_capacity(appends.len());
    for append in appends {
        results.push(one(&transaction, &mut logs, append, &mut entries).await?);
    }
    entries.write(&transaction).await?;
    write_ends(&transaction, &logs).await?;
    commit(transaction, WHAT).await?;
    Ok(results)
}

/// The logs that are appended to. Everybody locks them in the same order.
async fn lock<'a>(
    transaction: &Transaction<'_>,
    appends: &[&'a SessionAppend],
) -> Result<BTreeMap<&'a str, Known>> {
    let ids: BTreeSet<&str> = appends.iter().map(|one| one.session.as_str()).collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let sql = "SELECT * FROM session_logs WHERE session = ANY($1) ORDER BY session FOR UPDATE";
    let mut found = BTreeMap::new();
    for row in rows(transaction, WHAT, sql, &[&ids]).await? {
        let row = &Cells(&row);
        let id: String = get(row, WHAT, "session")?;
        let place = ids.binary_search(&id.as_str());
        let Some(id) = place.ok().and_then(|place| ids.get(place)) else {
            continue;
        };
        let log = log_row_from_row(row)?;
        let known = Known {
            log: log.log,
            end: log.end,
            changed: false,
        };
        found.insert(*id, known);
    }
    Ok(found)
}

/// One append. The inner error is its own; nothing of it is left then.
async fn one<'a>(
    transaction: &Transaction<'_>,
    logs: &mut BTreeMap<&'a str, Known>,
    append: &'a SessionAppend,
    entries: &mut Entries<'a>,
) -> Result<Result<LogEnd>> {
    let Some(known) = logs.get_mut(append.session.as_str()) else {
        return Ok(Err(StoreError::NotFound { what: WHAT }));
    };
    if known.end.epoch != append.epoch {
        return Ok(Err(StoreError::Conflict { what: WHAT }));
    }
    if append.record.is_some() || !append.turns.is_empty() {
        execute(transaction, "SAVEPOINT job").await?;
        if let Err(error) = rest(transaction, known.log, append).await {
            execute(transaction, "ROLLBACK TO job").await?;
            execute(transaction, "RELEASE job").await?;
            return Ok(Err(error));
        }
        execute(transaction, "RELEASE job").await?;
    }
    let mut end = known.end;
    for event in &append.events {
        let last = match event.stream {
            Stream::Log => &mut end.log,
            Stream::Universal => &mut end.universal,
        };
        *last += 1;
        entries.push(known.log, *last, event);
    }
    end.position = append.position.unwrap_or(end.position);
    known.changed |= end != known.end;
    known.end = end;
    Ok(Ok(end))
}

async fn execute(transaction: &Transaction<'_>, sql: &str) -> Result<()> {
    transaction.batch_execute(sql).await.map_err(in_(WHAT))
}

/// What an append changes besides its log.
async fn rest(transaction: &Transaction<'_>, log: i64, append: &SessionAppend) -> Result<()> {
    if let Some(record) = &append.record {
        if record.id != append.session {
            return Err(StoreError::Conflict { what: WHAT });
        }
        sessions::update(transaction, record).await?;
    }
    for turn in &append.turns {
        write_turn(transaction, log, turn).await?;
    }
    Ok(())
}

async fn write_turn(client: &impl GenericClient, log: i64, turn: &Turn) -> Result<()> {
    let sql = "INSERT INTO session_turns (log, number, binding, author, first, last, outcome, \
               started_at, ended_at, snapshot) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
               ON CONFLICT (log, number) DO UPDATE SET binding = $3, author = $4, first = $5, \
               last = $6, outcome = $7, started_at = $8, ended_at = $9, snapshot = $10";
    let last: Option<i64> = turn.last.map(to_sql_int);
    let args: [Arg<'_>; 10] = [
        &log,
        &to_sql_int(turn.number),
        &Text(&turn.binding),
        &turn.author.as_deref().map(Text),
        &to_sql_int(turn.first),
        &last,
        &turn.outcome.as_deref().map(Text),
        &turn.started_at.as_millis(),
        &turn.ended_at.map(Timestamp::as_millis),
        &turn.snapshot.as_ref().map(SnapshotId::as_str),
    ];
    change(client, "turn", sql, &args).await.map(drop)
}

/// Rows of `session_events`, column by column.
#[derive(Default)]
struct Entries<'a> {
    logs: Vec<i64>,
    streams: Vec<i16>,
    places: Vec<i64>,
    times: Vec<i64>,
    sources: Vec<&'static str>,
    kinds: Vec<Text<'a>>,
    authors: Vec<Option<Text<'a>>>,
    connections: Vec<Option<Text<'a>>>,
    payloads: Vec<Text<'a>>,
    wires: Vec<Option<Text<'a>>>,
}

impl<'a> Entries<'a> {
    fn push(&mut self, log: i64, place: u64, event: &'a NewSessionEvent) {
        self.logs.push(log);
        self.streams.push(stream_column(event.stream));
        self.places.push(to_sql_int(place));
        self.times.push(event.at.as_millis());
        self.sources.push(event.source.as_str());
        self.kinds.push(Text(&event.kind));
        self.authors.push(event.author.as_deref().map(Text));
        self.connections.push(event.connection.as_deref().map(Text));
        self.payloads.push(Text(&event.payload));
        self.wires.push(event.wire.as_deref().map(Text));
    }

    async fn write(&self, client: &impl GenericClient) -> Result<()> {
        if self.logs.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO session_events \
                   (log, stream, seq, at, source, kind, author, connection, payload, wire) \
                   SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], \
                   $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], \
                   $10::text[])";
        let args: [Arg<'_>; 10] = [
            &self.logs,
            &self.streams,
            &self.places,
            &self.times,
            &self.sources,
            &self.kinds,
            &self.authors,
            &self.connections,
            &self.payloads,
            &self.wires,
        ];
        change(client, "session event", sql, &args).await.map(drop)
    }
}

async fn write_ends(client: &impl GenericClient, logs: &BTreeMap<&str, Known>) -> Result<()> {
    let changed: Vec<_> = logs.iter().filter(|(_, known)| known.changed).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = changed.iter().map(|(id, _)| **id).collect();
    let column = |of: fn(&LogEnd) -> u64| -> Vec<i64> {
        let ends = changed.iter().map(|(_, known)| &known.end);
        ends.map(|end| to_sql_int(of(end))).collect()
    };
    let sql = "UPDATE session_logs SET last = u.last, universal_last = u.universal, \
               input = u.input, output = u.output \
               FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) \
               AS u (session, last, universal, input, output) \
               WHERE session_logs.session = u.session";
    let args: [Arg<'_>; 5] = [
        &ids,
        &column(|end| end.log),
        &column(|end| end.universal),
        &column(|end| end.position.input),
        &column(|end| end.position.output),
    ];
    change(client, WHAT, sql, &args).await.map(drop)
}

/// Deletes a few of the entries that nobody can read any more. Whether there may be others.
async fn sweep(pool: &Pool) -> Result<bool> {
    let client = pool.get().await;
    let mut client = client.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
    let transaction = begin(&mut client, WHAT).await?;
    let sql = "SELECT * FROM session_trash ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";
    let found = rows(&transaction, WHAT, sql, &[]).await?;
    let Some(row) = found.first() else {
        return Ok(false);
    };
    let row = &Cells(row);
    let (id, log): (i64, i64) = (get(row, WHAT, "id")?, get(row, WHAT, "log")?);
    let sql = "DELETE FROM session_events WHERE ctid = ANY(ARRAY( \
               SELECT e.ctid FROM session_events e JOIN session_trash t \
               ON e.log = t.log AND e.stream = t.stream AND e.seq < t.before \
               WHERE t.id = $1 AND e.log = $2 ORDER BY e.seq LIMIT $3))";
    let deleted = change(&transaction, WHAT, sql, &[&id, &log, &SWEEP_ROWS]).await?;
    if deleted < SWEEP_ROWS.unsigned_abs() {
        let sql = "DELETE FROM session_trash WHERE id = $1";
        change(&transaction, WHAT, sql, &[&id]).await?;
    }
    commit(transaction, WHAT).await?;
    Ok(true)
}
